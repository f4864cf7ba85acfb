"""The model registry: the `ModelRegistry` port and an in-memory fake; EDGE mlflow."""

from __future__ import annotations

from pipeline.tracking.environment import configure

configure()  # before any module of this package imports MLflow
