"""The time column of series as step numbers: 0, 1, 2, … at equal distances, whatever the calendar makes of them."""

from __future__ import annotations

import re
from typing import Annotated, Any, Final, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd
from pydantic import BaseModel, ConfigDict, Field, FiniteFloat

from pipeline.data.times import stamps, time_format
from pipeline.data.values import numbers, texts
from pipeline.errors import DataError

Steps = npt.NDArray[np.int64]
Unit = Literal["number", "second", "business day", "month"]
Cycle = Literal["day", "week", "year"]

DAY: Final = 86_400.0
REGULAR: Final = 0.5
"""Share of all distances between neighbours that must be one step: where fewer are, there is no step."""
ROUNDING: Final = 1e-6
"""Of a step: numbers such as 0.1, 0.2, 0.3 are not exactly as far apart."""
MIN_BUSINESS_ROWS: Final = 10
"""Fewer days may miss the weekends by chance."""
MAX_STEP: Final = 10_000_000
"""Steps from the first time to the last: a stray year 9999 in a column of seconds is no series."""
_CYCLES: Final[dict[Cycle, float]] = {"day": DAY, "week": 7 * DAY, "year": 365.2425 * DAY}
_MONTH_END: Final = 31
_SHORT: Final[tuple[tuple[str, str], ...]] = (
    (r"\d{4}-\d{2}", "%Y-%m"),
    (r"\d{4}-\d{2}-\d{2}", "%Y-%m-%d"),
    (r"\d{4}-\d{2}-\d{2}T.*", "%Y-%m-%dT%H:%M:%S"),
)


class Clock(BaseModel):
    """How times become step numbers, and step numbers times again."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    column: str
    format: str
    """``number``, ``ISO8601``, or as `datetime.strptime` has it."""
    written: str
    """As `datetime.strftime` writes the times of forecasts; they look like those of the data."""
    unit: Unit
    size: Annotated[FiniteFloat, Field(gt=0)]
    """Units in a step: seconds, business days, months, or the number itself."""
    origin: FiniteFloat
    """Of step 0: seconds or business days since 1970, months since year 0, or the number itself."""
    day: Annotated[int, Field(ge=1, le=31)] = 1
    """By month: the day of the month; 31 stands for its last one."""
    time_of_day: Annotated[FiniteFloat, Field(ge=0, lt=DAY)] = 0.0
    """By month and business day: seconds since midnight."""

    @property
    def step(self) -> str:
        """A step in words: ``1 hour``, ``15 minutes``, ``3 months``."""
        if self.unit == "number":
            return f"{self.size:g}"
        if self.unit != "second":
            if self.unit == "month" and self.size % 12 == 0:
                return _counted(self.size / 12, "year")
            return _counted(self.size, self.unit)
        for name, seconds in (("week", 7 * DAY), ("day", DAY), ("hour", 3600.0), ("minute", 60.0)):
            if self.size % seconds == 0:
                return _counted(self.size / seconds, name)
        return _counted(self.size, "second")

    @property
    def step_s(self) -> float | None:
        """Mean length of a step in seconds; None where times are plain numbers."""
        lengths = {"second": 1.0, "business day": 7 * DAY / 5, "month": _CYCLES["year"] / 12}
        return None if self.unit == "number" else self.size * lengths[self.unit]

    def steps(self, column: pd.Series) -> Steps:
        """Step numbers ``(N,)``.

        Raises:
            DataError: a time that is missing, cannot be read, or lies between two steps.
        """
        at = (_in_units(read_times(column, self.format), self) - self.origin) / self.size
        nearest = np.round(at)
        odd = np.flatnonzero(np.abs(at - nearest) > 1e-3)
        if len(odd):
            raise DataError(
                f"the time column {self.column!r} must go in steps of {self.step}, but row {odd[0] + 1} has "
                f"{str(column.iloc[odd[0]])!r} ({len(odd)} such rows)",
                "bring the rows to equal distances in time",
            )
        return nearest.astype(np.int64)

    def times(self, steps: Steps) -> npt.NDArray[Any]:
        """Step numbers as they are written in the data: numbers ``(N,)``, or text."""
        units = self.origin + steps * self.size
        if self.unit == "number":
            return units.astype(np.int64) if (units == np.round(units)).all() else units
        seconds = self.seconds(steps)
        when = pd.to_datetime(pd.Series(np.round(seconds * 1e6).astype("int64")), unit="us")
        return when.dt.strftime(self.written).to_numpy(dtype=object)

    def seconds(self, steps: Steps) -> npt.NDArray[np.float64]:
        """Seconds since 1970 of steps ``(N,)``; for dates only."""
        units = self.origin + steps * self.size
        if self.unit == "second":
            return units.astype(np.float64)
        if self.unit == "business day":
            days = np.busday_offset("1970-01-01", units.astype(np.int64), roll="forward")
        else:
            months = (units.astype(np.int64) - 1970 * 12).astype("datetime64[M]")
            days = months.astype("datetime64[D]") + np.minimum(self.day, _lengths(months)) - 1
        return np.asarray(days.astype(np.int64) * DAY + self.time_of_day, dtype=np.float64)

    def circles(self, steps: Steps, cycles: tuple[Cycle, ...]) -> npt.NDArray[np.float64]:
        """Where steps are in day, week and year, as points on circles: ``(N, 2 * len(cycles))``."""
        if not cycles:
            return np.empty((len(steps), 0))
        seconds = self.seconds(steps)
        angles = [2 * np.pi * seconds / _CYCLES[cycle] for cycle in cycles]
        return np.stack([wave(angle) for angle in angles for wave in (np.sin, np.cos)], axis=1)

    def cycles_within(self, n_steps: int) -> tuple[Cycle, ...]:
        """The cycles that so many steps go through twice, at two steps or more each: others cannot be learned."""
        if self.step_s is None:
            return ()
        length = self.step_s
        return tuple(name for name, whole in _CYCLES.items() if 2 * length <= whole and n_steps * length >= 2 * whole)


def fit_clock(column: pd.Series, series: npt.NDArray[np.int64], *, name: str) -> Clock:
    """Find the step of a time column.

    Args:
        series: the series that each row belongs to ``(N,)``, as codes.

    Raises:
        DataError: times that cannot be read, or that are not mostly at equal distances.
    """
    format_ = "number" if not np.isnan(numbers(column)).any() else time_format(column)
    if format_ is None:
        raise DataError(
            f"the time column {name!r} must have a date or a number in every row",
            "name another with data.forecast.time",
        )
    when = read_times(column, format_)
    clocks = [_numbers(name, when)] if format_ == "number" else _calendars(name, column, when, format_)
    for clock in clocks:
        units = _in_units(when, clock)
        size = _usual_distance(units, series)
        if size is not None and (clock.unit != "business day" or size == 1):
            fitted = clock.model_copy(update={"size": size, "origin": float(units.min())})
            if (units.max() - units.min()) / size > MAX_STEP:
                first, last = fitted.times(np.array([0])), str(column.iloc[int(units.argmax())])
                raise DataError(
                    f"the time column {name!r} goes from {first[0]} to {last} in steps of {fitted.step}: more than "
                    f"{MAX_STEP:,} steps",
                    "correct stray times",
                )
            return fitted
    raise DataError(
        f"the times in {name!r} are at no regular distances: no distance is that of half of the neighbouring rows",
        "bring the rows to equal distances in time, name the column that tells the series apart with "
        "data.forecast.series, or number the rows in a column and name that",
    )


def read_times(column: pd.Series, format_: str) -> npt.NDArray[np.float64]:
    """Numbers, or seconds since 1970 ``(N,)``.

    Raises:
        DataError: a value that is neither.
    """
    when = numbers(column) if format_ == "number" else stamps(column, format_)
    bad = np.flatnonzero(np.isnan(when))
    if len(bad):
        raise DataError(
            f"the time column {column.name!r} must have a time in every row, but row {bad[0] + 1} has "
            f"{str(column.iloc[bad[0]])!r} ({len(bad)} such rows)",
            "fix or remove the rows",
        )
    return when


def _numbers(name: str, when: npt.NDArray[np.float64]) -> Clock:
    return Clock(column=name, format="number", written="", unit="number", size=1.0, origin=float(when.min()))


def _calendars(name: str, column: pd.Series, when: npt.NDArray[np.float64], format_: str) -> list[Clock]:
    """The calendars that the dates could go by, the most particular first."""
    shared = {"column": name, "format": format_, "written": _written(column, when, format_), "size": 1.0, "origin": 0.0}
    time_of_day = np.unique(np.mod(when, DAY))
    found: list[Clock] = []
    if len(time_of_day) == 1:
        days = _days(when)
        _, of_month, last = _in_months(days)
        at = {"time_of_day": float(time_of_day[0])}
        if len(np.unique(of_month)) == 1 or (of_month == last).all():
            day = _MONTH_END if (of_month == last).all() else int(of_month[0])
            found.append(Clock.model_validate({**shared, **at, "unit": "month", "day": day}))
        if len(when) >= MIN_BUSINESS_ROWS and np.is_busday(days).all():
            found.append(Clock.model_validate({**shared, **at, "unit": "business day"}))
    return [*found, Clock.model_validate({**shared, "unit": "second"})]


def _written(column: pd.Series, when: npt.NDArray[np.float64], format_: str) -> str:
    """How the times of forecasts are written."""
    if format_ != "ISO8601":
        return format_
    first = str(texts(column).iloc[0])
    style = next((style for pattern, style in _SHORT if re.fullmatch(pattern, first)), "%Y-%m-%d %H:%M:%S")
    return "%Y-%m-%d %H:%M:%S" if style == "%Y-%m-%d" and (np.mod(when, DAY) != 0).any() else style


def _in_units(when: npt.NDArray[np.float64], clock: Clock) -> npt.NDArray[np.float64]:
    """Numbers or seconds as units of the clock, since its calendar's beginning."""
    if clock.unit in ("number", "second"):
        return when
    days = _days(when)
    if clock.unit == "business day":
        # A day that is none lies between two steps.
        return np.busday_count("1970-01-01", days).astype(np.float64) + np.where(np.is_busday(days), 0.0, -0.5)
    months, of_month, last = _in_months(days)
    fits = of_month == np.minimum(clock.day, last)
    return np.asarray(months.astype(np.int64) + 1970.0 * 12 + np.where(fits, 0.0, 0.5), dtype=np.float64)


def _days(when: npt.NDArray[np.float64]) -> npt.NDArray[np.datetime64]:
    """The days that seconds since 1970 lie in."""
    return np.floor(when / DAY).astype(np.int64).astype("datetime64[D]")


def _in_months(days: npt.NDArray[np.datetime64]) -> tuple[npt.NDArray[np.datetime64], Steps, Steps]:
    """The month of each day, its number in it from 1, and the number of the month's last day."""
    months = days.astype("datetime64[M]")
    return months, (days - months.astype("datetime64[D]")).astype(np.int64) + 1, _lengths(months)


def _lengths(months: npt.NDArray[np.datetime64]) -> Steps:
    """How many days months have."""
    starts, ends = (at.astype("datetime64[D]").astype(np.int64) for at in (months, months + 1))
    return np.asarray(ends - starts)


def _usual_distance(units: npt.NDArray[np.float64], series: npt.NDArray[np.int64]) -> float | None:
    """The distance that at least half of all neighbours of a series have, where all others are multiples of it."""
    order = np.lexsort((units, series))
    distances = np.diff(units[order])[np.diff(series[order]) == 0]
    distances = distances[distances > 0]  # repeated times are said elsewhere, with their row
    if len(distances) == 0:
        return None
    rounded = np.round(distances / distances.min() / ROUNDING) if distances.min() > 0 else distances
    values, counts = np.unique(rounded, return_counts=True)
    usual = float(np.median(distances[rounded == values[counts.argmax()]]))
    multiples = distances / usual
    if counts.max() < REGULAR * len(distances) or (np.abs(multiples - np.round(multiples)) > 1e-3).any():
        return None
    return usual


def _counted(number: float, name: str) -> str:
    return f"{number:g} {name}{'' if number == 1 else 's'}"
