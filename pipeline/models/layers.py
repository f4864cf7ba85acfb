"""Pieces that families share: activations, normalisation, and steps that are padding. Axes: B rows, T steps."""

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
    """Weights that keep the variance of what passes: He et al. (arXiv 1502.01852) before a rectifier or one of its
    smooth relatives, the same with torch's gain for tanh before tanh. Biases start at zero."""
    nn.init.kaiming_normal_(layer.weight, nonlinearity="tanh" if activation == "tanh" else "relu")
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)


HEAD_GAIN: Final = 0.1
"""Outputs start near zero: classes nearly equally probable, regressions near the target's mean."""


def init_head(layer: nn.Linear) -> None:
    """Small weights for an output layer; zero would keep gradients from everything below in the first step."""
    nn.init.normal_(layer.weight, std=HEAD_GAIN * layer.in_features**-0.5)
    nn.init.zeros_(layer.bias)


def unequal(lengths_B: Tensor | None, n_steps: int) -> Tensor | None:
    """The lengths, where some row may be shorter than the batch; None where all rows are known to be full."""
    if torch.compiler.is_exporting():  # a file must answer for all rows, not as for the example's
        return lengths_B
    # On a GPU the question would make the host wait for the device; there the masks are cheap.
    if lengths_B is not None and lengths_B.device.type == "cpu" and bool((lengths_B >= n_steps).all()):
        return None
    return lengths_B
