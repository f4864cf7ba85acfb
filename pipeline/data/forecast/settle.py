"""What a forecast's settings are where the file leaves them to the data: horizon, season, context."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from pipeline.data.config import ForecastConfig
from pipeline.data.forecast.clock import DAY, Clock
from pipeline.data.forecast.series import Piece
from pipeline.errors import DataError

LONGEST_SEASON: Final = 400
"""Steps: a longer season needs a context that no network here reads in reasonable time."""
LEAST_CONTEXT: Final = 16
_SEASONS_S: Final = (3600.0, DAY, 7 * DAY)
"""An hour, a day, a week."""


@dataclass(frozen=True, slots=True)
class Settled:
    """Steps of each. `errors` are the mean absolute errors of the naive forecasts of the seasons that were tried, over
    the training part."""

    horizon: int
    season: int
    context: int
    errors: dict[int, float]


def settle(config: ForecastConfig, clock: Clock, pieces: Sequence[Piece]) -> Settled:
    """Decide by the training part.

    Raises:
        DataError: what the file asks for does not fit together, or not into the data.
    """
    calendar = seasons_of(clock)
    horizon: int = config.horizon if config.horizon != "auto" else next(iter(calendar), 1)
    longest = max((len(piece.steps) for piece in pieces), default=0)
    if longest <= horizon:
        raise DataError(
            f"the training part of the longest series has {longest} steps, which is no more than the horizon of "
            f"{horizon}",
            "lower data.forecast.horizon, or add rows",
        )
    tried = (1, *calendar) if config.season == "auto" else tuple({1: None, config.season: None})
    fitting = [season for season in tried if season == 1 or 2 * season + horizon <= longest]
    errors = {season: naive_error(pieces, season, horizon) for season in fitting}
    best = min(errors, key=lambda season: errors[season], default=1)
    season: int = best if config.season == "auto" else config.season
    wanted = max(2 * horizon, season + horizon, LEAST_CONTEXT)
    fits = max(season, min(wanted, (longest - horizon) // 2))
    context: int = fits if config.context == "auto" else config.context
    if context < season:
        raise DataError(
            f"the context must have a whole season, but has {context} of {season} steps",
            "raise data.forecast.context, or lower data.forecast.season (1: none)",
        )
    if context + horizon > longest:
        raise DataError(
            f"a window has {context} + {horizon} steps (context and horizon), but the training part of the longest "
            f"series only {longest}",
            "lower data.forecast.context or data.forecast.horizon, or add rows",
        )
    return Settled(horizon, season, context, errors)


def seasons_of(clock: Clock) -> tuple[int, ...]:
    """The seasons that the calendar suggests, in steps, the shortest first: 24 and 168 for hours, 12 for months."""
    match clock.unit:
        case "number":
            return ()
        case "month":
            whole = 12 / clock.size
            return (int(whole),) if whole.is_integer() and whole > 1 else ()
        case "business day":
            return (5, 261)
        case "second":
            lengths = [length / clock.size for length in _SEASONS_S]
            found = [int(n) for n in lengths if n.is_integer() and 1 < n <= LONGEST_SEASON]
            year = round(365.2425 * DAY / clock.size)
            return (*found, year) if clock.size >= DAY and year > 1 else tuple(found)


def naive_error(pieces: Sequence[Piece], season: int, horizon: int) -> float:
    """Mean absolute error of the seasonal naive forecast over all steps of the horizon."""
    lags, counts = np.unique([season * (1 + step // season) for step in range(horizon)], return_counts=True)
    errors = [lagged_error(pieces, int(lag)) for lag in lags]
    known = [(error, count) for error, count in zip(errors, counts, strict=True) if np.isfinite(error)]
    if not known:
        return float("inf")
    return float(sum(error * count for error, count in known) / sum(count for _, count in known))


def lagged_error(pieces: Sequence[Piece], lag: int) -> float:
    """Mean absolute difference of values so many steps apart; NaN where no piece is that long."""
    apart = [np.abs(p.values[lag:, 0] - p.values[:-lag, 0]) for p in pieces if len(p.steps) > lag]
    return float(np.concatenate(apart).mean()) if apart else float("nan")
