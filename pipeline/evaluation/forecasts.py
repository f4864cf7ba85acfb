"""What forecasts are worth beside the naive one, which repeats the last season. Axes: N windows, H steps ahead."""

from __future__ import annotations

import math
from typing import Final

import numpy as np
import numpy.typing as npt
import torch
from pydantic import BaseModel, ConfigDict
from torch import Tensor

from pipeline.data.dataset import Dataset
from pipeline.data.forecast.windows import naive_forecasts
from pipeline.data.spec import DataSpec
from pipeline.evaluation.intervals import Comparison, Interval, Resampling, compare, score_intervals
from pipeline.objective import Objective
from pipeline.training.metrics import validation_metrics

LEAST_BLOCKS: Final = 3
"""In a resample: fewer are nearly the test itself, each time."""
MOST_SERIES: Final = 3
MOST_WINDOWS: Final = 3
"""Windows of a series that are shown, one after the other without a gap."""
MOST_PAST: Final = 200
"""Steps of the past that are shown."""


class Shown(BaseModel):
    """Windows of one series at the end of the test, as a chart has them, in the target's units."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    series: str
    origin: str
    """The time of the last step before the first window."""
    past: tuple[float, ...]
    truth: tuple[float, ...]
    """Of all windows, one after the other."""
    forecast: tuple[float, ...]
    naive: tuple[float, ...]


class StepError(BaseModel):
    """Mean absolute error so many steps ahead."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    step: int
    model: float
    naive: float


class ForecastReading(BaseModel):
    """The winner against the naive forecast on the same windows: against the best one, where there are several seasons
    to repeat."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    season: int
    """Steps after which the naive forecast repeats the past; 1: it is the last value."""
    horizon: int
    metric: str
    naive: dict[str, Interval]
    """The naive forecast's scores."""
    tried: dict[int, float]
    """The metric of each naive forecast, by its season."""
    versus_naive: Comparison
    """Positive where the winner is better."""
    by_step: tuple[StepError, ...]
    shown: tuple[Shown, ...]

    @property
    def skill(self) -> float:
        """The share of the naive forecast's error that the winner does not make; negative where it is worse."""
        naive = self.naive[self.metric].value
        return self.versus_naive.difference.value / naive if naive > 0 else math.nan

    @property
    def line(self) -> str:
        """``beats the seasonal naive forecast (season 12): mae 20.1 against 31.2, 36 % less [12 %, 50 %]``."""
        named = "repeating the last value" if self.season == 1 else f"repeating the last {self.season} steps"
        naive, difference = self.naive[self.metric].value, self.versus_naive.difference
        scale = naive or 1.0
        said = (
            f"{self.metric} {naive - difference.value:.4g} against {naive:.4g} of {named}, "
            f"{difference.value / scale:+.1%} better [{difference.low / scale:+.1%}, {difference.high / scale:+.1%}]"
        )
        if difference.low > 0:
            return f"beats the naive forecast: {said}"
        return f"{'does not beat' if difference.value <= 0 else 'is not surely better than'} the naive forecast: {said}"


def block_length(dataset: Dataset, spec: DataSpec) -> int:
    """Rows, in their order of time, that are resampled together; 1 where rows are independent.

    Windows whose origins are less than a horizon apart have targets in common, so blocks are two horizons long, or the
    cube root of the number of origins where that is more (the rate of Künsch, Annals of Statistics 1989), with the rows
    of all series at these times. A test that is shorter than three of them has shorter blocks, and intervals that are
    too narrow: the preparation of the data warns of it.
    """
    if dataset.origins is None:
        return 1
    n_origins = int(dataset.origins["step"].nunique())
    together = max(2 * spec.horizon, math.ceil(n_origins ** (1 / 3)))
    block: int = math.ceil(together * len(dataset) / n_origins)
    return max(1, min(block, len(dataset) // LEAST_BLOCKS))


def read_forecasts(
    dataset: Dataset,
    outputs_NH: Tensor,
    target_NH: Tensor,
    spec: DataSpec,
    objective: Objective,
    how: Resampling,
) -> ForecastReading:
    """Score the naive forecasts as the winner was scored, and compare it with the best of them on these very windows:
    the choice is to the winner's disadvantage.

    Args:
        dataset: the sealed windows in the order of time.
        outputs_NH: the winner's.
        how: in blocks of `block_length`.
    """
    every = {season: _naive_outputs(dataset, season, spec) for season in (spec.season, *spec.seasons)}
    tried = {
        season: float(validation_metrics(outputs[None], target_NH, spec)[objective.metric][0])
        for season, outputs in every.items()
    }
    best = min(tried, key=lambda season: objective.rank_key(tried[season]))
    naive_NH = every[best]
    naive = score_intervals(naive_NH, target_NH, spec, how)
    versus = compare(outputs_NH, naive_NH, target_NH, spec, objective, how)
    ours_H, theirs_H = (
        (part - target_NH).abs().double().mean(0) * spec.target_scale for part in (outputs_NH, naive_NH)
    )
    return ForecastReading(
        season=best,
        horizon=spec.horizon,
        metric=objective.metric,
        naive=naive,
        tried=tried,
        versus_naive=versus,
        by_step=tuple(
            StepError(step=step, model=float(ours), naive=float(theirs))
            for step, (ours, theirs) in enumerate(zip(ours_H, theirs_H, strict=True), 1)
        ),
        shown=_shown(dataset, outputs_NH, target_NH, best, spec),
    )


def _naive_outputs(dataset: Dataset, season: int, spec: DataSpec) -> Tensor:
    """The naive forecast as outputs ``(N, H)``: its standardised difference to the one that models start from."""
    windows = _windows(dataset)
    difference = naive_forecasts(windows, season, spec.horizon) - naive_forecasts(windows, spec.season, spec.horizon)
    return torch.from_numpy((difference - spec.target_mean) / spec.target_scale).float()


def _windows(dataset: Dataset) -> list[npt.NDArray[np.float64]]:
    assert isinstance(dataset.features, list), "windows are a list"
    return dataset.features


def _shown(dataset: Dataset, outputs_NH: Tensor, target_NH: Tensor, season: int, spec: DataSpec) -> tuple[Shown, ...]:
    assert dataset.origins is not None, "windows come with their origins"
    shown: list[Shown] = []
    for name in sorted(dataset.origins["series"].unique())[:MOST_SERIES]:
        rows = np.flatnonzero((dataset.origins["series"] == name).to_numpy())
        at = {int(step): int(row) for step, row in zip(dataset.origins["step"].iloc[rows], rows, strict=True)}
        last = max(at)
        chosen: list[int] = []
        while len(chosen) < MOST_WINDOWS and last - len(chosen) * spec.horizon in at:
            chosen.insert(0, at[last - len(chosen) * spec.horizon])
        windows = [_windows(dataset)[row] for row in chosen]
        start = naive_forecasts(windows, spec.season, spec.horizon)
        truth, forecast = (
            start + (part[chosen].double() * spec.target_scale + spec.target_mean).numpy()
            for part in (target_NH, outputs_NH)
        )
        shown.append(
            Shown(
                series=str(name),
                origin=str(dataset.origins["time"].iloc[chosen[0]]),
                past=tuple(windows[0][-MOST_PAST:, 0].tolist()),
                truth=tuple(truth.ravel().tolist()),
                forecast=tuple(forecast.ravel().tolist()),
                naive=tuple(naive_forecasts(windows, season, spec.horizon).ravel().tolist()),
            )
        )
    return tuple(shown)
