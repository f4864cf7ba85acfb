"""Training losses. Classes: logits against codes; regression: one standardised value against another."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from pipeline.data.spec import Task
from pipeline.training.config import LossName, OptimisationConfig

FOCAL_GAMMA = 2.0
"""The focusing exponent that the focal loss paper found best (arXiv 1708.02002, table 1b)."""

Loss = Callable[[Tensor, Tensor], Tensor]


def training_loss(config: OptimisationConfig, task: Task) -> Loss:
    """The loss to descend: mean over the rows of a batch, label smoothing included. Output ``(B, C)``, target ``(B,)``.

    Raises:
        ValueError: a loss of another task.
    """
    if (config.loss in {"cross_entropy", "focal"}) != (task != "regression"):
        raise ValueError(f"loss must be one of a {task} task, but got {config.loss!r}")
    match config.loss:
        case "cross_entropy":
            smoothing = config.label_smoothing
            return lambda output, target: F.cross_entropy(output, target, label_smoothing=smoothing)
        case "focal":
            return lambda output, target: _focal(output, target, config.label_smoothing)
        case _:
            regression = _REGRESSION[config.loss]
            return lambda output, target: regression(output[:, 0], target)


def plain_loss(config: OptimisationConfig, task: Task) -> Loss:
    """The same loss without label smoothing: what validation reports, so that trials can be compared."""
    return training_loss(config.model_copy(update={"label_smoothing": 0.0}), task)


def _focal(output: Tensor, target: Tensor, smoothing: float) -> Tensor:
    log_p = F.log_softmax(output, dim=1)
    true = log_p.gather(1, target[:, None])[:, 0]
    smooth = (1 - smoothing) * true + smoothing * log_p.mean(1)
    return -((1 - true.exp()).pow(FOCAL_GAMMA) * smooth).mean()


_REGRESSION: dict[LossName, Loss] = {"mse": F.mse_loss, "huber": F.huber_loss, "mae": F.l1_loss}


def first_non_finite(losses_K: Tensor) -> list[int]:
    """Members whose loss is NaN or infinite."""
    return (~torch.isfinite(losses_K)).nonzero()[:, 0].tolist()
