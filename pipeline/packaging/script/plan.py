"""What a search settled, as a script has it: the data, the model, its training, and what was measured."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pipeline.data.spec import Kind, Label, Task
from pipeline.training.config import AugmentationConfig, OptimisationConfig


@dataclass(frozen=True, kw_only=True)
class Columns:
    """The columns of a table that are used, by type."""

    numeric: tuple[str, ...] = ()
    categorical: tuple[str, ...] = ()
    datetime: tuple[tuple[str, str], ...] = ()
    """Name and format."""
    text: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Everything that a training needs besides the data."""

    data: str
    test: str | None
    """A file of its own with the test rows."""
    sha256: tuple[str, ...]
    """Of the files that were trained on: rows are known by their numbers, so they must be these."""
    rows: str
    """The file with the part of every row, beside the script."""
    target: str | None
    features: str | None = None
    """The array with the features, in an archive of arrays."""
    delimiter: str = ","
    encoding: str = "utf-8"
    kind: Kind
    task: Task
    labels: tuple[Label, ...]
    columns: Columns = Columns()
    n_folds: int
    model: Any
    """The config of the model's class."""
    optimisation: OptimisationConfig
    augmentation: AugmentationConfig
    seed: int
    max_epochs: int
    patience: int
    """Epochs without a better validation score after which training ends."""
    n_epochs: int
    """The last epoch: `max_epochs`, unless the search ended the trial earlier."""
    bf16: bool
    metric: str
    calibrated: bool
    """Fit a temperature on the validation part, as the search did."""
    recorded_validation: float
    recorded_test: str
