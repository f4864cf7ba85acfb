"""Optimisers over a flat ``(K, P)`` buffer: row k is member k's parameters, with learning rate and all else of its own.

One fused kernel a row (`torch._fused_*`, the kernels behind ``torch.optim.*(fused=True)``) was 2.2 to 3.5 times faster
than elementwise operations with ``(K, 1)`` hyperparameters. State is kept as torch's own optimisers name it, so that a
member can go on alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import torch
from torch import Tensor

from pipeline.training.config import OptimisationConfig, OptimizerName

SLOTS: Final[dict[OptimizerName, tuple[str, ...]]] = {
    "adamw": ("exp_avg", "exp_avg_sq"),
    "adam": ("exp_avg", "exp_avg_sq"),
    "rmsprop": ("square_avg", "momentum_buffer"),
    "sgd": ("momentum_buffer",),
}
"""State tensors of each optimiser, named as torch names them."""

STEPPED: Final[frozenset[OptimizerName]] = frozenset({"adamw", "adam", "rmsprop"})
"""Optimisers whose state counts steps."""


class RowOptimizer:
    """Steps every row of a buffer with its own optimiser.

    Shape:
        parameters, gradients: ``(K, P)``, the same memory over the object's life.
    """

    def __init__(self, configs: Sequence[OptimisationConfig], parameters: Tensor, gradients: Tensor) -> None:
        self._configs = list(configs)
        self._parameters, self._gradients = parameters, gradients
        K = len(self._configs)
        # Two state buffers serve every optimiser; a row uses as many as its optimiser has.
        self.first = torch.zeros_like(parameters)
        self.second = torch.zeros_like(parameters)
        self.steps = [torch.zeros((), dtype=torch.float32, device=parameters.device) for _ in range(K)]
        self._rows: list[tuple[list[Tensor], list[Tensor], list[Tensor], list[Tensor], list[Tensor]]] = []
        self._view_rows()

    def keep(self, members: Sequence[int], parameters: Tensor, gradients: Tensor) -> None:
        """Go on with these rows, which now live in other buffers."""
        index = torch.tensor(members, device=parameters.device)
        self._configs = [self._configs[k] for k in members]
        self._parameters, self._gradients = parameters, gradients
        self.first, self.second = self.first[index], self.second[index]
        self.steps = [self.steps[k] for k in members]
        self._view_rows()

    def slots(self, member: int) -> dict[str, Tensor]:
        """A member's state rows ``(P,)`` by torch's names."""
        return dict(
            zip(SLOTS[self._configs[member].optimizer], (self.first[member], self.second[member]), strict=False)
        )

    def step(self, rates: Sequence[float]) -> None:
        """Update every row with its gradient, row k with learning rate ``rates[k]``."""
        for config, row, rate in zip(self._configs, self._rows, rates, strict=True):
            parameter, gradient, first, second, step = row
            match config.optimizer:
                case "adamw" | "adam":
                    step[0] += 1
                    kernel = torch._fused_adamw_ if config.optimizer == "adamw" else torch._fused_adam_
                    kernel(
                        parameter, gradient, first, second, [], step, lr=rate, beta1=config.momentum, beta2=config.beta2,
                        weight_decay=config.weight_decay, eps=config.eps, amsgrad=False, maximize=False,
                    )  # fmt: skip
                case "sgd":
                    is_first = float(step[0]) == 0
                    step[0] += 1
                    torch._fused_sgd_(
                        parameter, gradient, first if config.momentum else [], weight_decay=config.weight_decay,
                        momentum=config.momentum, lr=rate, dampening=0.0, nesterov=config.momentum > 0, maximize=False,
                        is_first_step=is_first,
                    )  # fmt: skip
                case "rmsprop":
                    step[0] += 1
                    _rmsprop(config, parameter[0], gradient[0], first[0], second[0], rate)

    def _view_rows(self) -> None:
        self._rows = [
            ([self._parameters[k]], [self._gradients[k]], [self.first[k]], [self.second[k]], [self.steps[k]])
            for k in range(len(self._configs))
        ]


def _rmsprop(
    config: OptimisationConfig, parameter: Tensor, gradient: Tensor, square: Tensor, momentum: Tensor, rate: float
) -> None:
    """torch.optim.RMSprop's update, not centred."""
    if config.weight_decay:
        gradient = gradient.add(parameter, alpha=config.weight_decay)
    square.mul_(config.beta2).addcmul_(gradient, gradient, value=1 - config.beta2)
    root = square.sqrt().add_(config.eps)
    if config.momentum:
        momentum.mul_(config.momentum).addcdiv_(gradient, root)
        parameter.add_(momentum, alpha=-rate)
    else:
        parameter.addcdiv_(gradient, root, value=-rate)
