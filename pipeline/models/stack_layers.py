"""Dense layers with a member axis in front and the rows last. Axes: K members, D values in, W units out, B rows.

With the rows last, all but one of a layer's products read both matrices as they lie in memory: of 64 rows and 248 units
OpenBLAS then does 184, 178 and 154 GFLOP/s forward, to the input and to the weights, with the units last 122, 173 and
172; of 32 rows 180, 165 and 164 against 89, 146 and 181 (one Zen 5 core). What is done over a handful of classes runs
along rows too (the logarithmic softmax of 2,048 rows of 10 classes: 11 against 220 us).

Their backward passes are written by hand, for all layers in a row at once: autograd's own lays the weights' gradients
out transposed, which costs a slow copy, and needs a dozen small operations more. With the loss along rows and fewer
operations around it, a step of 32 members of 64-64-64-10 at batch 64 went from 4.0 to 2.0 ms on one Zen 5 core that
others used too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final, Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from pipeline.models.dropout import StackedDropout
from pipeline.models.layers import Activation
from pipeline.models.products import bmm, silently

BATCH_NORM_MOMENTUM, NORM_EPS = 0.1, 1e-5
"""Of torch's batch and layer normalisation, which the ordinary modules use."""

ACTIVATION: Final[dict[Activation, Callable[[Tensor], Tensor]]] = {
    "relu": torch.relu,
    "gelu": F.gelu,
    "silu": F.silu,
    "tanh": torch.tanh,
}


class Layer(NamedTuple):
    """A linear layer by its parameters' name, and what follows it."""

    name: str
    activation: Activation | Literal["none"] = "none"
    dropout: bool = False
    """After the activation, while training."""


def linear(
    x_KDB: Tensor, parameters: Mapping[str, Tensor], name: str, activation: Activation | Literal["none"] = "none"
) -> Tensor:
    """Each member's own linear layer and then an activation, ``(K, W, B)``; without a bias where it has none."""
    return dense(x_KDB, parameters, [Layer(name, activation)])


def dense(
    x_KDB: Tensor,
    parameters: Mapping[str, Tensor],
    layers: Sequence[Layer],
    dropout: StackedDropout | None = None,
    generators: Sequence[torch.Generator] | None = None,
) -> Tensor:
    """Each member's own linear layers, one after the other: ``(K, W, B)``, of the last one's W units.

    Args:
        dropout, generators: given while training a net with dropout.
    """
    tensors = [parameters.get(f"{layer.name}.{kind}") for layer in layers for kind in ("weight", "bias")]
    x_KDB, *tensors = _cast([x_KDB, *tensors])
    out: Tensor = _Dense.apply(x_KDB, layers, dropout, generators, *tensors)  # type: ignore[no-untyped-call]
    return out


def _cast(tensors: Sequence[Tensor | None]) -> Iterable[Any]:
    """In autocast's type where it is on, so that forward and backward pass agree on it."""
    assert tensors[0] is not None
    device = tensors[0].device.type
    if not torch.is_autocast_enabled(device):
        return tensors
    dtype = torch.get_autocast_dtype(device)
    return [None if tensor is None else tensor.to(dtype) for tensor in tensors]


def _place(parameter: Tensor) -> Tensor | None:
    """Where a parameter's gradient is to lie: in the `grad` that it was given, whose values nobody needs any more."""
    return parameter.grad if parameter.is_leaf else None


class _Dense(torch.autograd.Function):
    @staticmethod
    @silently
    def forward(
        ctx: Any,
        x_KDB: Tensor,
        layers: Sequence[Layer],
        dropout: StackedDropout | None,
        generators: Sequence[torch.Generator] | None,
        *tensors: Tensor | None,
    ) -> Tensor:
        weights, biases = tensors[::2], tensors[1::2]
        y_KWB = x_KDB
        kept: list[Tensor | None] = []
        for layer, weight_KWD, bias_KW in zip(layers, weights, biases, strict=True):
            assert weight_KWD is not None, layer.name
            x_KDB, z_KWB = y_KWB, bmm(weight_KWD, y_KWB)
            if bias_KW is not None:
                z_KWB += bias_KW[:, :, None]
            before_KWB, y_KWB = _activated(layer.activation, z_KWB)
            mask = None
            if layer.dropout and dropout is not None and generators is not None:
                mask = dropout.mask((y_KWB.shape[1], y_KWB.shape[2]), y_KWB.dtype, generators)
                if mask is not None and layer.activation == "relu":
                    # Going back needs no mask: what is positive was active and kept, and was multiplied by the scale.
                    y_KWB *= mask
                    mask = dropout.scale_K11.to(y_KWB.dtype)
                elif mask is not None:
                    y_KWB = y_KWB * mask
            kept += [x_KDB, before_KWB, mask]
        ctx.layers = layers
        ctx.places = [None if parameter is None else _place(parameter) for parameter in tensors]
        ctx.save_for_backward(*weights, *kept)
        return y_KWB

    @staticmethod
    @once_differentiable
    @silently
    def backward(ctx: Any, gradient_KWB: Tensor) -> tuple[Tensor | None, ...]:
        n, saved = len(ctx.layers), ctx.saved_tensors
        gradients: list[Tensor | None] = []  # last layer first
        d_x_KDB: Tensor | None = gradient_KWB
        for i in reversed(range(n)):
            weight_KWD, (x_KDB, before_KWB, mask) = saved[i], saved[n + 3 * i : n + 3 * i + 3]
            assert d_x_KDB is not None
            given = i == n - 1 and not (before_KWB is None and mask is None)
            gradient_KWB = d_x_KDB.clone() if given else d_x_KDB  # what the last layer is given is not ours to change
            _go_before(ctx.layers[i].activation, gradient_KWB, before_KWB, mask)
            d_x_KDB = _input_gradient(gradient_KWB, x_KDB, weight_KWD) if i or ctx.needs_input_grad[0] else None
            d_weight_KWD = bmm(gradient_KWB, x_KDB.transpose(1, 2), ctx.places[2 * i])
            d_bias_KW = _sum_of_rows(gradient_KWB, ctx.places[2 * i + 1]) if ctx.needs_input_grad[5 + 2 * i] else None
            gradients += [d_bias_KW, d_weight_KWD]
        return d_x_KDB, None, None, None, *reversed(gradients)


def _activated(activation: Activation | Literal["none"], z_KWB: Tensor) -> tuple[Tensor | None, Tensor]:
    """What the activation's gradient is computed from, and its values; those of ReLU and tanh follow from what they
    give."""
    match activation:
        case "none":
            return None, z_KWB
        case "relu" | "tanh":
            y_KWB = z_KWB.relu_() if activation == "relu" else z_KWB.tanh_()
            return y_KWB, y_KWB
        case _:
            return z_KWB, ACTIVATION[activation](z_KWB)


def _go_before(
    activation: Activation | Literal["none"], gradient_KWB: Tensor, before_KWB: Tensor | None, mask: Tensor | None
) -> None:
    """Make of the gradient after activation and dropout that before them, in place: memory that was just written is in
    the cache."""
    if mask is not None:
        gradient_KWB *= mask
    if before_KWB is not None and activation != "none":
        _BEFORE[activation](gradient_KWB, before_KWB)


def _sum_of_rows(gradient_KWB: Tensor, place_KW: Tensor | None) -> Tensor:
    return gradient_KWB.sum(2) if place_KW is None else torch.sum(gradient_KWB, 2, out=place_KW)


def _input_gradient(gradient_KWB: Tensor, x_KDB: Tensor, weight_KWD: Tensor) -> Tensor:
    """Laid out as the input is, so that what made it need not copy."""
    if x_KDB.stride(1) == 1:
        return bmm(gradient_KWB.transpose(1, 2), weight_KWD).transpose(1, 2)
    return bmm(weight_KWD.transpose(1, 2), gradient_KWB)


_BEFORE: Final[dict[Activation, Callable[[Tensor, Tensor], Tensor]]] = {
    "relu": lambda gradient, y: torch.ops.aten.threshold_backward.grad_input(gradient, y, 0, grad_input=gradient),
    "tanh": lambda gradient, y: torch.ops.aten.tanh_backward.grad_input(gradient, y, grad_input=gradient),
    "gelu": lambda gradient, z: torch.ops.aten.gelu_backward.grad_input(gradient, z, grad_input=gradient),
    "silu": lambda gradient, z: torch.ops.aten.silu_backward.grad_input(gradient, z, grad_input=gradient),
}
"""The gradient before an activation, in place, from what was kept of the forward pass."""
