"""The contract of a family that stacks: K models of one shape class as one batched computation.

Axes: K members, B rows, C outputs. Parameters are named as in the family's ordinary module, with a leading member axis
and every other axis zero-padded at its end to the cohort's largest. Padding costs nothing but arithmetic: all
activations map 0 to 0, so padded units give 0, receive a gradient of 0, and stay at 0 under weight decay and every
optimiser here.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from pipeline.data.spec import DataSpec
from pipeline.data.tensors import Inputs
from pipeline.models.config import ModelConfig

C = TypeVar("C", bound=ModelConfig)


class StackedNet(Protocol):
    """K networks, forward and back. It is made for parameters and buffers ``(K, …)`` by name, which stay where they are
    in memory; each parameter's `grad` is the place of its gradient."""

    def forward(self, inputs: Inputs, generators: Sequence[torch.Generator] | None) -> Tensor:
        """Outputs ``(K, B, C)``, outside of autograd; those of a training step hold until it is gone back.

        Args:
            inputs: with a member axis in front, ``(K, B, …)``, or without one where all members see the same rows.
            generators: one a member while training (dropout draws from them exactly as the member alone would draw from
                torch's global generator, and buffers are updated); None to evaluate.
        """
        ...

    def backward(self, gradient_KBC: Tensor) -> None:
        """From the gradient to the outputs of the last training step to those of all parameters, which are put in their
        places."""
        ...


class StackedForward(Protocol):
    """The forward pass of a cohort, in autograd."""

    def __call__(
        self,
        parameters: Mapping[str, Tensor],
        buffers: Mapping[str, Tensor],
        inputs: Inputs,
        generators: Sequence[torch.Generator] | None,
    ) -> Tensor:
        """As of `StackedNet`, with all parameters and buffers."""
        ...


class _Differentiated:
    """A `StackedNet` whose way back is autograd's."""

    def __init__(
        self, forward: StackedForward, parameters: Mapping[str, Tensor], buffers: Mapping[str, Tensor]
    ) -> None:
        self._forward, self._parameters, self._buffers = forward, parameters, buffers
        self._outputs_KBC: Tensor | None = None

    def forward(self, inputs: Inputs, generators: Sequence[torch.Generator] | None) -> Tensor:
        outputs_KBC = self._forward(self._parameters, self._buffers, inputs, generators)
        if generators is not None:
            self._outputs_KBC = outputs_KBC
        return outputs_KBC.detach()

    def backward(self, gradient_KBC: Tensor) -> None:
        outputs_KBC, self._outputs_KBC = self._outputs_KBC, None
        assert outputs_KBC is not None, "there is a way back from a training step, once"
        go_back(outputs_KBC, gradient_KBC, list(self._parameters.values()))


def go_back(values: Tensor, gradient: Tensor, parameters: Sequence[Tensor]) -> None:
    """By autograd from the gradient to some values to those of parameters, into their places."""
    # Given to autograd itself, a gradient of several values would import sympy, and have its shape checked at every
    # step.
    found = torch.autograd.grad(_Given.apply(values, gradient), parameters)  # type: ignore[no-untyped-call]
    places = [parameter.grad for parameter in parameters if parameter.grad is not None]
    # Some layers have put theirs there.
    elsewhere = [(p, g) for p, g in zip(places, found, strict=True) if p.data_ptr() != g.data_ptr()]
    if elsewhere:
        own, copied = zip(*elsewhere, strict=True)
        torch._foreach_copy_(own, copied)


class _Given(torch.autograd.Function):
    """A number whose gradient to some values is given."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, gradient: Tensor) -> Tensor:
        ctx.gradient = gradient
        return values.new_zeros(())

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, _: Tensor) -> tuple[Tensor, None]:
        return ctx.gradient, None


@dataclass(frozen=True, slots=True)
class Stack(Generic[C]):
    """How a family stacks.

    Args:
        shape_class: members with equal classes may share a cohort; everything else in the config may differ.
        class_parameters: names in the search space that decide the class.
        net: the cohort's network for configs of one class, with its parameters and buffers.
        devices: kinds of device on which a cohort may pay; elsewhere it is not even timed.
    """

    shape_class: Callable[[C, DataSpec], Hashable]
    class_parameters: tuple[str, ...]
    net: Callable[[Sequence[C], DataSpec, Mapping[str, Tensor], Mapping[str, Tensor]], StackedNet]
    devices: frozenset[str] = frozenset({"cpu", "cuda"})


def differentiated(
    forward: Callable[[Sequence[C], DataSpec, torch.device], StackedForward],
) -> Callable[[Sequence[C], DataSpec, Mapping[str, Tensor], Mapping[str, Tensor]], StackedNet]:
    """A stack's `net` of a forward pass."""

    def net(
        configs: Sequence[C], spec: DataSpec, parameters: Mapping[str, Tensor], buffers: Mapping[str, Tensor]
    ) -> StackedNet:
        device = next(iter(parameters.values())).device
        return _Differentiated(forward(configs, spec, device), parameters, buffers)

    return net
