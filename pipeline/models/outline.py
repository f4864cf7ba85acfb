"""A module's shapes without its memory: built on the meta device, nothing drawn."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import torch
from torch.overrides import TorchFunctionMode

from pipeline.data.spec import DataSpec
from pipeline.models.base import Family, Model, ModelConfig

_DRAWS: Final = frozenset(
    {"normal_", "uniform_", "kaiming_normal_", "kaiming_uniform_", "xavier_normal_", "xavier_uniform_", "orthogonal_"}
)
"""Tensor methods and functions of torch.nn.init that draw into their first argument."""


class _DrawNothing(TorchFunctionMode):
    """On the meta device torch draws through its compiler, whose import takes a second or more. Nothing is to be
    drawn."""

    def __torch_function__(
        self, function: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        named = kwargs or {}
        name = getattr(function, "__name__", "")
        if name in _DRAWS:
            return args[0] if args else named["tensor"]
        return torch.empty(*args, **named) if name == "randn" else function(*args, **named)


def outline(family: Family[Any], config: ModelConfig, spec: DataSpec) -> Model:
    """The module of a config on the meta device: names, shapes and types, no values."""
    with torch.device("meta"), _DrawNothing():
        model: Model = family.build(config, spec)
    return model
