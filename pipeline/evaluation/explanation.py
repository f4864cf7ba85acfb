"""Why the winner says what it says, for people: measured on validation rows, never on the sealed test."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

from pipeline.data.preprocess import ImagePreprocessor, SequencePreprocessor, TabularPreprocessor
from pipeline.data.tensors import Development
from pipeline.evaluation.attribution import EXTRA, Attribution, attribute, has_captum
from pipeline.evaluation.importance import Importance, permutation_importance
from pipeline.objective import Objective
from pipeline.packaging.predictor import Predictor


class Explanation(BaseModel):
    """What a model uses. Tables have an importance, images and sequences an attribution, other kinds nothing."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    trial: int
    rows: str
    """Which rows it was measured on."""
    importance: Importance | None = None
    attribution: Attribution | None = None
    missing: str | None = None
    """What there would be, and how to get it, where an extra is not installed."""


def explain(
    trial: int, model: Predictor, development: Development, objective: Objective, *, confidence: float, seed: int
) -> Explanation:
    """Explain a trial's model on validation rows; under cross-validation those are rows that it was trained on too."""
    spec, part = development.spec, development.validation
    rows = "rows of the cross-validation (the model was trained on them too)" if spec.n_folds else "validation rows"
    if isinstance(model.preprocessor, TabularPreprocessor):
        measured = permutation_importance(
            lambda inputs: model.logits(inputs) / model.temperature,
            part,
            model.preprocessor,
            spec,
            objective,
            n_params=sum(parameter.numel() for parameter in model.module.parameters()),
            confidence=confidence,
            seed=seed,
        )
        return Explanation(trial=trial, rows=rows, importance=measured)
    if not isinstance(model.preprocessor, ImagePreprocessor | SequencePreprocessor):
        return Explanation(trial=trial, rows=rows)
    if not has_captum():
        missing = f"Where the model looks in {spec.kind}s is shown with captum: {EXTRA}"
        return Explanation(trial=trial, rows=rows, missing=missing)
    return Explanation(
        trial=trial, rows=rows, attribution=attribute(model.module, part, model.preprocessor, spec, seed=seed)
    )
