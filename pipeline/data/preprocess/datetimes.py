"""Dates to numbers: elapsed time, and the parts of year, month, week and day that differ in training."""

from __future__ import annotations

from typing import Annotated, Final, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd
from pydantic import BaseModel, ConfigDict, Field, FiniteFloat

from pipeline.data.times import stamps, time_format
from pipeline.errors import DataError

DatePart = Literal["month", "day", "weekday", "hour"]

_PERIOD: Final[dict[DatePart, float]] = {"month": 12, "day": 31, "weekday": 7, "hour": 24}
_LONGEST: Final = 10.0
"""Bound of the elapsed time in standard deviations: dates far beyond training are far, not further and further."""


class DatetimeColumn(BaseModel):
    """One column of dates as its training part was."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    format: str
    """ISO8601, or as `datetime.strptime` has it."""
    mean: FiniteFloat
    """Of the training part, in seconds since 1970."""
    std: Annotated[FiniteFloat, Field(gt=0)]
    parts: tuple[DatePart, ...]
    """Those that differ in training; each is a point on a circle, so that December is beside January."""
    indicator: bool
    """Whether training had missing or unreadable dates, so that a 0/1 column tells where they are."""

    @property
    def width(self) -> int:
        """Columns that it becomes: elapsed time, sine and cosine of each part, the indicator."""
        return 1 + 2 * len(self.parts) + self.indicator

    def encode(self, column: pd.Series) -> npt.NDArray[np.float32]:
        """Shape: ``(N, width)``. A missing date is 0 in all of them but the indicator."""
        when = stamps(column, self.format)
        absent = np.isnan(when)
        columns = [((when - self.mean) / self.std).clip(-_LONGEST, _LONGEST)]
        for part, values in _parts_of(when).items():
            if part in self.parts:
                angle = 2 * np.pi * values / _PERIOD[part]
                columns += [np.sin(angle), np.cos(angle)]
        encoded = np.where(absent[:, None], 0.0, np.stack(columns, axis=1))
        if self.indicator:
            encoded = np.concatenate([encoded, absent[:, None]], axis=1)
        return encoded.astype(np.float32)


def fit_datetime(name: str, column: pd.Series) -> DatetimeColumn:
    """Fit on training rows.

    Raises:
        DataError: no format reads the column.
    """
    format_ = time_format(column)
    if format_ is None:
        raise DataError(
            f"the column {name!r} has no dates in a format that is known", f"set data.types.{name} to another type"
        )
    return fit_dates(name, column, format_)


def fit_dates(name: str, column: pd.Series, format_: str) -> DatetimeColumn:
    """Fit on training rows whose format is known."""
    when = stamps(column, format_)
    present = when[np.isfinite(when)]
    parts = tuple(part for part, values in _parts_of(present).items() if len(np.unique(values)) > 1)
    return DatetimeColumn(
        name=name,
        format=format_,
        mean=float(present.mean()),
        std=float(present.std()) or 1.0,
        parts=parts,
        indicator=len(present) < len(when),
    )


def _parts_of(when: npt.NDArray[np.float64]) -> dict[DatePart, npt.NDArray[np.float64]]:
    """The parts of stamps, from 0; anything where the stamp is missing."""
    seconds = np.nan_to_num(when).astype(np.int64)
    times = pd.Series(seconds.astype("datetime64[s]")).dt
    return {
        "month": np.asarray(times.month - 1, dtype=np.float64),
        "day": np.asarray(times.day - 1, dtype=np.float64),
        "weekday": np.asarray(times.day_of_week, dtype=np.float64),
        "hour": seconds % 86_400 / 3600,
    }
