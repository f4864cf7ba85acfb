"""Optimisers over a flat ``(K, P)`` buffer: row k is member k's parameters, with learning rate and all else of its own.

One fused kernel a row was 2.2 to 3.5 times faster than elementwise operations with ``(K, 1)`` hyperparameters. State is
kept as torch's own optimisers name it, so that a member can go on alone.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from pipeline.training.config import OptimisationConfig
from pipeline.training.updates import SLOTS, bind_update


class RowOptimizer:
    """Steps every row of a buffer with its own optimiser.

    Shape:
        parameters, gradients: ``(K, P)``, the same memory over the object's life.
    """

    def __init__(self, configs: Sequence[OptimisationConfig], parameters: Tensor, gradients: Tensor) -> None:
        self._optimizers = [config.optimizer for config in configs]
        # Two state buffers serve every optimiser; a row uses as many as its optimiser has.
        self._first = torch.zeros_like(parameters)
        self._second = torch.zeros_like(parameters)
        self.steps = torch.zeros(len(configs), dtype=torch.float32, device=parameters.device)
        """Steps that each row has taken, ``(K,)``."""
        self._gradients = [[row] for row in gradients]
        self._updates = [
            bind_update(config, [parameters[k]], [self._first[k]], [self._second[k]], self.steps[k])
            for k, config in enumerate(configs)
        ]

    def slots(self, member: int) -> dict[str, Tensor]:
        """A member's state rows ``(P,)`` by torch's names."""
        return dict(zip(SLOTS[self._optimizers[member]], (self._first[member], self._second[member]), strict=False))

    @torch.no_grad()
    def step(self, rates: Sequence[float]) -> None:
        """Update every row with its gradient, row k with learning rate ``rates[k]``."""
        self.steps += 1
        for update, gradient, rate in zip(self._updates, self._gradients, rates, strict=True):
            update(gradient, lr=rate)
