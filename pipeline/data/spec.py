"""Kind, task, shapes and labels: what a model has to know of the data. Fitted on training rows, stored with models."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

Kind = Literal["tabular", "image", "sequence", "text", "forecast"]
Task = Literal["binary", "multiclass", "regression", "forecast"]
Label = bool | int | float | str


class DataSpec(BaseModel):
    """Shapes and meanings of one prepared data set.

    Tabular data is `n_numeric` scaled columns and `len(cardinalities)` categorical ones; column j has codes
    ``0 .. cardinalities[j] - 1`` where 0 stands for missing. Levels that the training part did not have get the code
    that it has for rare ones, or 0 where it has none. Images are ``(channels, height, width)``. Sequences
    are at most `n_steps` long in training, with `n_features` values a step. Forecasts are sequences of exactly
    `n_steps` steps, from which `horizon` values are predicted. Texts are at most `n_steps` words long in
    training, with codes from 0 (padding) to ``n_tokens - 1``.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Kind
    task: Task
    n_numeric: Annotated[int, Field(ge=0, le=1_000_000)] = 0
    cardinalities: tuple[Annotated[int, Field(ge=1, le=10_000_000)], ...] = ()
    bins: tuple[tuple[float, ...], ...] = ()
    """Per numeric column the inner and outer edges of its training quantiles, ascending, in scaled units: what a
    piecewise-linear encoding (arXiv 2203.05556) needs. Empty where the kind is not tabular."""
    scales: tuple[tuple[float, ...], ...] = ()
    """Per numeric column its training quantiles, evenly spaced from the smallest to the largest value, less the median
    and over the distance of the quartiles; empty for a column that is no measured number. Empty as a whole where there
    are too many columns."""
    channels: Annotated[int, Field(ge=0, le=4096)] = 0
    height: Annotated[int, Field(ge=0, le=16_384)] = 0
    width: Annotated[int, Field(ge=0, le=16_384)] = 0
    n_steps: Annotated[int, Field(ge=0, le=1_000_000)] = 0
    n_features: Annotated[int, Field(ge=0, le=100_000)] = 0
    n_tokens: Annotated[int, Field(ge=0, le=10_000_000)] = 0
    labels: tuple[Label, ...] = ()
    """Class labels in the order of the model's outputs; empty for quantities."""
    class_counts: tuple[Annotated[int, Field(ge=0)], ...] = ()
    """Training rows of each label; empty for quantities, and where nobody counted."""
    target_mean: float = 0.0
    target_scale: Annotated[float, Field(gt=0)] = 1.0
    """Models of quantities predict ``(target - target_mean) / target_scale``; the target of a forecast is the
    difference to the seasonal naive forecast."""
    horizon: Annotated[int, Field(ge=0, le=10_000)] = 0
    """Steps that are forecast at once; 0 where the task is another."""
    season: Annotated[int, Field(ge=0, le=100_000)] = 0
    """Steps after which the naive forecast repeats the past, from which models predict the difference; 0 where the task
    is another."""
    seasons: tuple[Annotated[int, Field(ge=1, le=100_000)], ...] = ()
    """Further seasons whose naive forecasts a model is measured against; none is longer than `n_steps`."""
    naive_error: Annotated[float, Field(ge=0)] = 0.0
    """Mean absolute difference of training values one season apart: the unit of MASE (Hyndman and Koehler 2006)."""
    n_train: Annotated[int, Field(ge=1)]
    n_validation: Annotated[int, Field(ge=1)]
    n_folds: Annotated[int, Field(ge=0, le=20)] = 0
    """Folds of the cross-validation, whose rows are the training and the validation part at once; 0 without one."""

    @property
    def n_outputs(self) -> int:
        """Width of a model's output: one logit a class, one standardised value, or one a step of the horizon."""
        if self.task == "forecast":
            return self.horizon
        return 1 if self.is_quantity else len(self.labels)

    @property
    def is_quantity(self) -> bool:
        """Whether numbers are predicted, and no classes."""
        return self.task in ("regression", "forecast")

    @property
    def has_steps(self) -> bool:
        """Whether a row is a sequence of steps."""
        return self.kind in ("sequence", "forecast")

    @model_validator(mode="after")
    def _consistent(self) -> DataSpec:
        if self.task == "binary" and len(self.labels) != 2:
            raise ValueError(f"a binary task has 2 labels, but got {len(self.labels)}")
        if self.task == "multiclass" and len(self.labels) < 3:
            raise ValueError(f"a multiclass task has 3 or more labels, but got {len(self.labels)}")
        if self.class_counts and len(self.class_counts) != len(self.labels):
            raise ValueError(f"{len(self.labels)} labels have as many counts, but got {len(self.class_counts)}")
        if self.kind == "tabular" and self.n_numeric + len(self.cardinalities) == 0:
            raise ValueError("tabular data needs at least one column")
        if self.kind == "image" and min(self.channels, self.height, self.width) < 1:
            raise ValueError("images need channels, height and width >= 1")
        if self.has_steps and min(self.n_steps, self.n_features) < 1:
            raise ValueError("sequences need n_steps and n_features >= 1")
        if (self.task == "forecast") != (min(self.horizon, self.season) > 0):
            raise ValueError("forecasts have horizon and season >= 1, other tasks 0")
        if self.kind == "text" and (self.n_steps < 1 or self.n_tokens < 3):
            raise ValueError("texts need n_steps >= 1 and n_tokens >= 3")
        if max((self.season, *self.seasons)) > self.n_steps and self.task == "forecast":
            raise ValueError("no season of a forecast is longer than its n_steps")
        return self
