"""Seeing that a table is series over time: which column is the time, and which tells the series apart."""

from __future__ import annotations

from typing import Final

import numpy as np
import pandas as pd

from pipeline.data.config import ForecastConfig
from pipeline.data.forecast.clock import fit_clock
from pipeline.data.forecast.layout import dates_of
from pipeline.data.forecast.series import series_codes
from pipeline.data.values import numbers, texts
from pipeline.errors import DataError

MIN_ROWS: Final = 30
"""Fewer rows a series are no record over time."""
REGULAR: Final = 0.9
"""Share of the steps between a series' ends that must have rows, for a proposal; a user who names the columns may have
more gaps."""


def propose_forecast(frame: pd.DataFrame, target: str) -> ForecastConfig | None:
    """Time and series columns of a table whose target is numbers at regular times; None where it is not so.

    Args:
        frame: all columns, the target's too.
    """
    if np.isnan(numbers(frame[target])).any():
        return None
    features = [str(name) for name in frame.columns if name != target]
    for time in dates_of(frame, features):
        for series in (None, *_groups(frame, [name for name in features if name != time])):
            if _is_regular(frame, time, series):
                return ForecastConfig(time=time, series=series)
    return None


def is_nothing_else(frame: pd.DataFrame, target: str, forecast: ForecastConfig) -> bool:
    """Whether the target has only its own past to be predicted from."""
    return set(map(str, frame.columns)) <= {target, forecast.time, forecast.series}


def _groups(frame: pd.DataFrame, names: list[str]) -> list[str]:
    """Columns that could tell series apart, those with the fewest values first."""
    counts = {name: texts(frame[name]).nunique() for name in names if not texts(frame[name]).isna().any()}
    few = [name for name, count in counts.items() if 1 < count <= len(frame) / MIN_ROWS]
    return sorted(few, key=lambda name: counts[name])


def _is_regular(frame: pd.DataFrame, time: str, series: str | None) -> bool:
    """Whether every series has one row a time, at regular distances, with few gaps."""
    codes, names = series_codes(frame, series)
    if len(frame) < MIN_ROWS * len(names):
        return False
    try:
        steps = fit_clock(frame[time], codes, name=time).steps(frame[time])
    except DataError:
        return False
    if len(np.unique(np.stack([codes, steps]), axis=1).T) < len(frame):
        return False
    spans = pd.Series(steps).groupby(codes).agg(lambda own: own.max() - own.min() + 1)
    return len(frame) >= REGULAR * float(spans.sum())
