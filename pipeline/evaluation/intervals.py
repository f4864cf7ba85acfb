"""Intervals and paired comparisons on a fixed set of test rows. Axes: R resamples, N rows, C outputs.

Rows that depend on each other, as windows of a series that overlap, are resampled in blocks of rows that follow each
other: the circular block bootstrap (Politis and Romano, A circular block-resampling procedure for stationary data,
1992), which is the moving-block bootstrap of Künsch (1989) without its neglect of the ends.
"""

from __future__ import annotations

from collections.abc import Iterator
from statistics import NormalDist

import torch
from pydantic import BaseModel, ConfigDict
from torch import Tensor

from pipeline.data.spec import DataSpec
from pipeline.objective import Objective
from pipeline.training.metrics import validation_metrics

CHUNK_VALUES = 2**22
"""Output values that are resampled at a time: bounds memory at about 100 MiB."""


class Interval(BaseModel):
    """A score on the test rows and its two-sided confidence interval."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    value: float
    low: float
    high: float
    confidence: float

    def __str__(self) -> str:
        return f"{self.value:.4f} [{self.low:.4f}, {self.high:.4f}]"


class Comparison(BaseModel):
    """A challenger against a champion on the same rows, resampled together."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    difference: Interval
    """Challenger minus champion, positive where the challenger is better, whatever the metric's direction."""
    probability_better: float
    """Share of resamples in which the challenger is better."""


def score_intervals(
    outputs_NC: Tensor,
    target_N: Tensor,
    spec: DataSpec,
    *,
    confidence: float,
    n_resamples: int,
    seed: int,
    block: int = 1,
) -> dict[str, Interval]:
    """Every metric of the task with its interval; metrics that are undefined on these rows are left out.

    Accuracy is a share of rows and gets the Wilson score interval; the others get the percentile bootstrap (Efron and
    Tibshirani 1993, chapter 13).

    Args:
        block: so many rows that follow each other are drawn together; 1 draws them one by one.
    """
    values = {k: float(v[0]) for k, v in validation_metrics(outputs_NC[None], target_N, spec).items()}
    resampled = _resample(outputs_NC, target_N, spec, n_resamples, seed, block)
    return {
        name: wilson(value, len(target_N), confidence)
        if name == "accuracy"
        else _interval(value, resampled[name], confidence)
        for name, value in values.items()
        if value == value and bool(torch.isfinite(resampled[name]).any())
    }


def wilson(share: float, n: int, confidence: float) -> Interval:
    """Wilson's score interval for a share of `n` independent rows.

    Where all rows are right the bootstrap says [1, 1]; this one stays honest, and its coverage is near the nominal one
    for small `n` too (Brown, Cai and DasGupta 2001).
    """
    z2 = NormalDist().inv_cdf((1 + confidence) / 2) ** 2
    centre = (share + z2 / (2 * n)) / (1 + z2 / n)
    half = (z2 * (share * (1 - share) / n + z2 / (4 * n * n))) ** 0.5 / (1 + z2 / n)
    # At the ends the bound equals the share up to rounding, and may not cross it.
    low, high = min(share, centre - half), max(share, centre + half)
    return Interval(value=share, low=max(0.0, low), high=min(1.0, high), confidence=confidence)


def compare(
    challenger_NC: Tensor,
    champion_NC: Tensor,
    target_N: Tensor,
    spec: DataSpec,
    objective: Objective,
    *,
    confidence: float,
    n_resamples: int,
    seed: int,
    block: int = 1,
) -> Comparison:
    """Paired bootstrap: both models are scored on the same resampled rows, so that what they share cancels out."""
    sign = 1 if objective.direction == "maximize" else -1
    value = {
        name: float(validation_metrics(outputs[None], target_N, spec)[objective.metric][0])
        for name, outputs in (("challenger", challenger_NC), ("champion", champion_NC))
    }
    ours = _resample(challenger_NC, target_N, spec, n_resamples, seed, block)[objective.metric]
    theirs = _resample(champion_NC, target_N, spec, n_resamples, seed, block)[objective.metric]
    difference_R = sign * (ours - theirs)
    difference_R = difference_R[torch.isfinite(difference_R)]
    difference = _interval(sign * (value["challenger"] - value["champion"]), difference_R, confidence)
    return Comparison(difference=difference, probability_better=float((difference_R > 0).double().mean()))


def _resample(
    outputs_NC: Tensor, target_N: Tensor, spec: DataSpec, n_resamples: int, seed: int, block: int
) -> dict[str, Tensor]:
    """Every metric on `n_resamples` samples of the rows with replacement, ``(R,)`` each. Equal seeds, equal rows."""
    parts = [
        validation_metrics(outputs_NC[rows_RN], target_N[rows_RN], spec)
        for rows_RN in _rows(len(target_N), outputs_NC.shape[1], n_resamples, seed, block)
    ]
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}


def _rows(n: int, width: int, n_resamples: int, seed: int, block: int) -> Iterator[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    chunk = max(1, CHUNK_VALUES // (n * width))
    for start in range(0, n_resamples, chunk):
        size = min(chunk, n_resamples - start)
        if block == 1:
            yield torch.randint(n, (size, n), generator=generator)
        else:
            firsts = torch.randint(n, (size, -(-n // block), 1), generator=generator)
            yield ((firsts + torch.arange(block)) % n).flatten(1)[:, :n]  # after the last row comes the first


def _interval(value: float, resampled_R: Tensor, confidence: float) -> Interval:
    tail = (1 - confidence) / 2
    finite = resampled_R[torch.isfinite(resampled_R)]
    low, high = torch.quantile(finite, torch.tensor([tail, 1 - tail], dtype=finite.dtype)).tolist()
    return Interval(value=value, low=low, high=high, confidence=confidence)
