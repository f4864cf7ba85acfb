"""What validation says of K trials: losses and metrics on the validation part, or over the folds.

Axes: K trials, N rows, C outputs.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

from torch import Tensor

from pipeline.data.tensors import Development, Part
from pipeline.training.metrics import validation_metrics


@dataclass(frozen=True, slots=True)
class Validated:
    """One epoch's validation, each a ``(K,)`` tensor on the CPU."""

    losses: Tensor
    metrics: dict[str, Tensor]
    standard_errors: dict[str, Tensor] = field(default_factory=dict)
    """Of the metrics' means over the folds; empty without folds."""


class _Scored(Protocol):
    def outputs(self, part: Part) -> Tensor: ...

    def losses(self, outputs_KNC: Tensor, target_N: Tensor) -> Tensor: ...


def hold_out(learner: _Scored, data: Development) -> Validated:
    """Every member on the validation part."""
    outputs_KNC = learner.outputs(data.validation)
    return Validated(
        learner.losses(outputs_KNC, data.validation.target),
        validation_metrics(outputs_KNC, data.validation.target, data.spec),
    )
