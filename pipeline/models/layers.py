"""Pieces that families share: activations, normalisation, and steps that are padding. Axes as in `pipeline.data.tensors`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Literal

import torch
from torch import Tensor, nn

Activation = Literal["relu", "gelu", "silu", "tanh"]

ACTIVATIONS: Final[dict[Activation, Callable[[], nn.Module]]] = {
    "relu": nn.ReLU,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "tanh": nn.Tanh,
}
"""All map 0 to 0: units that only pad a layer to a common width stay silent."""


def init_linear(layer: nn.Linear | nn.Conv2d, activation: Activation) -> None:
    """Weights that keep the variance of what passes: He et al. (arXiv 1502.01852) before a rectifier or a smooth relative
    of it, Glorot and Bengio's fan-in variant before tanh. Biases start at zero."""
    nn.init.kaiming_normal_(layer.weight, nonlinearity="tanh" if activation == "tanh" else "relu")
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)


HEAD_GAIN: Final = 0.1
"""Outputs start near zero: classes nearly equally probable, regressions near the target's mean."""


def init_head(layer: nn.Linear) -> None:
    """Small weights for an output layer; zero would keep gradients from everything below in the first step."""
    nn.init.normal_(layer.weight, std=HEAD_GAIN * layer.in_features**-0.5)
    nn.init.zeros_(layer.bias)


def valid_steps(lengths_B: Tensor | None, x_BTD: Tensor) -> Tensor | None:
    """Which steps are data: bool ``(B, T)``; None where every step is."""
    if lengths_B is None:
        return None
    steps_T = torch.arange(x_BTD.shape[1], device=x_BTD.device)
    return steps_T < lengths_B.to(x_BTD.device)[:, None]
