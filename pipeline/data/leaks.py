"""Features that know the answer: a column that all but determines the target is more often a copy than a discovery."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pandas as pd

from pipeline.data.dataset import Dataset
from pipeline.data.findings import Finding
from pipeline.data.preprocess import Preprocessor, TabularPreprocessor
from pipeline.data.values import numbers, texts

PURITY: Final = 0.995
"""Share of training rows whose class a single column's levels tell, from which it is suspected."""
MAX_SHARE_OF_LEVELS: Final = 0.05
"""Columns with more levels than this share of the rows are pure by chance."""
MIN_ROWS_A_LEVEL: Final = 5
"""A column needs fewer levels than the rows outside the largest class divided by this, for the same reason."""
CORRELATION: Final = 0.9999


def find_leaks(train: Dataset, preprocessor: Preprocessor, target: npt.NDArray[Any], name: str) -> tuple[Finding, ...]:
    """Suspicions about single columns of a table; `target` is encoded ``(N,)``. Other kinds have none."""
    if not isinstance(preprocessor, TabularPreprocessor) or not isinstance(train.features, pd.DataFrame):
        return ()
    is_classes = target.dtype.kind == "i"
    found: list[Finding] = []
    for column in preprocessor.schema_of_features:
        values = train.features[column]
        message = _purity(values, target) if is_classes else _correlation(values, target)
        if message is not None:
            found.append(
                Finding(
                    severity="warning",
                    subject=column,
                    message=f"{message} of the target {name!r}: a leak, unless it is known before the target is",
                    remedy=f"set data.types.{column}: drop if it is one",
                )
            )
    return tuple(found)


def _purity(values: pd.Series, classes: npt.NDArray[np.int64]) -> str | None:
    levels, names = pd.factorize(texts(values), use_na_sentinel=False)
    if len(names) > MAX_SHARE_OF_LEVELS * len(levels):
        return None
    n_classes = int(classes.max()) + 1
    counts = np.bincount(levels * n_classes + classes, minlength=len(names) * n_classes).reshape(-1, n_classes)
    n_minority = len(levels) - counts.sum(axis=0).max()
    if len(names) * MIN_ROWS_A_LEVEL > n_minority:
        return None
    purity = counts.max(axis=1).sum() / len(levels)
    # A rare positive class makes any column look pure: the column must explain what the majority does not.
    if purity < PURITY or (1 - purity) * len(levels) > 0.1 * n_minority:
        return None
    return f"its {len(names)} levels tell {purity:.1%}"


def _correlation(values: pd.Series, target: npt.NDArray[np.float32]) -> str | None:
    x = numbers(values)
    present = np.isfinite(x)
    if present.sum() < 10 or np.ptp(x[present]) == 0 or np.ptp(target[present]) == 0:
        return None
    scaled = (x[present] - x[present].mean()) / np.abs(x[present]).max()
    correlation = float(np.corrcoef(scaled, target[present].astype(np.float64))[0, 1])
    return f"it has the correlation {correlation:+.5f}" if abs(correlation) > CORRELATION else None
