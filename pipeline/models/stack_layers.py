"""Layers with a member axis in front. Axes: K members, B rows, D values in, W units out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

import torch
import torch.nn.functional as F
from torch import Tensor

from pipeline.models.layers import Activation

BATCH_NORM_MOMENTUM, NORM_EPS = 0.1, 1e-5
"""Of torch's batch and layer normalisation, which the ordinary modules use."""

ACTIVATION: Final[dict[Activation, Callable[[Tensor], Tensor]]] = {
    "relu": torch.relu,
    "gelu": F.gelu,
    "silu": F.silu,
    "tanh": torch.tanh,
}


def linear(x_KBD: Tensor, parameters: Mapping[str, Tensor], name: str) -> Tensor:
    """Each member's own linear layer, ``(K, B, W)``; without a bias where it has none."""
    weight_KDW = parameters[f"{name}.weight"].transpose(1, 2)
    bias_KW = parameters.get(f"{name}.bias")
    return torch.bmm(x_KBD, weight_KDW) if bias_KW is None else torch.baddbmm(bias_KW[:, None], x_KBD, weight_KDW)
