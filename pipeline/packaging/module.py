"""A config's module: for real, or as bare shapes."""

from __future__ import annotations

import torch

from pipeline.data.spec import DataSpec
from pipeline.models import FAMILIES
from pipeline.models.base import Model
from pipeline.models.outline import outline
from pipeline.training.config import TrialConfig


def build(config: TrialConfig, spec: DataSpec) -> Model:
    """The untrained module on the CPU. Torch's random state is left as it was."""
    with torch.random.fork_rng(devices=[]):
        model: Model = FAMILIES[config.family].build(config.model, spec)
    return model


def shapes(config: TrialConfig, spec: DataSpec) -> dict[str, tuple[torch.Size, torch.dtype]]:
    """Name, shape and type of every tensor in the module's state, without memory for a single one."""
    model = outline(FAMILIES[config.family], config.model, spec)
    return {name: (tensor.shape, tensor.dtype) for name, tensor in model.state_dict().items()}
