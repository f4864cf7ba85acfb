"""Split-conformal prediction: an interval or a set of labels a row that holds the truth as often as was asked for.

Angelopoulos and Bates, A Gentle Introduction to Conformal Prediction, 2021 (arXiv 2107.07511), sections 1 and 2.3. Of
calibration rows it is known how far off the model was; the quantile of that, with the correction for their number, is
how much room a new row needs. Where the new row and the calibration rows could change places, at least `level` of new
rows are held, over all rows together: not in every group of them, and not for every set of calibration rows.

The calibration rows here are the validation part, which chose the epoch, the trial and the temperature. The model is a
little better there than on new rows, so the room is a little too small and the promise holds nearly. What it comes to
is measured on the sealed test (`pipeline.evaluation.coverage`).

Axes: N rows, C classes.
"""

from __future__ import annotations

import math
from typing import Annotated

import torch
from pydantic import BaseModel, ConfigDict, Field, FiniteFloat
from torch import Tensor

from pipeline.data.spec import DataSpec


class Conformal(BaseModel):
    """A fitted predictor of intervals or sets."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    level: Annotated[FiniteFloat, Field(gt=0, lt=1)]
    """Share of rows that are to be held."""
    threshold: Annotated[FiniteFloat, Field(ge=0)]
    """Largest score of what is held. Classes: one minus a label's probability. Regression: the distance from the
    prediction, in standard deviations of the target."""
    n_rows: Annotated[int, Field(ge=1)]
    """Calibration rows."""

    def interval(self, outputs_NC: Tensor, spec: DataSpec) -> tuple[Tensor, Tensor]:
        """Lower and upper end in the target's units, float64 ``(N,)`` each: equally wide for all rows."""
        values_N = outputs_NC[:, 0].double() * spec.target_scale + spec.target_mean
        room = self.threshold * spec.target_scale
        return values_N - room, values_N + room

    def sets(self, outputs_NC: Tensor) -> Tensor:
        """Which labels are held, bool ``(N, C)``: all that are probable enough, and always the most probable one.

        Thresholds of the true label's probability give the smallest sets on average (Sadinle, Lei and Wasserman,
        Least Ambiguous Set-Valued Classifiers, 2019). They can be empty; the most probable label only adds coverage.
        """
        held_NC = 1 - torch.softmax(outputs_NC.double(), 1) <= self.threshold
        return held_NC.scatter(1, outputs_NC.argmax(1, keepdim=True), True)


def fit_conformal(outputs_NC: Tensor, target_N: Tensor, spec: DataSpec, level: float) -> Conformal:
    """Fit on calibration rows: calibrated logits and class codes, or standardised values. `rows_needed` of them at
    least."""
    n = len(target_N)
    assert n >= rows_needed(level), "checked before anything was trained"
    scores_N = _scores(outputs_NC, target_N, spec).sort().values
    return Conformal(level=level, threshold=float(scores_N[_rank(n, level) - 1]), n_rows=n)


def rows_needed(level: float) -> int:
    """Fewest calibration rows that say anything at this level: with fewer the quantile is beyond the largest score."""
    n = math.floor(level / (1 - level))
    while _rank(n, level) > n:
        n += 1
    return n


def _rank(n: int, level: float) -> int:
    """Which of the ascending scores is the threshold, from 1. The product of 0.9 and 10 is 9, not a bit more."""
    return math.ceil(round((n + 1) * level, 9))


def _scores(outputs_NC: Tensor, target_N: Tensor, spec: DataSpec) -> Tensor:
    """How far off the model was, float64 ``(N,)``."""
    if spec.task == "regression":
        return (outputs_NC[:, 0].double() - target_N.double()).abs()
    return 1 - torch.softmax(outputs_NC.double(), 1).gather(1, target_N[:, None])[:, 0]
