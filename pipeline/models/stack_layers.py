"""Dense layers with a member axis in front and the rows last. Axes: K members, D values in, W units out, B rows.

With the rows last, all but one of a layer's products read both matrices as they lie in memory: of 64 rows and 248 units
OpenBLAS then does 184, 178 and 154 GFLOP/s forward, to the input and to the weights, with the units last 122, 173 and
172; of 32 rows 180, 165 and 164 against 89, 146 and 181 (one Zen 5 core). What is done over a handful of classes runs
along rows too (the logarithmic softmax of 2,048 rows of 10 classes: 11 against 220 us).

Their backward passes are written by hand: autograd's own lays the weights' gradients out transposed, which costs a
slow copy, and needs a dozen small operations more. With the loss along rows and fewer operations around it, a
step of 32 members of 64-64-64-10 at batch 64 went from 4.0 to 2.0 ms on one Zen 5 core that others used too.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, Literal

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from pipeline.models.layers import Activation
from pipeline.models.products import bmm

BATCH_NORM_MOMENTUM, NORM_EPS = 0.1, 1e-5
"""Of torch's batch and layer normalisation, which the ordinary modules use."""

ACTIVATION: Final[dict[Activation, Callable[[Tensor], Tensor]]] = {
    "relu": torch.relu,
    "gelu": F.gelu,
    "silu": F.silu,
    "tanh": torch.tanh,
}


def linear(
    x_KDB: Tensor, parameters: Mapping[str, Tensor], name: str, activation: Activation | Literal["none"] = "none"
) -> Tensor:
    """Each member's own linear layer and then an activation, ``(K, W, B)``; without a bias where it has none."""
    x_KDB, weight_KWD, bias_KW = _cast(x_KDB, parameters, name)
    out: Tensor = _Linear.apply(x_KDB, weight_KWD, bias_KW, activation, None, None)  # type: ignore[no-untyped-call]
    return out


def linear_relu_dropout(
    x_KDB: Tensor, parameters: Mapping[str, Tensor], name: str, mask_KWB: Tensor, scale_K11: Tensor
) -> Tensor:
    """Each member's own linear layer, ReLU and dropout, ``(K, W, B)``. The backward pass needs no mask: what is
    positive was active and kept, and was multiplied by the scale."""
    x_KDB, weight_KWD, bias_KW = _cast(x_KDB, parameters, name)
    mask_KWB, scale_K11 = mask_KWB.to(x_KDB.dtype), scale_K11.to(x_KDB.dtype)
    out: Tensor = _Linear.apply(x_KDB, weight_KWD, bias_KW, "relu", mask_KWB, scale_K11)  # type: ignore[no-untyped-call]
    return out


def _cast(x_KDB: Tensor, parameters: Mapping[str, Tensor], name: str) -> tuple[Tensor, Tensor, Tensor | None]:
    """Input, weight and bias in autocast's type where it is on, so that forward and backward pass agree on it."""
    weight, bias = parameters[f"{name}.weight"], parameters.get(f"{name}.bias")
    device = x_KDB.device.type
    if not torch.is_autocast_enabled(device):
        return x_KDB, weight, bias
    dtype = torch.get_autocast_dtype(device)
    return x_KDB.to(dtype), weight.to(dtype), None if bias is None else bias.to(dtype)


def _place(weight: Tensor) -> Tensor | None:
    """Where a weight's gradient is to lie: in the `grad` that it was given, whose values nobody needs any more."""
    return weight.grad if weight.is_leaf else None


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x_KDB: Tensor,
        weight_KWD: Tensor,
        bias_KW: Tensor | None,
        activation: Activation | Literal["none"],
        mask_KWB: Tensor | None,
        scale_K11: Tensor | None,
    ) -> Tensor:
        z_KWB = bmm(weight_KWD, x_KDB)
        if bias_KW is not None:
            z_KWB += bias_KW[:, :, None]
        ctx.activation, ctx.has_bias, ctx.into = activation, bias_KW is not None, _place(weight_KWD)
        ctx.scale_K11 = scale_K11
        match activation:
            case "none":
                ctx.save_for_backward(x_KDB, weight_KWD)
                return z_KWB
            case "relu" | "tanh":  # whose gradients follow from what they give
                y_KWB = z_KWB.relu_() if activation == "relu" else z_KWB.tanh_()
                if mask_KWB is not None:
                    y_KWB *= mask_KWB
                ctx.save_for_backward(x_KDB, weight_KWD, y_KWB)
                return y_KWB
            case _:
                ctx.save_for_backward(x_KDB, weight_KWD, z_KWB)
                return ACTIVATION[activation](z_KWB)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient_KWB: Tensor) -> tuple[Tensor | None, Tensor, Tensor | None, None, None, None]:
        x_KDB, weight_KWD, *saved = ctx.saved_tensors
        if saved:
            gradient_KWB = _BEFORE[ctx.activation](gradient_KWB, saved[0])
        if ctx.scale_K11 is not None:
            gradient_KWB *= ctx.scale_K11  # of our own: the line above has just made it
        d_x_KDB = _input_gradient(gradient_KWB, x_KDB, weight_KWD) if ctx.needs_input_grad[0] else None
        d_weight_KWD = bmm(gradient_KWB, x_KDB.transpose(1, 2), ctx.into)
        return d_x_KDB, d_weight_KWD, gradient_KWB.sum(2) if ctx.has_bias else None, None, None, None


def _input_gradient(gradient_KWB: Tensor, x_KDB: Tensor, weight_KWD: Tensor) -> Tensor:
    """Laid out as the input is, so that what made it need not copy."""
    if x_KDB.stride(1) == 1:
        return bmm(gradient_KWB.transpose(1, 2), weight_KWD).transpose(1, 2)
    return bmm(weight_KWD.transpose(1, 2), gradient_KWB)


_BEFORE: Final[dict[Activation, Callable[[Tensor, Tensor], Tensor]]] = {
    "relu": lambda gradient, y: torch.ops.aten.threshold_backward(gradient, y, 0),
    "tanh": lambda gradient, y: torch.ops.aten.tanh_backward(gradient, y),
    "gelu": lambda gradient, z: torch.ops.aten.gelu_backward(gradient, z),
    "silu": lambda gradient, z: torch.ops.aten.silu_backward(gradient, z),
}
"""The gradient before an activation, from the one after it and what was kept of the forward pass."""
