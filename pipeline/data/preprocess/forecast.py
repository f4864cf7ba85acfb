"""Series to tensors: the target as differences to its last known value, covariates standardised.

Taking the last value off makes windows of a series that wanders comparable with those of training (NLinear, Zeng and
others, arXiv 2205.13504, section 4.1).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Final, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from pydantic import BaseModel, ConfigDict, Field, FiniteFloat

from pipeline.data.dataset import Features
from pipeline.data.forecast.clock import Cycle, Steps
from pipeline.data.forecast.series import Layout, Piece, tails
from pipeline.data.forecast.windows import Array, channels, naive_forecasts
from pipeline.data.readers.request import MAX_CELLS
from pipeline.data.tensors import Inputs
from pipeline.errors import DataError

AT_ONCE: Final = 4096
"""Windows that are standardised at a time, in float64."""


@dataclass(frozen=True, slots=True)
class Histories:
    """The ends of some series, from which their futures are forecast: N views ``(T, D)``, names and last steps."""

    inputs: list[Array]
    names: list[str]
    origins: Steps


class ForecastPreprocessor(BaseModel):
    """Fitted on the training part of the series. The values of a step are the target, the covariates, and its places in
    day, week and year."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["forecast"] = "forecast"
    layout: Layout
    n_steps: Annotated[int, Field(ge=1, le=100_000)]
    """Of the context."""
    horizon: Annotated[int, Field(ge=1, le=10_000)]
    season: Annotated[int, Field(ge=1, le=100_000)]
    fill: Annotated[int, Field(ge=0, le=100_000)]
    """Missing steps in a row that are filled, in histories as in training."""
    cycles: tuple[Cycle, ...]
    scale: Annotated[FiniteFloat, Field(gt=0)]
    """Standard deviation of the target's differences to the last value of a window, over the training windows."""
    mean: tuple[FiniteFloat, ...]
    """Of each covariate, over the training steps."""
    std: tuple[Annotated[FiniteFloat, Field(gt=0)], ...]

    @property
    def n_features(self) -> int:
        """Values a step."""
        return 1 + len(self.mean) + 2 * len(self.cycles)

    @property
    def schema_of_features(self) -> dict[str, str]:
        """The columns of a raw table."""
        series = {} if self.layout.series is None else {self.layout.series: "series"}
        target = {self.layout.target: f"target, {self.n_steps} steps in, {self.horizon} out"}
        covariates = dict.fromkeys(self.layout.covariates, "past values")
        return {
            self.layout.clock.column: f"time in steps of {self.layout.clock.step}",
            **series,
            **target,
            **covariates,
        }

    def transform(self, features: Features) -> Inputs:
        """Shape: N windows ``(T, D)`` in, or a table of series, whose last steps are its windows; x ``(N, T, D)`` out.

        Raises:
            DataError: windows of another shape, or a table from which no forecast can be made.
        """
        if isinstance(features, pd.DataFrame):
            features = self.histories(features).inputs
        if any(np.shape(window) != (self.n_steps, self.n_features) for window in features):
            raise DataError(
                f"a window must have {self.n_steps} steps of {self.n_features} values", "pass a table of series"
            )
        if len(features) * self.n_steps * self.n_features > MAX_CELLS:
            raise DataError(
                f"{len(features):,} windows of {self.n_steps} steps with {self.n_features} values each are more than "
                f"{MAX_CELLS:,} values",
                "lower data.forecast.context, or leave out covariates",
            )
        x = np.zeros((len(features), self.n_steps, self.n_features), dtype=np.float32)
        covariates = slice(1, 1 + len(self.mean))
        for start in range(0, len(features), AT_ONCE):
            windows_NTD = np.array(features[start : start + AT_ONCE], dtype=np.float64)
            windows_NTD[:, :, 0] = (windows_NTD[:, :, 0] - windows_NTD[:, -1:, 0]) / self.scale
            windows_NTD[:, :, covariates] = (windows_NTD[:, :, covariates] - self.mean) / self.std
            x[start : start + AT_ONCE] = windows_NTD
        np.nan_to_num(x, copy=False, nan=0.0, posinf=0.0, neginf=0.0)
        lengths = torch.full((len(features),), self.n_steps, dtype=torch.int64)
        return Inputs(torch.from_numpy(x), lengths=lengths)

    def histories(self, frame: pd.DataFrame) -> Histories:
        """The last steps of every series of a raw table, by the series' names. Rows without a target are not read.

        Raises:
            DataError: a column is missing, or a series too short, with a gap in it, or with two rows at one time.
        """
        pieces = list(tails(frame, self.layout, self.fill, self.n_steps))
        return Histories(
            inputs=[channels(piece, self.layout.clock, self.cycles) for piece in pieces],
            names=[piece.name for piece in pieces],
            origins=np.array([piece.steps[-1] for piece in pieces], dtype=np.int64),
        )

    def naive(self, inputs: Sequence[Array]) -> Array:
        """The seasonal naive forecast of each window ``(N, H)``, in the target's units."""
        return naive_forecasts(inputs, self.season, self.horizon)

    def times_after(self, origins: Steps) -> npt.NDArray[Any]:
        """The times of the steps ahead ``(N, H)``, as the data writes them."""
        steps = origins[:, None] + 1 + np.arange(self.horizon)
        return self.layout.clock.times(steps.ravel()).reshape(steps.shape)


def fit_forecast(
    layout: Layout,
    pieces: Sequence[Piece],
    inputs: Sequence[Array],
    *,
    horizon: int,
    season: int,
    fill: int,
    cycles: tuple[Cycle, ...],
) -> ForecastPreprocessor:
    """Fit on training steps and training windows.

    Raises:
        DataError: a covariate without any value, or a target that never changes.
    """
    values = np.concatenate([piece.values for piece in pieces])
    covariates = values[:, 1:]
    empty = np.flatnonzero(np.isnan(covariates).all(axis=0))
    if len(empty):
        raise DataError(
            f"the column {layout.covariates[empty[0]]!r} has no numbers in the training part",
            "leave it out of data.forecast.covariates",
        )
    differences = [window[:, 0] - window[-1, 0] for window in inputs]
    scale = float(np.sqrt(np.mean([np.square(d).mean() for d in differences])))
    if scale == 0:
        raise DataError("the target is the same in all training rows", "choose another target or add rows")
    std = np.nanstd(covariates, axis=0)
    std[std == 0] = 1.0
    return ForecastPreprocessor(
        layout=layout,
        n_steps=len(inputs[0]),
        horizon=horizon,
        season=season,
        fill=fill,
        cycles=cycles,
        scale=scale,
        mean=tuple(np.nanmean(covariates, axis=0).tolist()),
        std=tuple(std.tolist()),
    )
