"""Where a model is wrong: which classes it takes for which, or how far its values are off. Axes: N rows, C outputs."""

from __future__ import annotations

from typing import Final

import torch
from pydantic import BaseModel, ConfigDict
from torch import Tensor

from pipeline.data.spec import DataSpec, Label

MOST_CLASSES: Final = 50
MOST_POINTS: Final = 400


class Confusion(BaseModel):
    """Test rows by their class and the class that was predicted."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    labels: tuple[Label, ...]
    rows: tuple[tuple[int, ...], ...]
    """``rows[true][predicted]``."""


class Residuals(BaseModel):
    """Predicted values against true ones, in the target's units."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    true: tuple[float, ...]
    predicted: tuple[float, ...]
    """Of evenly spaced rows of those sorted by their true value: at most four hundred, extremes included."""
    bias: float
    """Mean of predicted minus true, over all rows."""
    error_p50: float
    """Median of the absolute error."""
    error_p95: float


def confusion(outputs_NC: Tensor, target_N: Tensor, spec: DataSpec) -> Confusion | None:
    """The confusion matrix; None where there are more than fifty classes."""
    C = len(spec.labels)
    if C > MOST_CLASSES:
        return None
    counts = torch.bincount(target_N * C + outputs_NC.argmax(1), minlength=C * C).view(C, C)
    return Confusion(labels=spec.labels, rows=tuple(tuple(row) for row in counts.tolist()))


def residuals(outputs_NC: Tensor, target_N: Tensor, spec: DataSpec) -> Residuals:
    """How far the predictions of a regression are off."""
    true_N = target_N.double() * spec.target_scale + spec.target_mean
    predicted_N = outputs_NC[:, 0].double() * spec.target_scale + spec.target_mean
    errors_N = predicted_N - true_N
    median, high = torch.quantile(errors_N.abs(), torch.tensor([0.5, 0.95], dtype=torch.float64)).tolist()
    shown = torch.linspace(0, len(true_N) - 1, min(MOST_POINTS, len(true_N))).round().long()
    order = true_N.argsort()[shown]
    return Residuals(
        true=tuple(true_N[order].tolist()),
        predicted=tuple(predicted_N[order].tolist()),
        bias=float(errors_N.mean()),
        error_p50=median,
        error_p95=high,
    )
