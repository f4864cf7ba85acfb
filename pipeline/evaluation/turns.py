"""How fast two forms of a model answer, timed in turn: what else the machine does then slows both."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Final, TypeVar

import numpy as np
from pydantic import BaseModel, ConfigDict

R = TypeVar("R")

N_BATCH: Final = 1024
SECONDS: Final = 0.5
"""Of all forms together, for single rows and again for batches: what a busy machine does for some milliseconds must not
decide about a net that answers in microseconds."""
SINGLE: Final = (40, 2000)
"""Fewest and most rounds of single rows."""
BATCHES: Final = (5, 200)


class Speed(BaseModel):
    """From a model's own inputs to its answers, on one thread."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    latency_ms_p50: float
    """Of one row alone."""
    latency_ms_p95: float
    rows_per_s: float
    """In batches of up to 1024 rows, their median."""


def time_in_turn(
    forms: Mapping[str, Callable[[R], object]], singles: Sequence[R], batch: R, n_rows: int = N_BATCH
) -> dict[str, Speed]:
    """Speed of every form on the same inputs.

    Args:
        singles: inputs of one row each, taken again from their start where they are few.
        batch: inputs of `n_rows` rows.
    """
    one, many = _rounds(forms, singles, *SINGLE), _rounds(forms, [batch], *BATCHES)
    return {
        name: Speed(
            latency_ms_p50=float(np.quantile(one[name], 0.5)) * 1000,
            latency_ms_p95=float(np.quantile(one[name], 0.95)) * 1000,
            rows_per_s=n_rows / float(np.median(many[name])),
        )
        for name in forms
    }


def _rounds(
    forms: Mapping[str, Callable[[R], object]], inputs: Sequence[R], fewest: int, most: int
) -> dict[str, list[float]]:
    """Seconds of every call, after a tenth of the fewest rounds untimed."""
    seconds: dict[str, list[float]] = {name: [] for name in forms}
    spent = 0.0
    for n in range(-(fewest // 10) - 1, most):
        if n >= fewest and spent > SECONDS:
            break
        for name, form in forms.items():
            began = time.perf_counter()
            form(inputs[n % len(inputs)])
            took = time.perf_counter() - began
            if n >= 0:
                seconds[name].append(took)
                spent += took
    return seconds
