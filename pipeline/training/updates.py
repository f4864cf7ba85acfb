"""The optimisers' arithmetic: torch's own fused kernels, those of ``torch.optim.*(fused=True)``, called directly.

What ``torch.optim.Optimizer.step`` does around the kernel (hooks, regrouping of tensors, checks) costs small networks
more than the kernel itself. State is kept as torch's optimisers name it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Final, Protocol

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


class Update(Protocol):
    """Changes the parameters it is bound to by their gradients, which lie in memory as they do."""

    def __call__(self, gradients: list[Tensor], *, lr: float) -> object: ...


def bind_update(
    config: OptimisationConfig, parameters: list[Tensor], first: list[Tensor], second: list[Tensor], step: Tensor
) -> Update:
    """An optimiser's update with everything but gradients and rate bound: at 64 members a step, what Python does for a
    member counts. `step` is the number of the step that is taken, a float32 scalar."""
    match config.optimizer:
        case "adamw" | "adam":
            return partial(
                torch._fused_adamw_ if config.optimizer == "adamw" else torch._fused_adam_,
                parameters, exp_avgs=first, exp_avg_sqs=second, max_exp_avg_sqs=[],
                state_steps=[step] * len(parameters), beta1=config.momentum, beta2=config.beta2,
                weight_decay=config.weight_decay, eps=config.eps,
                amsgrad=False, maximize=False,
            )  # fmt: skip
        case "sgd":
            # The first step needs no case of its own: with no dampening, a buffer of zeros becomes the gradient.
            return partial(
                torch._fused_sgd_, parameters, momentum_buffer_list=first if config.momentum else [],
                weight_decay=config.weight_decay, momentum=config.momentum, dampening=0.0,
                nesterov=config.momentum > 0, maximize=False, is_first_step=False,
            )  # fmt: skip
        case "rmsprop":
            return partial(_rmsprop, config, parameters, first, second)


def _rmsprop(
    config: OptimisationConfig,
    parameters: list[Tensor],
    squares: list[Tensor],
    momenta: list[Tensor],
    gradients: list[Tensor],
    *,
    lr: float,
) -> None:
    """torch.optim.RMSprop's update, not centred."""
    for parameter, square, momentum, gradient in zip(parameters, squares, momenta, gradients, strict=True):
        if config.weight_decay:
            gradient = gradient.add(parameter, alpha=config.weight_decay)
        square.mul_(config.beta2).addcmul_(gradient, gradient, value=1 - config.beta2)
        root = square.sqrt().add_(config.eps)
        if config.momentum:
            momentum.mul_(config.momentum).addcdiv_(gradient, root)
            parameter.add_(momentum, alpha=-lr)
        else:
            parameter.addcdiv_(gradient, root, value=-lr)


class ModuleOptimizer:
    """One optimiser for the parameters of one module."""

    def __init__(self, parameters: Sequence[Tensor], config: OptimisationConfig) -> None:
        self._config = config
        self._parameters = list(parameters)
        self._first = [torch.zeros_like(p) for p in self._parameters]
        self._second = [torch.zeros_like(p) for p in self._parameters]
        self._step = torch.zeros((), device=self._parameters[0].device, dtype=torch.float32)
        self._update = bind_update(config, self._parameters, self._first, self._second, self._step)

    @torch.no_grad()
    def step(self, lr: float) -> None:
        """Update the parameters by their gradients; one without has a gradient of 0."""
        self._step += 1
        self._update([torch.zeros_like(p) if p.grad is None else p.grad for p in self._parameters], lr=lr)

    def state(self) -> dict[str, Tensor]:
        """Copies on the CPU as ``<parameter's index>.<torch's name>``; empty before the first step."""
        if int(self._step) == 0:
            return {}
        state: dict[str, Tensor] = {}
        for slot, values in self._slots().items():
            state |= {f"{i}.{slot}": value.cpu().clone() for i, value in enumerate(values)}
        if self._config.optimizer in STEPPED:
            state |= {f"{i}.step": self._step.cpu().clone() for i in range(len(self._parameters))}
        return state

    def load_state(self, state: Mapping[str, Tensor], taken: int) -> None:
        """Go on from a `state` after so many steps."""
        self._step.fill_(taken)
        for slot, values in self._slots().items():
            for i, value in enumerate(values):
                if f"{i}.{slot}" in state:
                    value.copy_(state[f"{i}.{slot}"])

    def _slots(self) -> dict[str, list[Tensor]]:
        return {
            name: values
            for name, values in zip(SLOTS[self._config.optimizer], (self._first, self._second), strict=False)
            if name != "momentum_buffer" or self._config.momentum
        }
