"""The contract of a family that stacks: K models of one shape class as one batched computation.

Axes: K members, B rows, C outputs. Parameters are named as in the family's ordinary module, with a leading member axis
and every other axis zero-padded at its end to the cohort's largest. Padding costs nothing but arithmetic: all
activations map 0 to 0, so padded units give 0, receive a gradient of 0, and stay at 0 under weight decay and every
optimiser here.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

import torch
from torch import Tensor

from pipeline.data.spec import DataSpec
from pipeline.data.tensors import Inputs
from pipeline.models.config import ModelConfig

C = TypeVar("C", bound=ModelConfig)


class StackedForward(Protocol):
    """The forward pass of a cohort."""

    def __call__(
        self,
        parameters: Mapping[str, Tensor],
        buffers: Mapping[str, Tensor],
        inputs: Inputs,
        generators: Sequence[torch.Generator] | None,
    ) -> Tensor:
        """Outputs ``(K, B, C)``.

        Args:
            parameters, buffers: by name, ``(K, …)``; buffers are updated in place while training.
            inputs: with a member axis in front, ``(K, B, …)``, or without one where all members see the same rows.
            generators: one a member while training (dropout draws from them exactly as the member alone would draw from
                torch's global generator); None to evaluate.
        """
        ...


@dataclass(frozen=True, slots=True)
class Stack(Generic[C]):
    """How a family stacks.

    Args:
        shape_class: members with equal classes may share a cohort; everything else in the config may differ.
        class_parameters: names in the search space that decide the class.
        forward: the cohort's forward pass for configs of one class.
    """

    shape_class: Callable[[C, DataSpec], Hashable]
    class_parameters: tuple[str, ...]
    forward: Callable[[Sequence[C], DataSpec, torch.device], StackedForward]
