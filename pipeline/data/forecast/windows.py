"""Windows of series: so many steps in, so many ahead out. Axes: N windows, T steps of the past, H steps ahead, D values
a step (the target, covariates, points on the circles of day, week and year)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pipeline.data.forecast.clock import Clock, Cycle, Steps
from pipeline.data.forecast.series import Piece

Array = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Windows:
    """All windows of some series, in the order of time and then of the series' names.

    Args:
        inputs: N views ``(T, D)``: windows that overlap share their memory.
        ahead: the target's values ``(N, H)`` after each of them.
        origins: the step of the last input ``(N,)``; the first step ahead is the one after it.
        names: the series of each ``(N,)``.
    """

    inputs: list[Array]
    ahead: Array
    origins: Steps
    names: npt.NDArray[np.object_]

    def __len__(self) -> int:
        return len(self.inputs)


def cut_windows(
    pieces: Sequence[Piece], clock: Clock, cycles: tuple[Cycle, ...], *, context: int, horizon: int
) -> Windows:
    """Every window that fits into a piece: no window reaches over a gap or into another series."""
    inputs: list[Array] = []
    ahead, origins, names = [np.empty((0, horizon))], [np.empty(0, dtype=np.int64)], []
    for piece in pieces:
        n = len(piece.steps) - context - horizon + 1
        if n < 1:
            continue
        whole = channels(piece, clock, cycles)
        inputs += [whole[start : start + context] for start in range(n)]
        ahead.append(np.lib.stride_tricks.sliding_window_view(whole[context:, 0], horizon))
        origins.append(piece.steps[context - 1 : context - 1 + n])
        names += [piece.name] * n
    every = np.concatenate(origins)
    named = np.array(names, dtype=object)
    order = np.lexsort((named.astype(str), every))
    return Windows([inputs[row] for row in order], np.concatenate(ahead)[order], every[order], named[order])


def channels(piece: Piece, clock: Clock, cycles: tuple[Cycle, ...]) -> Array:
    """What a model sees of every step, ``(T, D)``."""
    return np.concatenate([piece.values, clock.circles(piece.steps, cycles)], axis=1)


def naive_forecasts(inputs: Sequence[Array], season: int, horizon: int) -> Array:
    """The seasonal naive forecast ``(N, H)``: each step repeats the last one known at its place in the season
    (Hyndman and Athanasopoulos, Forecasting: Principles and Practice, section 5.2). A season of 1 repeats the last
    value."""
    if not inputs:
        return np.empty((0, horizon))
    last = np.stack([window[len(window) - season :, 0] for window in inputs])
    repeated: Array = last[:, np.arange(horizon) % season]
    return repeated
