"""What a trial says of itself: one `Measurement` an epoch, one `Outcome` at its end."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict

State = Literal["COMPLETE", "PRUNED", "FAIL"]


class Measurement(BaseModel):
    """One epoch of one trial. Epochs count from 1. `metrics` are of the validation part, by name."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    trial: int
    epoch: int
    train_loss: float
    val_loss: float
    metrics: dict[str, float]
    seconds: float
    """The trial's fair share of training time so far, in seconds."""
    standard_error: float | None = None
    """Of the objective, over the folds; None without cross-validation."""


class Outcome(BaseModel):
    """How a trial ended inside its worker."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    trial: int
    state: State
    best_epoch: int | None = None
    n_params: int = 0
    seconds: float = 0.0
    peak_mb: float = 0.0
    """Peak memory in MiB: of the device where training ran on one, else of the worker process."""
    error: str | None = None
    """The reason, in one line, where state is FAIL."""
    traceback: str | None = None
