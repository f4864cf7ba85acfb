"""The contract of a model family: a frozen config, a function that builds a module from it, and good defaults.

A new family is a file like `mlp.py` with a ``FAMILY``, a line in `pipeline.models`, a space in `search_spaces` and a
line there; the contract tests pick it up by themselves.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from torch import Tensor, nn

from pipeline.data.spec import DataSpec, Kind
from pipeline.data.tensors import Inputs
from pipeline.models.config import ModelConfig as ModelConfig
from pipeline.models.stack import Stack


class Model(nn.Module):
    """A module from `Inputs` to ``(B, n_outputs)``: logits for classes, one standardised value for regression,
    one a step of the horizon for forecasts."""

    def forward(self, inputs: Inputs) -> Tensor:
        """Raises NotImplementedError in this base class: every family overrides it."""
        raise NotImplementedError(f"{type(self).__name__} has no forward")


C = TypeVar("C", bound=ModelConfig)


@dataclass(frozen=True, slots=True)
class Family(Generic[C]):
    """One model family.

    Args:
        name: as in ``search.families`` and in parameter names (``mlp.n_layers``).
        kinds: the kinds of data it accepts.
        config: its frozen config class.
        build: an untrained module; parameters are drawn from torch's global generator, so seed it first.
        default: the strong default for a data set, tried before anything is sampled.
        stack: how K members train as one computation; None where a family trains one at a time.
    """

    name: str
    kinds: frozenset[Kind]
    config: type[C]
    build: Callable[[C, DataSpec], Model]
    default: Callable[[DataSpec], C]
    stack: Stack[C] | None = None
