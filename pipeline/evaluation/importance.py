"""What a model uses of a table: how much its score falls where one column's values are shuffled among the rows
(Breiman, Random Forests, 2001, section 10).

Prepared rows are shuffled, all columns that are made of one raw column together: as the preprocessing looks at one row
at a time, that is the raw column shuffled. scikit-learn's `permutation_importance` would need the raw validation rows,
which nobody keeps, and would prepare all columns anew for every shuffled one; the tests compare both.

Axes: N rows, C outputs.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable
from typing import Final

import torch
from pydantic import BaseModel, ConfigDict
from scipy.special import stdtrit
from torch import Tensor

from pipeline.data.preprocess import TabularPreprocessor
from pipeline.data.spec import DataSpec
from pipeline.data.tensors import Inputs, Part
from pipeline.objective import Objective
from pipeline.training.metrics import validation_metrics

MOST_ROWS: Final = 1000
LEAST_ROWS: Final = 200
MOST_REPEATS: Final = 20
LEAST_REPEATS: Final = 5
BUDGET_ROWS: Final = 1_000_000
"""Rows that are predicted in all: repeats are saved first, then rows, then columns are left out from the end."""
BUDGET_PARAMS: Final = 2e11
"""Rows times parameters: some seconds of one core."""


class ColumnImportance(BaseModel):
    """What shuffling one raw column costs."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    column: str
    drop: float
    """By how much the metric gets worse, whatever its direction: the mean over the repeats."""
    low: float
    high: float
    """Every repeat draws rows as well as an order, so that the interval is of the drop over draws of rows."""


class Importance(BaseModel):
    """Permutation importance of the columns of a table, the most important first."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    metric: str
    score: float
    """Of the model on these rows, as they are."""
    columns: tuple[ColumnImportance, ...]
    n_rows: int
    n_repeats: int
    n_left_out: int
    """Columns that were too many to measure."""
    confidence: float


def permutation_importance(
    outputs: Callable[[Inputs], Tensor],
    part: Part,
    preprocessor: TabularPreprocessor,
    spec: DataSpec,
    objective: Objective,
    *,
    n_params: int,
    confidence: float,
    seed: int,
) -> Importance:
    """Shuffle each raw column of prepared rows, several times.

    Args:
        outputs: the model, from prepared rows to ``(N, C)``.
        part: rows that the model was not fitted on.
        n_params: of the model; a large one is asked less often.
    """
    places = preprocessor.places
    n_rows, n_repeats, n_columns = _affordable(len(part), len(places), n_params)
    generator = torch.Generator().manual_seed(seed)
    chosen = torch.randperm(len(part), generator=generator)[:n_rows]
    inputs, target_N = part.inputs.take(chosen), part.target[chosen]
    sign = 1 if objective.direction == "maximize" else -1

    def score(outputs_NC: Tensor, rows_N: Tensor) -> float:
        return float(validation_metrics(outputs_NC[None], target_N[rows_N], spec)[objective.metric][0])

    plain_NC = outputs(inputs)
    drops: dict[str, list[float]] = {name: [] for name in list(places)[:n_columns]}
    for _ in range(n_repeats):
        rows_N = torch.randint(n_rows, (n_rows,), generator=generator)
        before = score(plain_NC[rows_N], rows_N)
        for name, found in drops.items():
            others_N = rows_N[torch.randperm(n_rows, generator=generator)]
            shuffled = _shuffled(inputs, rows_N, others_N, *places[name])
            found.append(sign * (before - score(outputs(shuffled), rows_N)))
    measured = [_column(name, [d for d in found if math.isfinite(d)], confidence) for name, found in drops.items()]
    ranked = sorted((column for column in measured if column is not None), key=lambda column: -column.drop)
    return Importance(
        metric=objective.metric,
        score=score(plain_NC, torch.arange(n_rows)),
        columns=tuple(ranked),
        n_rows=n_rows,
        n_repeats=n_repeats,
        n_left_out=len(places) - len(ranked),
        confidence=confidence,
    )


def _affordable(n_rows: int, n_columns: int, n_params: int) -> tuple[int, int, int]:
    """Rows, repeats and columns within the budget."""
    budget = max(LEAST_ROWS * LEAST_REPEATS, int(min(BUDGET_ROWS, BUDGET_PARAMS / max(1, n_params))))
    rows = min(n_rows, MOST_ROWS)
    repeats = min(MOST_REPEATS, max(LEAST_REPEATS, budget // (rows * n_columns)))
    rows = min(rows, max(LEAST_ROWS, budget // (repeats * n_columns)))
    return rows, repeats, min(n_columns, max(1, budget // (repeats * rows)))


def _shuffled(
    inputs: Inputs, rows_N: Tensor, others_N: Tensor, numeric: tuple[int, ...], categorical: tuple[int, ...]
) -> Inputs:
    """The given rows, with one raw column's values those of other rows."""
    taken = inputs.take(rows_N)
    if numeric:
        taken.x[:, list(numeric)] = inputs.x[others_N][:, list(numeric)]
    if categorical and taken.categories is not None and inputs.categories is not None:
        taken.categories[:, list(categorical)] = inputs.categories[others_N][:, list(categorical)]
    return taken


def _column(name: str, drops: list[float], confidence: float) -> ColumnImportance | None:
    """None where the metric was undefined in nearly all repeats."""
    if len(drops) < 2:
        return None
    drop = statistics.fmean(drops)
    half = float(stdtrit(len(drops) - 1, (1 + confidence) / 2)) * statistics.stdev(drops)
    return ColumnImportance(column=name, drop=drop, low=drop - half, high=drop + half)
