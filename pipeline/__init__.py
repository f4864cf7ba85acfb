"""The core of the AutoML pipeline: data, models, training, search, tracking, evaluation, registry.

`pipeline.data`, `pipeline.models` and `pipeline.training` import neither Optuna nor MLflow nor Prefect: worker
processes load them and nothing else. `pipeline.search`, `pipeline.tracking` and `pipeline.registry` are the thin edges
to those libraries. Imports point one way: ``flows -> search_spaces -> pipeline``.
"""
