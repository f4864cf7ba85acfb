"""Calibration of a classifier: whether of the rows it is 80 % sure of, 80 % are right. Axes: N rows, C classes."""

from __future__ import annotations

from typing import Final

import torch
import torch.nn.functional as F
from pydantic import BaseModel, ConfigDict
from torch import Tensor

N_BINS: Final = 15
"""As in Guo et al., On Calibration of Modern Neural Networks, 2017 (arXiv 1706.04599)."""
RANGE: Final = (0.05, 20.0)
"""Temperatures that are considered."""
GOLDEN: Final = (5**0.5 - 1) / 2
PRECISION: Final = 1e-5
"""Of the logarithm of the temperature."""


class ReliabilityBin(BaseModel):
    """The rows whose most probable class has a probability in one of fifteen equal ranges."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    n_rows: int
    confidence: float
    """Mean probability of the predicted class."""
    accuracy: float
    """Share of rows whose predicted class is right."""


class Reliability(BaseModel):
    """What a classifier's probabilities are worth on the test rows."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    ece: float
    """Expected calibration error: mean over the rows of their bin's distance between confidence and accuracy."""
    bins: tuple[ReliabilityBin, ...]
    """Bins that have rows, by rising confidence."""


def reliability(outputs_NC: Tensor, target_N: Tensor) -> Reliability:
    """Of the predicted class's probability, in fifteen bins of equal width."""
    confidence_N, predicted_N = torch.softmax(outputs_NC.double(), 1).max(1)
    right_N = (predicted_N == target_N).double()
    bin_N = (confidence_N * N_BINS).long().clamp(max=N_BINS - 1)
    bins = tuple(
        ReliabilityBin(
            n_rows=int(rows.sum()), confidence=float(confidence_N[rows].mean()), accuracy=float(right_N[rows].mean())
        )
        for rows in (bin_N == number for number in range(N_BINS))
        if bool(rows.any())
    )
    ece = sum(b.n_rows * abs(b.confidence - b.accuracy) for b in bins) / max(1, len(target_N))
    return Reliability(ece=ece, bins=bins)


def fit_temperature(logits_NC: Tensor, target_N: Tensor) -> float:
    """The temperature that divides logits so that the log loss on these rows is least (temperature scaling, Guo et al.
    2017). It changes no prediction, only how sure it is; 1 where the given rows say no better.

    The log loss is convex in the inverse temperature, so that a golden section finds its one minimum.
    """
    logits_NC = logits_NC.double()

    def loss(log_temperature: float) -> float:
        return float(F.cross_entropy(logits_NC / torch.tensor(log_temperature).exp(), target_N))

    low, high = (float(torch.tensor(bound).log()) for bound in RANGE)
    while high - low > PRECISION:
        left, right = high - GOLDEN * (high - low), low + GOLDEN * (high - low)
        if loss(left) <= loss(right):
            high = right
        else:
            low = left
    middle = (low + high) / 2
    return float(torch.tensor(middle).exp()) if loss(middle) < loss(0.0) else 1.0
