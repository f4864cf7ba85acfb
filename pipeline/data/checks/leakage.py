"""Features that know the answer: a column that all but determines the target is more often a copy than a discovery.

Each column predicts the target alone, and is scored on rows that it was not fitted on. H2O Driverless AI does the same
with a small model a feature, AUC for classes and R2 for quantities (docs.h2o.ai, "Data leakage and shift detection").
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.stats import rankdata

from pipeline.data.checks.parts import Parts, levels, measured
from pipeline.data.findings import Finding

AUC: Final = 0.99
"""Suspicion starts here for classes (mean over the classes, one against the others). The strongest single features of
the clean sets that come with scikit-learn reach 0.975 (breast_cancer, worst perimeter) and 0.985 (iris, petal width);
a copy of a binary target with 1 % of its labels flipped has 0.99."""
R2: Final = 0.99
"""... and here for quantities. carat explains 0.88 of the price of diamonds."""
RANKS: Final = 0.9999
"""... or here, for the correlation of ranks: a few rows, or a column that is the target in another unit."""
N_BINS: Final = 64
MIN_ROWS: Final = 50
"""Halves of fewer rows than half of this say nothing."""
MIN_OF_A_CLASS: Final = 5
"""Rows of a class in each half, for it to be scored."""


def find_leaks(parts: Parts) -> list[Finding]:
    """Suspicions about single columns of a table. Other kinds have none."""
    if not isinstance(parts.train.features, pd.DataFrame):
        return []
    rows = parts.sample()
    target = parts.encoded[rows]
    found: list[Finding] = []
    for name, kind in parts.types.items():
        evidence = _suspicion(parts.train.features[name].iloc[rows], kind, target, is_classes=parts.is_classes)
        if evidence:
            found.append(
                Finding(
                    severity="warning",
                    subject=name,
                    message=f"it tells the target {parts.target!r} alone: a leak, unless it is known before the target",
                    evidence=f"{evidence} on {len(rows):,} training rows",
                    remedy=f"set data.types.{name}: drop if it is one",
                    check="leakage",
                )
            )
    return found


def _suspicion(column: pd.Series, kind: str, target: npt.NDArray[Any], *, is_classes: bool) -> str:
    """What is suspicious about a column; empty where nothing is."""
    values = measured(column, kind)
    if values is not None and not is_classes:
        ranks = rank_correlation(values, target)
        if abs(ranks) > RANKS:
            return f"rank correlation {ranks:+.5f}"
    if len(target) < MIN_ROWS:
        return ""
    score = score_alone(column, kind, target, is_classes=is_classes)
    if score < (AUC if is_classes else R2):
        return ""
    return f"{'AUC' if is_classes else 'R2'} {score:.4f} with this column only"


def rank_correlation(values: npt.NDArray[np.float64], target: npt.NDArray[Any]) -> float:
    """Spearman's, over the rows with a value; 0 where there are too few or they are all the same."""
    present = np.isfinite(values)
    x, y = rankdata(values[present]), rankdata(target[present])
    if len(x) < 10 or x.min() == x.max() or y.min() == y.max():
        return 0.0
    return float(np.corrcoef(x, y)[0, 1])


def score_alone(column: pd.Series, kind: str, target: npt.NDArray[Any], *, is_classes: bool) -> float:
    """How well a column predicts the target on rows it was not fitted on: AUC, or R2. Rows are in random order."""
    values = measured(column, kind)
    if values is not None:
        cells = _binned(values)
    else:
        cells, _ = levels(column)
    half = len(target) // 2
    first, second = slice(0, half), slice(half, None)
    score = _auc if is_classes else _r2
    return min(score(cells, target, first, second), score(cells, target, second, first))


def _binned(values: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
    """The quantile bin of every value, from 0; missing values have a bin of their own."""
    if not np.isfinite(values).any():
        return np.zeros(len(values), dtype=np.int64)
    edges = np.unique(np.nanquantile(values, np.linspace(0, 1, N_BINS + 1)[1:-1]))
    return np.where(np.isnan(values), len(edges) + 1, np.searchsorted(edges, values, side="right"))


def _auc(cells: npt.NDArray[np.int64], classes: npt.NDArray[np.int64], fitted: slice, scored: slice) -> float:
    """Mean over the classes of the AUC of a cell's share of the class."""
    n_classes = int(classes.max()) + 1
    counts = np.zeros((int(cells.max()) + 1, n_classes))
    np.add.at(counts, (cells[fitted], classes[fitted]), 1)
    prior = counts.sum(axis=0) / max(1, counts.sum())
    share = (counts + prior) / (counts.sum(axis=1, keepdims=True) + 1)
    aucs: list[float] = []
    for label in range(n_classes):
        is_it = classes[scored] == label
        n_it = int(is_it.sum())
        if min(n_it, len(is_it) - n_it, int((classes[fitted] == label).sum())) < MIN_OF_A_CLASS:
            continue
        ranks = rankdata(share[cells[scored], label])
        aucs.append((ranks[is_it].sum() - n_it * (n_it + 1) / 2) / (n_it * (len(is_it) - n_it)))
    return float(np.mean(aucs)) if aucs else 0.0


def _r2(cells: npt.NDArray[np.int64], target: npt.NDArray[Any], fitted: slice, scored: slice) -> float:
    """Variance that the means of the cells explain."""
    n_cells = int(cells.max()) + 1
    counts = np.bincount(cells[fitted], minlength=n_cells)
    mean = float(target[fitted].mean())
    means = (np.bincount(cells[fitted], weights=target[fitted], minlength=n_cells) + mean) / (counts + 1)
    rest = float(((target[scored] - means[cells[scored]]) ** 2).sum())
    total = float(((target[scored] - target[scored].mean()) ** 2).sum())
    return 1 - rest / total if total > 0 else 0.0
