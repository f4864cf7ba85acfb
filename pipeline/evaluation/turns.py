"""How fast two forms of a model answer, timed in turn: what else the machine does then slows both."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Final, TypeVar

import numpy as np
from pydantic import BaseModel, ConfigDict

R = TypeVar("R")

WARM_UP: Final = 20
N_SINGLE: Final = 300
N_BATCH: Final = 1024
N_BATCHES: Final = 7


class Speed(BaseModel):
    """From a model's own inputs to its answers, on one thread."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    latency_ms_p50: float
    """Of one row alone."""
    latency_ms_p95: float
    rows_per_s: float
    """In batches of 1024 rows, the median of seven."""


def time_in_turn(
    forms: Mapping[str, Callable[[R], object]], singles: Sequence[R], batch: R, n_rows: int = N_BATCH
) -> dict[str, Speed]:
    """Speed of every form on the same inputs.

    Args:
        singles: inputs of one row each, taken again from their start where they are fewer than `N_SINGLE`.
        batch: inputs of `n_rows` rows.
    """
    one: dict[str, list[float]] = {name: [] for name in forms}
    many: dict[str, list[float]] = {name: [] for name in forms}
    for n in range(-WARM_UP, N_SINGLE):
        for name, form in forms.items():
            seconds = _timed(form, singles[n % len(singles)])
            one[name] += [seconds] if n >= 0 else []
    for n in range(-1, N_BATCHES):
        for name, form in forms.items():
            seconds = _timed(form, batch)
            many[name] += [seconds] if n >= 0 else []
    return {
        name: Speed(
            latency_ms_p50=float(np.quantile(one[name], 0.5)) * 1000,
            latency_ms_p95=float(np.quantile(one[name], 0.95)) * 1000,
            rows_per_s=n_rows / float(np.median(many[name])),
        )
        for name in forms
    }


def _timed(form: Callable[[R], object], inputs: R) -> float:
    began = time.perf_counter()
    form(inputs)
    return time.perf_counter() - began
