"""Dense layers with a member axis in front and the rows last, forward and back by hand.

With the rows last, all but one of a layer's products read both matrices as they lie in memory: of 64 rows and 248 units
OpenBLAS then does 184, 178 and 154 GFLOP/s forward, to the input and to the weights, with the units last 122, 173 and
172; of 32 rows 180, 165 and 164 against 89, 146 and 181 (one Zen 5 core). What is done over a handful of classes runs
along rows too (the logarithmic softmax of 2,048 rows of 10 classes: 11 against 220 us).

The way back is written by hand: autograd lays the weights' gradients out transposed, which costs a slow copy, and what
it does around every operation costs small networks more than the operation. Nor is memory asked for anew at every
step. On one Xeon core a step of 4 members of 64-8-8-8-10 at batch 64 takes 0.54 of the time that it took with autograd
around the layers and the loss, one of 16 members of 64-64-64-64-10 0.81, one of 4 of 64-232-232-232-10 0.87. Weights
came out the same bit for bit, but for layer norm.

Axes: K members, D values in, W units out, B rows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Literal, NamedTuple, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from pipeline.models.dropout import StackedDropout
from pipeline.models.layers import Activation
from pipeline.models.products import bmm, silently

ACTIVATION: Final[dict[Activation, Callable[[Tensor], Tensor]]] = {
    "relu": torch.relu,
    "gelu": F.gelu,
    "silu": F.silu,
    "tanh": torch.tanh,
}

_BEFORE: Final[dict[Activation, Callable[[Tensor, Tensor], Tensor]]] = {
    "relu": lambda gradient, y: torch.ops.aten.threshold_backward.grad_input(gradient, y, 0, grad_input=gradient),
    "tanh": lambda gradient, y: torch.ops.aten.tanh_backward.grad_input(gradient, y, grad_input=gradient),
    "gelu": lambda gradient, z: torch.ops.aten.gelu_backward.grad_input(gradient, z, grad_input=gradient),
    "silu": lambda gradient, z: torch.ops.aten.silu_backward.grad_input(gradient, z, grad_input=gradient),
}
"""The gradient before an activation, in place, from what was kept of the forward pass."""


class Norm(Protocol):
    """A normalisation between a linear layer and its activation."""

    def forward(self, z_KWB: Tensor, training: bool) -> Tensor: ...

    def backward(self, gradient_KWB: Tensor) -> Tensor:
        """To what the last forward pass of a training step was given; its parameters' gradients go where their ``grad``
        is."""
        ...


class Layer(NamedTuple):
    """A linear layer by its parameters' name, and what follows it."""

    name: str
    activation: Activation | Literal["none"] = "none"
    dropout: bool = False
    """After the activation, while training."""
    norm: Norm | None = None
    """Before the activation."""
    residual: bool = False
    """What comes in is added to what comes out."""


class _Pass:
    """What a layer keeps of a forward pass."""

    __slots__ = ("before", "d_x", "mask", "product", "x")

    def __init__(self) -> None:
        self.product: Tensor | None = None
        self.d_x: Tensor | None = None
        self.mask: Tensor | None = None
        self.before: Tensor | None = None
        """What the activation's gradient is computed from."""
        self.x: Tensor


class DenseNet:
    """Dense layers one after the other.

    Args:
        tensors: weight ``(K, W, D)`` and bias ``(K, W)``, or None, of each layer; outside of autograd.
        places: where their gradients go; None where they are only returned.
        dropout: of all layers that have it.
        keeps_memory: of a pass for the next one of as many rows. What a pass gives then holds until it is gone back,
            which it can be once.
    """

    def __init__(
        self,
        layers: Sequence[Layer],
        tensors: Sequence[Tensor | None],
        places: Sequence[Tensor | None],
        dropout: StackedDropout | None = None,
        *,
        keeps_memory: bool,
    ) -> None:
        self._layers, self._dropout, self._keeps_memory = layers, dropout, keeps_memory
        self._weights = [weight for weight in tensors[::2] if weight is not None]
        self._biases = [None if bias_KW is None else bias_KW[:, :, None] for bias_KW in tensors[1::2]]
        self._places = list(zip(places[::2], places[1::2], strict=True))
        self._memory: dict[int, list[_Pass]] = {}
        self._passes: list[_Pass] = []
        """Of the last forward pass that there is a way back from."""
        self._masks: dict[tuple[int, int], Tensor] = {}
        """Of layers that need them only forward, by shape."""

    @silently
    def forward(self, x_KDB: Tensor, generators: Sequence[torch.Generator] | None, *, training: bool = True) -> Tensor:
        """``(K, W, B)``, of the last layer's W units; products are in the type of what comes in.

        Args:
            generators: given to drop out, one a member; by all training passes of a net or by none.
            training: there will be a way back.
        """
        dtype, passes = x_KDB.dtype, self._passes_of(x_KDB.shape[2], training)
        for layer, weight_KWD, bias_KW1, own in zip(self._layers, self._weights, self._biases, passes, strict=True):
            own.x = _cast(x_KDB, dtype)
            z_KWB = own.product = bmm(_cast(weight_KWD, dtype), own.x, own.product)
            if bias_KW1 is not None:
                z_KWB += bias_KW1
            if layer.norm is not None:
                z_KWB = layer.norm.forward(z_KWB, training)
            own.before, y_KWB = _activated(layer.activation, z_KWB)
            if layer.dropout and self._dropout is not None and generators is not None:
                y_KWB = self._dropped(self._dropout, generators, layer, own, y_KWB)
            x_KDB = x_KDB + y_KWB if layer.residual else y_KWB
        return x_KDB

    def _passes_of(self, n_rows: int, training: bool) -> list[_Pass]:
        passes = self._memory.get(n_rows) if training else None
        if passes is None:
            passes = [_Pass() for _ in self._layers]
        if training:
            self._passes = passes
            if self._keeps_memory:
                self._memory[n_rows] = passes
        return passes

    def _dropped(
        self,
        dropout: StackedDropout,
        generators: Sequence[torch.Generator],
        layer: Layer,
        own: _Pass,
        y_KWB: Tensor,
    ) -> Tensor:
        shape = (y_KWB.shape[1], y_KWB.shape[2])
        if layer.activation != "relu":
            own.mask = dropout.mask(shape, y_KWB.dtype, generators, own.mask)
            return y_KWB if own.mask is None else y_KWB * own.mask
        mask_KWB = dropout.mask(shape, y_KWB.dtype, generators, self._masks.get(shape))
        if mask_KWB is None:
            return y_KWB
        # Going back needs no mask: what is positive was active and kept, and was multiplied by the scale.
        self._masks[shape], own.mask = mask_KWB, dropout.scale(y_KWB.dtype)
        y_KWB *= mask_KWB
        return y_KWB

    @silently
    def backward(self, gradient_KWB: Tensor, *, to_input: bool) -> tuple[Tensor | None, list[Tensor | None]]:
        """The gradients to what came in, where it is asked for, and to the tensors, in their order; the latter lie in
        their places too. What is given is left as it is."""
        gradients: list[Tensor | None] = []  # last layer first
        ours = False
        d_x_KDB: Tensor | None = gradient_KWB
        for i in reversed(range(len(self._layers))):
            assert d_x_KDB is not None
            layer, own, (weight_place, bias_place) = self._layers[i], self._passes[i], self._places[i]
            gradient_KWB = passed_KWB = d_x_KDB
            if own.mask is not None or own.before is not None:
                if not ours or layer.residual:
                    gradient_KWB = gradient_KWB.clone()
                _go_before(layer.activation, gradient_KWB, own.before, own.mask)
            if layer.norm is not None:
                gradient_KWB = layer.norm.backward(gradient_KWB)
            gradient_KWB = _cast(gradient_KWB, own.x.dtype)
            d_x_KDB = self._to_input(i, gradient_KWB) if i or to_input else None
            d_weight_KWD = bmm(gradient_KWB, own.x.transpose(1, 2), weight_place)
            d_bias_KW = None if self._biases[i] is None else _sum_of_rows(gradient_KWB, bias_place)
            if layer.residual and d_x_KDB is not None:
                d_x_KDB += passed_KWB
            gradients += [d_bias_KW, d_weight_KWD]
            ours = True
        return d_x_KDB, gradients[::-1]

    def _to_input(self, i: int, gradient_KWB: Tensor) -> Tensor:
        own = self._passes[i]
        weight_KWD = _cast(self._weights[i], gradient_KWB.dtype)
        if i == 0 and own.x.stride(1) == 1:  # laid out as the input is, so that what made it need not copy
            return bmm(gradient_KWB.transpose(1, 2), weight_KWD).transpose(1, 2)
        weight_KDW = weight_KWD.transpose(1, 2)
        if i == 0 or not self._keeps_memory:
            return bmm(weight_KDW, gradient_KWB)
        # Over the layer's own product, which nobody needs any more and which is in the cache.
        if own.product is not None and own.product.shape == own.x.shape:
            return bmm(weight_KDW, gradient_KWB, own.product)
        own.d_x = bmm(weight_KDW, gradient_KWB, own.d_x)
        return own.d_x


def dense(
    x_KDB: Tensor,
    parameters: Mapping[str, Tensor],
    layers: Sequence[Layer],
    dropout: StackedDropout | None = None,
    generators: Sequence[torch.Generator] | None = None,
) -> Tensor:
    """A `DenseNet` in autograd, ``(K, W, B)``.

    Args:
        dropout, generators: given while training a net with dropout.
    """
    tensors = tensors_of(layers, parameters)
    dtype = computed_in(x_KDB)
    x_KDB, *tensors = (None if tensor is None else tensor.to(dtype) for tensor in (x_KDB, *tensors))  # type: ignore[assignment]
    out: Tensor = _Dense.apply(x_KDB, layers, dropout, generators, *tensors)  # type: ignore[no-untyped-call]
    return out


def tensors_of(layers: Sequence[Layer], parameters: Mapping[str, Tensor]) -> list[Tensor | None]:
    """Weight and bias of each."""
    return [parameters.get(f"{layer.name}.{kind}") for layer in layers for kind in ("weight", "bias")]


def place(parameter: Tensor | None) -> Tensor | None:
    """Where a parameter's gradient is to lie: in the `grad` that it was given, whose values nobody needs any more."""
    return None if parameter is None or not parameter.is_leaf else parameter.grad


def computed_in(x: Tensor) -> torch.dtype:
    """Autocast's type where it is on, else the tensor's own."""
    device = x.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else x.dtype


class _Dense(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x_KDB: Tensor,
        layers: Sequence[Layer],
        dropout: StackedDropout | None,
        generators: Sequence[torch.Generator] | None,
        *tensors: Tensor | None,
    ) -> Tensor:
        ctx.net = DenseNet(layers, tensors, [place(parameter) for parameter in tensors], dropout, keeps_memory=False)
        # Of the net's own output, autograd would make a cycle.
        out: Tensor = ctx.net.forward(x_KDB, generators).detach()
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient_KWB: Tensor) -> tuple[Tensor | None, ...]:
        d_x_KDB, gradients = ctx.net.backward(gradient_KWB, to_input=ctx.needs_input_grad[0])
        return d_x_KDB, None, None, None, *gradients


def _cast(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    return tensor if tensor.dtype == dtype else tensor.to(dtype)


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
    if place_KW is None or place_KW.dtype != gradient_KWB.dtype:
        return gradient_KWB.sum(2) if place_KW is None else place_KW.copy_(gradient_KWB.sum(2))
    return torch.sum(gradient_KWB, 2, out=place_KW)
