"""Features that are distributed otherwise in the validation or test part than in training.

Population stability index: the sum over bins of ``(p - q) ln(p / q)``. Above 0.25 is a major change by the rule of
credit scoring (Siddiqi, Credit Risk Scorecards, 2006). Without any change it is about ``(1/n + 1/m)`` times a
chi-square variable with a degree of freedom less than bins (Yurdakul, Statistical properties of population stability
index, 2018), which small parts exceed by chance: both bounds must be passed.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.stats import chi2

from pipeline.data.checks.parts import Parts, in_numbers, measured, sample
from pipeline.data.dataset import Dataset, take
from pipeline.data.findings import Finding
from pipeline.data.values import texts

MAJOR: Final = 0.25
FALSE_ALARMS: Final = 1e-3
"""Share of data sets without drift in which any column passes the second bound, by Bonferroni."""
N_BINS: Final = 10
MOST_LEVELS: Final = 20


def find_drift(parts: Parts) -> list[Finding]:
    """One finding for each feature and part that differ."""
    train = _table(parts.train)
    types = parts.types or dict.fromkeys(train.columns, "numeric")
    divides = parts.split.column  # the parts differ in it on purpose
    compared = [name for name, kind in types.items() if kind != "text" and name in train.columns and name != divides]
    found: list[Finding] = []
    for part_name, part in parts.held_out:
        other = _table(part)
        for name in compared:
            counts = _counts(train[name], other[name], types[name])
            if counts is None:
                continue
            index, bound = stability_index(*counts, n_tests=len(compared))
            if index > max(MAJOR, bound):
                found.append(
                    Finding(
                        severity="warning",
                        subject=name,
                        message=f"the {part_name} part has another distribution than the training part",
                        evidence=f"population stability index {index:.2f}, over {max(MAJOR, bound):.2f}",
                        remedy="make sure that both are of what the model will meet",
                        check="drift",
                    )
                )
    return found


def stability_index(
    train: npt.NDArray[np.int64], other: npt.NDArray[np.int64], n_tests: int = 1
) -> tuple[float, float]:
    """The index of two sets of counts over the same bins, and what it stays below by chance. Half a row is added to
    every bin, so that an empty one does not make it infinite."""
    p, q = ((counts + 0.5) / (counts + 0.5).sum() for counts in (train, other))
    index = float(((p - q) * np.log(p / q)).sum())
    bound = chi2.ppf(1 - FALSE_ALARMS / max(1, n_tests), len(train) - 1) * (1 / train.sum() + 1 / other.sum())
    return index, float(bound)


def _table(part: Dataset) -> pd.DataFrame:
    return in_numbers(take(part.features, sample(len(part))))


def _counts(
    train: pd.Series, other: pd.Series, kind: str
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]] | None:
    """Rows in each bin, missing values in the last one; None where there are fewer than two bins."""
    x, y = measured(train, kind), measured(other, kind)
    if x is not None and y is not None:
        if not np.isfinite(x).any():
            return None
        edges = np.unique(np.nanquantile(x, np.linspace(0, 1, N_BINS + 1)[1:-1]))
        n = len(edges) + 2
        codes = [np.where(np.isnan(v), n - 1, np.searchsorted(edges, v, side="right")) for v in (x, y)]
    else:
        known = texts(train).value_counts().index[:MOST_LEVELS]
        n = len(known) + 2
        codes = []
        for text in (texts(train), texts(other)):
            at = known.get_indexer(pd.Index(text))
            codes.append(np.where(text.isna(), n - 1, np.where(at < 0, n - 2, at)))
    counts = [np.bincount(code, minlength=n) for code in codes]
    used = (counts[0] + counts[1]) > 0
    return (counts[0][used], counts[1][used]) if used.sum() >= 2 else None
