"""What one trial trains: a family's config, how it is optimised, and the settings all trials of a search share."""

from __future__ import annotations

import hashlib
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, SerializeAsAny, model_validator

from pipeline.models import FAMILIES
from pipeline.models.base import ModelConfig

OptimizerName = Literal["adamw", "adam", "rmsprop", "sgd"]
ScheduleName = Literal["constant", "cosine", "one_cycle", "step"]
LossName = Literal["cross_entropy", "focal", "mse", "huber", "mae"]


class OptimisationConfig(BaseModel):
    """How a model is trained. Learning rates are those of the peak of the schedule."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    optimizer: OptimizerName = "adamw"
    lr: Annotated[float, Field(gt=0, le=10)] = 1e-3
    weight_decay: Annotated[float, Field(ge=0, le=1)] = 1e-4
    """AdamW: decoupled decay. The others: L2, added to the gradient. Biases and normalisation gains decay too, as with
    torch's optimisers on ``module.parameters()``."""
    l1: Annotated[float, Field(ge=0, le=1)] = 0.0
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    """SGD and RMSprop: momentum. Adam and AdamW: beta_1."""
    beta2: Annotated[float, Field(gt=0, lt=1)] = 0.999
    """Adam and AdamW: beta_2. RMSprop: alpha. SGD: unused."""
    eps: Annotated[float, Field(gt=0, le=1)] = 1e-8
    """Adam, AdamW and RMSprop: added to the root of the second moment. SGD: unused."""
    schedule: ScheduleName = "constant"
    warmup: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of all steps in which the rate rises linearly from zero."""
    batch_size: Annotated[int, Field(ge=1, le=1_000_000)] = 128
    loss: LossName = "cross_entropy"
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    class_weight_power: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Rows weigh by how rare their class is: ``(rows / (classes * rows of it)) ** power``. 0: all alike; 1: every
    class has the same weight in total, as scikit-learn's ``balanced``."""
    clip_norm: Annotated[float | None, Field(gt=0)] = None
    """Largest Euclidean norm of the whole gradient; None does not clip."""


class AugmentationConfig(BaseModel):
    """How training images are changed at random (see `pipeline.training.augmentation`); nothing by default."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    flip: Literal["none", "horizontal"] = "none"
    """horizontal: half of the images are mirrored, left to right."""
    shift: Annotated[int, Field(ge=0, le=256)] = 0
    """Most pixels by which an image is moved along each axis."""
    cutout: Annotated[int, Field(ge=0, le=4096)] = 0
    """Side of the square that is covered, in pixels."""
    mixup: Annotated[float, Field(ge=0, le=10)] = 0.0
    """alpha of the Beta distribution of the shares in which pairs of rows are mixed; 0 does not mix."""


class TrialConfig(BaseModel):
    """All that decides one trial's result, next to the data and the search's `TrainSettings`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    family: str
    model: SerializeAsAny[ModelConfig]
    optimisation: OptimisationConfig
    augmentation: AugmentationConfig = AugmentationConfig()
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0

    @model_validator(mode="before")
    @classmethod
    def _typed_model(cls, data: Any) -> Any:
        if isinstance(data, dict) and isinstance(data.get("model"), dict):
            family = FAMILIES.get(data.get("family", ""))
            if family is None:
                raise ValueError(f"family must be one of {', '.join(FAMILIES)}, but got {data.get('family')!r}")
            return {**data, "model": family.config.model_validate(data["model"])}
        return data

    @property
    def digest(self) -> str:
        """sha256 of the config without its seed: equal digests are the same point of the search space."""
        return hashlib.sha256(self.model_dump_json(exclude={"seed"}).encode()).hexdigest()


class TrainSettings(BaseModel):
    """What all trials of one search share."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    metric: str
    max_epochs: Annotated[int, Field(ge=1, le=100_000)] = 100
    patience: Annotated[int, Field(ge=1)] = 10
    """Epochs without a better validation metric after which a trial stops by itself."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """auto: bf16 autocast on GPUs that have it, else fp32."""
    deterministic: bool = False
    checkpoint_every: Annotated[float, Field(ge=0)] = 1.0
    """Seconds of training after which the next epoch's end is checkpointed: what a kill can cost, next to one epoch."""
