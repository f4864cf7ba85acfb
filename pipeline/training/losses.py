"""Training losses. Classes: logits against codes; quantities: standardised values against others."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from pipeline.data.spec import DataSpec
from pipeline.training.config import LossName, OptimisationConfig

FOCAL_GAMMA = 2.0
"""The focusing exponent that the focal loss paper found best (arXiv 1708.02002, table 1b)."""

MAX_WEIGHT = 50.0

Loss = Callable[[Tensor, Tensor], Tensor]


def training_loss(config: OptimisationConfig, spec: DataSpec, device: torch.device) -> Loss:
    """The loss to descend: mean over the rows of a batch, with label smoothing and class weights. Output ``(B, C)``,
    target ``(B,)``; of forecasts ``(B, H)`` both.

    Raises:
        ValueError: a loss of another task.
    """
    if (config.loss in {"cross_entropy", "focal"}) != (not spec.is_quantity):
        raise ValueError(f"loss must be one of a {spec.task} task, but got {config.loss!r}")
    if config.loss not in {"cross_entropy", "focal"}:
        regression = REGRESSION[config.loss]
        if spec.task == "forecast":
            return regression
        return lambda output, target: regression(output[:, 0], target)
    smoothing = config.label_smoothing
    weights = class_weights(config, spec)
    if weights is not None:
        weights_C = torch.tensor(weights, device=device, dtype=torch.get_default_dtype())
        row_losses = _cross_entropies if config.loss == "cross_entropy" else _focal
        return lambda output, target: (row_losses(output, target, smoothing) * weights_C[target]).mean()
    if config.loss == "cross_entropy":
        return lambda output, target: F.cross_entropy(output, target, label_smoothing=smoothing)
    return lambda output, target: _focal(output, target, smoothing).mean()


def plain_loss(config: OptimisationConfig, spec: DataSpec, device: torch.device) -> Loss:
    """The same loss without label smoothing and class weights: what validation reports, so that trials can be
    compared."""
    return training_loss(config.model_copy(update={"label_smoothing": 0.0, "class_weight_power": 0.0}), spec, device)


def class_weights(config: OptimisationConfig, spec: DataSpec) -> tuple[float, ...] | None:
    """The weight of a row of each class, 1 on average over the training rows; None where all are alike.

    A class without rows weighs nothing. Before they are scaled weights end at `MAX_WEIGHT`, so that a class of two rows
    does not decide every step that it is in.
    """
    if config.class_weight_power == 0 or not spec.class_counts:
        return None
    n, n_classes = sum(spec.class_counts), len(spec.class_counts)
    raw = [
        min(MAX_WEIGHT, (n / (n_classes * count)) ** config.class_weight_power) if count else 0.0
        for count in spec.class_counts
    ]
    mean = sum(weight * count for weight, count in zip(raw, spec.class_counts, strict=True)) / n
    return tuple(weight / mean for weight in raw)


def _cross_entropies(output: Tensor, target: Tensor, smoothing: float) -> Tensor:
    return F.cross_entropy(output, target, label_smoothing=smoothing, reduction="none")


def _focal(output: Tensor, target: Tensor, smoothing: float) -> Tensor:
    """Of each row ``(B,)``."""
    log_p = F.log_softmax(output, dim=1)
    true = log_p.gather(1, target[:, None])[:, 0]
    smooth = (1 - smoothing) * true + smoothing * log_p.mean(1)
    return -((1 - true.exp()).pow(FOCAL_GAMMA) * smooth)


REGRESSION: dict[LossName, Callable[..., Tensor]] = {"mse": F.mse_loss, "huber": F.huber_loss, "mae": F.l1_loss}
"""Torch's losses of quantities; the mean unless ``reduction`` says otherwise."""


def first_non_finite(losses_K: Tensor) -> list[int]:
    """Members whose loss is NaN or infinite."""
    return (~torch.isfinite(losses_K)).nonzero()[:, 0].tolist()
