"""Dates and times in text: which format a column is written in, and what it reads."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pandas as pd

from pipeline.data.values import numbers, texts

FORMATS: Final = (
    "ISO8601",
    "%d.%m.%Y", "%d.%m.%Y %H:%M", "%d.%m.%Y %H:%M:%S", "%d.%m.%y",
    "%m/%d/%Y", "%m/%d/%Y %H:%M", "%m/%d/%Y %H:%M:%S", "%m/%d/%y",
    "%d/%m/%Y", "%d/%m/%Y %H:%M", "%d/%m/%Y %H:%M:%S", "%d/%m/%y",
    "%d-%m-%Y", "%Y/%m/%d", "%Y/%m/%d %H:%M", "%Y/%m/%d %H:%M:%S", "%d %b %Y", "%b %d, %Y",
)  # fmt: skip
"""Tried in this order: where two read a column equally well, as 01/02/2020, the first is taken."""
TIME_SHARE: Final = 0.9
"""A text column is dates when at least this share of its present values are read by one format."""
_SAMPLE: Final = 1000
"""Distinct values that are looked at to find the format."""
_FEW: Final = 20
"""... and to rule most formats out."""
_BEGINS: Final = r"\d{1,4}[-./]\d{1,2}|\d{1,2} [A-Za-z]{3} |[A-Za-z]{3} \d{1,2},"
"""How all dates begin: reading texts that do not, in every format, takes long."""
MIN_ROWS_IN_ORDER: Final = 30
"""Fewer rows may ascend by chance or by the habit of whoever wrote them down."""
DISTINCT_IN_ORDER: Final = 0.5
"""Share of distinct stamps from which ordered rows are a record over time, not groups that were sorted by year."""


def time_format(column: pd.Series | npt.NDArray[Any]) -> str | None:
    """The format of `FORMATS` that reads the column's texts; None where they are no dates. Numbers are none."""
    series = pd.Series(column)
    if series.dtype.kind in "biuf":
        return None
    distinct = texts(series).dropna().unique()
    distinct = distinct[np.linspace(0, len(distinct) - 1, min(len(distinct), _SAMPLE)).astype(int)]
    if len(distinct) == 0 or np.isfinite(numbers(np.asarray(distinct, dtype=object))).mean() > 1 - TIME_SHARE:
        return None
    sample = pd.Series(distinct, dtype="str")
    if sample.str.match(_BEGINS).mean() < TIME_SHARE:
        return None
    likely = [format_ for format_ in FORMATS if _share(sample[:: max(1, len(sample) // _FEW)], format_) >= 0.5]
    read = {format_: _share(sample, format_) for format_ in likely}
    best = max(likely, key=lambda format_: read[format_], default=None)
    return best if best is not None and read[best] >= TIME_SHARE else None


def _share(sample: pd.Series, format_: str) -> float:
    """Of texts that a format reads."""
    return float(pd.to_datetime(sample, format=format_, errors="coerce", utc=True).notna().mean())


def stamps(column: pd.Series | npt.NDArray[Any], format_: str) -> npt.NDArray[np.float64]:
    """Seconds since 1970 in UTC ``(N,)``; NaN where a text is no date of this format. Times without a zone are UTC."""
    text = texts(column)
    codes, distinct = pd.factorize(text)  # dates repeat, and reading one is slow
    read = pd.to_datetime(pd.Series(distinct), format=format_, errors="coerce", utc=True).astype("datetime64[us, UTC]")
    seconds = np.append(read.astype("int64").to_numpy() / 1e6, np.nan)
    seconds[:-1][read.isna().to_numpy()] = np.nan
    result: npt.NDArray[np.float64] = seconds[codes]  # the code of missing texts is -1
    return result


def in_time_order(column: pd.Series) -> bool:
    """Whether the rows stand in the order of this column of dates, so that they are a record over time."""
    if len(column) < MIN_ROWS_IN_ORDER:
        return False
    format_ = time_format(column)
    if format_ is None:
        return False
    when = stamps(column, format_)
    if np.isnan(when).any() or len(np.unique(when)) < DISTINCT_IN_ORDER * len(when):
        return False
    steps = np.diff(when)
    return bool((steps >= 0).all() or (steps <= 0).all())
