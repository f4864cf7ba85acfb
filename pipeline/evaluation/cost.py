"""What a model costs to serve: time for one row, rows a second, bytes."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

import numpy as np
from pydantic import BaseModel, ConfigDict

from pipeline.data.dataset import Features, take
from pipeline.training.threads import one_thread

N_SINGLE: Final = 200
"""Single rows that are timed at most; a fifth of them before, untimed."""
SECONDS: Final = 0.5
"""After so long the timing of single rows ends, with twenty at least."""
N_BATCH: Final = 1024


class Cost(BaseModel):
    """From raw rows to outputs in this process, preprocessing included, on one core of the machine that evaluated."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    latency_ms_p50: float
    """Of one row alone."""
    latency_ms_p95: float
    rows_per_s: float
    """In a batch of up to 1024 rows."""
    size_mb: float
    """Of the model package, in MB of 10^6 bytes."""


def measure_cost(predict: Callable[[Features], object], rows: Features, n_bytes: int) -> Cost:
    """Time `predict` on the given raw rows, again and again from their start where they are few."""
    with one_thread():
        return _measured(predict, rows, n_bytes)


def _measured(predict: Callable[[Features], object], rows: Features, n_bytes: int) -> Cost:
    singles = [take(rows, np.array([at % len(rows)])) for at in range(N_SINGLE)]
    for single in singles[: N_SINGLE // 5]:
        predict(single)
    seconds: list[float] = []
    for single in singles:
        seconds.append(_timed(predict, single))
        if sum(seconds) > SECONDS and len(seconds) >= 20:
            break
    batch = take(rows, np.arange(N_BATCH) % len(rows))
    predict(batch)
    fast, slow = np.quantile(seconds, [0.5, 0.95]) * 1000
    return Cost(
        latency_ms_p50=float(fast),
        latency_ms_p95=float(slow),
        rows_per_s=N_BATCH / _timed(predict, batch),
        size_mb=n_bytes / 1e6,
    )


def _timed(predict: Callable[[Features], object], rows: Features) -> float:
    began = time.perf_counter()
    predict(rows)
    return time.perf_counter() - began
