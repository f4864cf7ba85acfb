"""Whether data has moved: one data set's distributions against an earlier one's, column by column, with effect sizes.

Most rows of tomorrow's data are today's, so the samples overlap: the test is then stricter than its level says.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import torch
from pydantic import BaseModel, ConfigDict

from pipeline.data.profile import Column, Profile

MODERATE, LARGE = 0.1, 0.25
"""The usual bounds of the population stability index (Siddiqi, Credit Risk Scorecards, 2006): below, nothing moved."""
LEVEL = 0.01
"""Of the test of all columns together (Bonferroni): small samples have a large index by chance."""
BINS = 10


class ColumnDrift(BaseModel):
    """How far one column's distribution has moved."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    psi: float
    """Population stability index over ten bins of the earlier data (or its categories), missing values being one more:
    the sum of (now - then) * log(now / then)."""
    cramers_v: float
    """0: the same distribution, 1: nothing in common; from the chi-square statistic of the same bins."""
    p: float
    """Of that chi-square test (homogeneity of two samples)."""
    mean_shift: float | None
    """Of a numeric column: the difference of means in earlier standard deviations."""
    then: str
    now: str
    """In words: mean and spread, or the most frequent categories."""
    moved: bool

    @property
    def verdict(self) -> str:
        return "" if not self.moved else "much" if self.psi >= LARGE else "moved"


class Drift(BaseModel):
    """A data set against an earlier one."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    n_then: int
    n_now: int
    columns: tuple[ColumnDrift, ...]
    """Those that moved first."""
    gone: tuple[str, ...]
    added: tuple[str, ...]

    @property
    def line(self) -> str:
        """``2 of 5 columns have moved: town (PSI 0.91), age (PSI 0.14)``."""
        moved = [column for column in self.columns if column.moved]
        parts = [f"{len(moved)} of {len(self.columns)} columns have moved"]
        if moved:
            parts[0] += ": " + ", ".join(f"{column.name} (PSI {column.psi:.2f})" for column in moved[:5])
        parts += [f"gone: {', '.join(self.gone[:5])}"] if self.gone else []
        parts += [f"new: {', '.join(self.added[:5])}"] if self.added else []
        return "; ".join(parts)


def drift(then: Profile, now: Profile) -> Drift:
    """Compare two profiles. A column whose type changed is gone and added."""
    earlier, later = ({(c.name, c.kind): c for c in profile.columns} for profile in (then, now))
    both = [key for key in earlier if key in later]
    columns = [_column(earlier[key], later[key], then.n_rows, now.n_rows, len(both)) for key in both]
    return Drift(
        n_then=then.n_rows,
        n_now=now.n_rows,
        columns=tuple(sorted(columns, key=lambda column: (not column.moved, -column.psi))),
        gone=tuple(name for name, kind in earlier if (name, kind) not in later),
        added=tuple(name for name, kind in later if (name, kind) not in earlier),
    )


def _column(then: Column, now: Column, n_then: int, n_now: int, n_columns: int) -> ColumnDrift:
    p_then, p_now = _shares(then, now)
    # Half a row in every bin keeps the logarithm finite.
    q_then = (p_then * n_then + 0.5) / (n_then + 0.5 * len(p_then))
    q_now = (p_now * n_now + 0.5) / (n_now + 0.5 * len(p_now))
    psi = float(((q_now - q_then) * np.log(q_now / q_then)).sum())
    pooled = (p_then * n_then + p_now * n_now) / (n_then + n_now)
    used = pooled > 0
    chi2 = float(((p_now - p_then)[used] ** 2 / pooled[used]).sum()) * n_then * n_now / (n_then + n_now)
    p = _chi2_tail(chi2, int(used.sum()) - 1)
    return ColumnDrift(
        name=then.name,
        psi=psi,
        cramers_v=math.sqrt(chi2 / (n_then + n_now)),
        p=p,
        mean_shift=(now.mean - then.mean) / then.std if then.kind == "numeric" and then.std > 0 else None,
        then=_in_words(then),
        now=_in_words(now),
        moved=psi >= MODERATE and p < LEVEL / n_columns,
    )


def _shares(then: Column, now: Column) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """The share of all rows in every bin of the earlier column, and of the later one in the same bins."""
    if then.kind == "numeric":
        wanted = np.arange(1, BINS) / BINS
        at = np.minimum(np.searchsorted(then.below, wanted - 1e-12), len(then.knots) - 1)
        edges = np.unique(np.array(then.knots)[at])
        bins = [np.diff(np.concatenate([[0.0], _cdf(column, edges), [1.0]])) for column in (then, now)]
    else:
        names = list(then.categories)
        bins = [np.array([column.categories.get(name, 0.0) for name in names]) for column in (then, now)]
        bins = [np.append(shares, max(0.0, 1 - shares.sum())) for shares in bins]
    parts = [
        np.append(shares * (1 - column.missing), column.missing)
        for shares, column in zip(bins, (then, now), strict=True)
    ]
    return parts[0], parts[1]


def _cdf(column: Column, at: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """The share of values <= each of `at`."""
    index = np.searchsorted(column.knots, at, side="right")
    return np.concatenate([[0.0], column.below])[index]


def _chi2_tail(statistic: float, df: int) -> float:
    """The probability of at least this much by chance."""
    if df < 1:
        return 1.0
    half = torch.tensor([df / 2, statistic / 2], dtype=torch.float64)
    return float(torch.special.gammaincc(half[0], half[1]))


def _in_words(column: Column) -> str:
    missing = f", {column.missing:.1%} missing" if column.missing else ""
    if column.kind == "numeric":
        return f"{column.mean:.4g} ± {column.std:.4g}{missing}"
    named = ", ".join(f"{name} {share:.0%}" for name, share in list(column.categories.items())[:3])
    return f"{named}{missing}"
