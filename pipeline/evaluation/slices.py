"""Where a model is worse than on the whole: its scores on slices of the test rows, and which of them are surely worse
when so many are looked at. Axes: N rows, C outputs.

A slice is compared with all rows by the influence of each row on both scores, since they share rows; the one-sided p of
Student's t is corrected for the number of slices after Holm, A Simple Sequentially Rejective Multiple Test Procedure,
1979. Holm's holds whatever the slices have in common, and they overlap; Benjamini and Hochberg's does not. Testing rows
against rows slice by slice is Chung et al., Slice Finder, 2019 (arXiv 1807.06068).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import torch
from pydantic import BaseModel, ConfigDict
from scipy.special import stdtr, stdtrit
from torch import Tensor

from pipeline.data.dataset import Features
from pipeline.data.slicing import Level, Slicing
from pipeline.data.spec import DataSpec
from pipeline.evaluation.influence import influences
from pipeline.evaluation.intervals import Interval, wilson
from pipeline.objective import METRICS, Objective
from pipeline.training.metrics import validation_metrics

MIN_ROWS: Final = 30
"""Smaller slices say too little, and Student's t is no good there."""
MOST_COLUMNS: Final = 50
_MOST: Final = {"balanced_accuracy": 1.0, "f1_macro": 1.0, "roc_auc": 1.0, "r2": 1.0}
_OF_CLASSES: Final = ("accuracy", "log_loss")
"""What is defined on rows of a single class; accuracy is the class's recall."""


class Slice(BaseModel):
    """A finalist's scores on some of the test rows."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    column: str
    level: str
    is_bin: bool = False
    """Whether it is a range of numbers or times."""
    is_class: bool = False
    """Whether it is all rows of one true class."""
    n_rows: int
    test: dict[str, Interval]
    """Every metric that is defined on these rows, with an interval of its own: not corrected for how many there are."""
    metric: str
    """What it is compared by: the search's metric, or the nearest one that can be compared."""
    p: float | None
    """One-sided, of being no worse than all rows, corrected by Holm; None where it was not compared."""
    worse: bool
    """Whether it is worse than the whole with the evaluation's confidence, corrected for all slices."""

    @property
    def name(self) -> str:
        """``town = Lyon``, ``age <= 28``, ``age 28 to 37``."""
        return f"{self.column} {self.level}" if self.is_bin else f"{self.column} = {self.level}"

    @property
    def score(self) -> Interval | None:
        """By what it is compared; None where that is undefined on these rows."""
        return self.test.get(self.metric)


class Sliced(BaseModel):
    """All slices of one finalist that have rows enough."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    slices: tuple[Slice, ...]
    n_small: int
    """Slices that were left out because they have fewer than thirty test rows, but some."""
    n_columns_left_out: int
    """Columns beyond the first fifty."""

    @property
    def n_compared(self) -> int:
        """For how many comparisons the p values are corrected."""
        return sum(s.p is not None for s in self.slices)

    @property
    def worse(self) -> tuple[Slice, ...]:
        """The slices that are surely worse, the surest first."""
        return tuple(sorted((s for s in self.slices if s.worse), key=lambda s: s.p or 0.0))

    def of(self, column: str) -> tuple[Slice, ...]:
        return tuple(s for s in self.slices if s.column == column)


def read_slices(
    outputs_NC: Tensor,
    features: Features,
    target_N: Tensor,
    spec: DataSpec,
    objective: Objective,
    slicing: Slicing,
    *,
    confidence: float,
    keep: Sequence[str] = (),
) -> Sliced:
    """Score a finalist on every slice of the test rows.

    Args:
        outputs_NC: of all rows.
        features: the same rows, raw.
        target_N: encoded.
        keep: columns that are looked at however many there are.
    """
    codes_N = None if spec.task == "regression" else target_N.numpy()
    narrowed = slicing.narrowed(MOST_COLUMNS, keep)
    whole, moves = _values(outputs_NC, target_N, spec), influences(outputs_NC, target_N, spec)
    read, n_small = [], 0
    for level in narrowed.divide(features, codes_N):
        rows = torch.tensor(level.rows)  # a copy: pandas gives arrays that may not be written to
        n_rows = int(rows.sum())
        if n_rows < MIN_ROWS:
            n_small += n_rows > 0
            continue
        read.append(_read(outputs_NC, target_N, rows, level, spec, objective, whole, moves, confidence))
    corrected = _holm([s.p for s in read])
    slices = tuple(
        s.model_copy(update={"p": p, "worse": p is not None and p < 1 - confidence})
        for s, p in zip(read, corrected, strict=True)
    )
    return Sliced(slices=slices, n_small=n_small, n_columns_left_out=len(slicing.cuts) - len(narrowed.cuts))


def _read(
    outputs_NC: Tensor,
    target_N: Tensor,
    rows_N: Tensor,
    level: Level,
    spec: DataSpec,
    objective: Objective,
    whole: dict[str, float],
    moves: dict[str, Tensor],
    confidence: float,
) -> Slice:
    """One slice, with its p not yet corrected."""
    outputs, target = outputs_NC[rows_N], target_N[rows_N]
    values, own = _values(outputs, target, spec), influences(outputs, target, spec)
    names = [name for name in values if not level.is_class or name in _OF_CLASSES]
    n, N = len(target), len(target_N)
    metric = _compared_by(objective, level)
    p = None
    if metric in names and metric in whole and n < N:
        difference_N = -moves[metric].clone()
        difference_N[rows_N] += own[metric] * (N / n)
        sign = 1 if METRICS[metric].direction == "maximize" else -1
        p = _p_worse(sign * (values[metric] - whole[metric]), float(difference_N.square().mean() / N) ** 0.5, n)
    return Slice(
        column=level.column,
        level=level.name,
        is_bin=level.is_bin,
        is_class=level.is_class,
        n_rows=n,
        test={name: _interval(name, values[name], own[name], confidence) for name in names},
        metric=metric,
        p=p,
        worse=False,
    )


def _compared_by(objective: Objective, level: Level) -> str:
    """A slice may differ little in its target, which lowers r2 without any error; a class has no ROC AUC of its own."""
    if objective.metric == "r2":
        return "rmse"
    return "accuracy" if level.is_class and objective.metric not in _OF_CLASSES else objective.metric


def _values(outputs_NC: Tensor, target_N: Tensor, spec: DataSpec) -> dict[str, float]:
    values = {name: float(v[0]) for name, v in validation_metrics(outputs_NC[None], target_N, spec).items()}
    return {name: value for name, value in values.items() if value == value}


def _p_worse(difference: float, error: float, n: int) -> float:
    """Of a difference this far below 0, or further, where there is none; `n` rows are what it is uncertain by."""
    if error == 0:
        return 1.0
    return float(stdtr(n - 1, difference / error))


def _interval(name: str, value: float, influence_N: Tensor, confidence: float) -> Interval:
    n = len(influence_N)
    if name == "accuracy":
        return wilson(value, n, confidence)
    half = float(stdtrit(n - 1, (1 + confidence) / 2)) * float(influence_N.square().mean() / (n - 1)) ** 0.5
    low = value - half if name == "r2" else max(0.0, value - half)
    return Interval(value=value, low=low, high=min(value + half, _MOST.get(name, float("inf"))), confidence=confidence)


def _holm(ps: Sequence[float | None]) -> list[float | None]:
    """Holm's adjusted p values: the k-th smallest of m times ``m - k + 1``, never below the one before it."""
    order = sorted((p, at) for at, p in enumerate(ps) if p is not None)
    corrected: list[float | None] = [None] * len(ps)
    least = 0.0
    for k, (p, at) in enumerate(order):
        least = max(least, min(1.0, (len(order) - k) * p))
        corrected[at] = least
    return corrected
