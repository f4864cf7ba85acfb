"""A source as it was read: raw rows, nothing scaled, encoded or filled in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from pipeline.data.findings import Finding
from pipeline.data.spec import Kind

Rows = npt.NDArray[np.int64]
Features = pd.DataFrame | npt.NDArray[Any] | Sequence[npt.NDArray[np.float32]] | Sequence[npt.NDArray[np.float64]]
"""tabular: a DataFrame; image: ``(N, C, H, W)`` in its own dtype; sequence: N float32 arrays ``(T_i, D)``; forecast: N
float64 windows ``(T, D)``; text: a DataFrame with the texts in a column."""


@dataclass(frozen=True, slots=True)
class Dataset:
    """Raw rows of one kind.

    Args:
        target: raw values ``(N,)`` as the source has them, None where it has none. Text sources give text. Of forecasts
            ``(N, horizon)``: what comes after each window, less its naive forecast.
        findings: what the reader noticed.
        origins: of forecasts, the ``series`` of each window, and the ``step`` and ``time`` of its last row.
    """

    kind: Kind
    features: Features
    target: npt.NDArray[Any] | None
    name: str
    findings: tuple[Finding, ...] = ()
    origins: pd.DataFrame | None = None

    def __post_init__(self) -> None:
        assert self.target is None or len(self.target) == len(self.features), "features and target differ in length"

    def __len__(self) -> int:
        return len(self.features)

    def take(self, rows: Rows) -> Dataset:
        """The given rows, in their order."""
        target = None if self.target is None else self.target[rows]
        origins = None if self.origins is None else self.origins.iloc[rows].reset_index(drop=True)
        return replace(self, features=take(self.features, rows), target=target, origins=origins)


def take(features: Features, rows: Rows) -> Features:
    """The given rows of any kind of features, in their order."""
    if isinstance(features, pd.DataFrame):
        return features.iloc[rows].reset_index(drop=True)
    if isinstance(features, np.ndarray):
        return features[rows]
    return [features[row] for row in rows]
