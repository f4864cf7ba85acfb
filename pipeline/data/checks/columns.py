"""Columns that say nothing new: copies of others, and ids that the types do not give away."""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.stats import rankdata

from pipeline.data.checks.parts import Parts, levels, measured, sample
from pipeline.data.findings import Finding

COPY: Final = 0.9999
"""Correlation of the ranks of two columns from which one is taken for the other in another unit, or rounded."""
MOST_COLUMNS: Final = 1000
"""Columns that are compared with each other: a thousand are half a million pairs."""
MOST_ROWS: Final = 5000
ID_RANGE: Final = 10
"""Different whole numbers in all rows are ids where their range is below this many times the rows: measurements of
that resolution repeat (by the birthday problem, with certainty from a few hundred rows on)."""
MIN_DIFFERENT: Final = 10
"""Rows that must not have the column's commonest value, for it to be compared."""
MIN_ROWS: Final = 200


def find_columns(parts: Parts) -> list[Finding]:
    """Near-copies and ids among the columns that are used."""
    train = parts.train.features
    if not isinstance(train, pd.DataFrame):
        return []
    rows = sample(len(train), MOST_ROWS)
    few = train.iloc[rows]
    ids = [_id(name, train[name]) for name, kind in parts.types.items() if kind == "numeric"]
    return [*(finding for finding in ids if finding is not None), *_copies(few, parts)]


def _id(name: str, column: pd.Series) -> Finding | None:
    values = measured(column, "numeric")
    assert values is not None
    n = len(values)
    if n < MIN_ROWS or np.isnan(values).any() or (values != np.floor(values)).any():
        return None
    extent = float(values.max() - values.min())
    if extent > ID_RANGE * n or len(np.unique(values)) < n:
        return None
    return Finding(
        severity="warning",
        subject=name,
        message="every row has another whole number, so it is more likely an id than a measurement",
        evidence=f"{n:,} training rows, from {values.min():.0f} to {values.max():.0f}",
        remedy=f"set data.types.{name}: drop if it is one",
        check="columns",
    )


def _copies(frame: pd.DataFrame, parts: Parts) -> list[Finding]:
    """Each column that is a copy of one before it."""
    names: list[str] = []
    ranked: list[npt.NDArray[np.float64]] = []
    coded: dict[bytes, str] = {}
    found: list[Finding] = []
    for name, kind in list(parts.types.items())[:MOST_COLUMNS]:
        values = measured(frame[name], kind)
        if kind == "categorical":
            codes, distinct = levels(frame[name])
            key = codes.tobytes()  # numbered by first appearance: equal codes are a renaming of levels
            if len(distinct) > 1 and key in coded:
                found.append(_copy(name, coded[key], f"each of its {len(distinct)} levels has one there"))
            coded.setdefault(key, name)
        elif values is not None:
            ranks = rankdata(np.nan_to_num(values, nan=float(np.nanmedian(values)) if np.isfinite(values).any() else 0))
            if _varies(ranks):
                names.append(name)
                ranked.append((ranks - ranks.mean()) / ranks.std())
    if len(ranked) < 2:
        return found
    correlation = np.stack(ranked) @ np.stack(ranked).T / len(frame)
    for j in range(1, len(names)):
        i = int(np.abs(correlation[j, :j]).argmax())
        if abs(correlation[j, i]) > COPY:
            found.append(_copy(names[j], names[i], f"rank correlation {correlation[j, i]:+.5f}"))
    return found


def _varies(ranks: npt.NDArray[np.float64]) -> bool:
    """Whether enough rows differ from the commonest value: two columns of zeros with one exception are no copies."""
    _, counts = np.unique(ranks, return_counts=True)
    return bool(len(ranks) - counts.max() >= MIN_DIFFERENT)


def _copy(name: str, other: str, evidence: str) -> Finding:
    return Finding(
        severity="warning",
        subject=name,
        message=f"it says the same as {other!r}",
        evidence=evidence,
        remedy=f"set data.types.{name}: drop",
        check="columns",
    )
