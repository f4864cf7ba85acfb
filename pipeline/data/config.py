"""The ``data:`` block of an experiment file."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from pipeline.data.spec import Kind, Task

SplitBy = Literal["auto", "random", "stratified", "group", "time", "kfold"]
ColumnType = Literal["numeric", "categorical", "datetime", "text", "drop"]


def _as_text(value: object) -> object:
    """Column names are text, but YAML reads a header such as ``2020`` as a number."""
    return str(value) if isinstance(value, int | float) and not isinstance(value, bool) else value


ColumnName = Annotated[str, BeforeValidator(_as_text), Field(min_length=1)]


class SplitConfig(BaseModel):
    """How rows are divided into a training, a validation and a sealed test part."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    by: SplitBy = "auto"
    """auto: stratified for classes, random for regression, kfold where the validation part would be small. group: no
    value of `column` is in two parts. time: the last rows by `column` are the test, those before them the validation
    part. kfold: every trial is cross-validated on the rows that are not the test; with `column` its values stay
    together. Forecasts are divided by time (auto, time) or in folds that walk forward (kfold)."""
    validation: Annotated[float, Field(gt=0, lt=1)] = 0.2
    """Share of all rows of ``data.source``; not used by kfold."""
    test: Annotated[float, Field(gt=0, lt=1)] = 0.2
    """Share of all rows of ``data.source``; not used where ``data.test`` names a file."""
    folds: Annotated[int, Field(ge=2, le=20)] = 5
    """How many, by kfold. Each trial trains once a fold and once on all rows."""
    column: ColumnName | None = None
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0

    @model_validator(mode="after")
    def _possible(self) -> SplitConfig:
        if self.validation + self.test >= 1:
            raise ValueError(
                f"validation + test must be < 1 so that rows are left to train on, but got "
                f"{self.validation:g} + {self.test:g}"
            )
        if self.by == "group" and self.column is None:
            raise ValueError("a split by group needs `column`, but it is null; name the group column")
        if self.by not in ("group", "time", "kfold") and self.column is not None:
            raise ValueError(
                f"`column` is used by group, time and kfold splits only, but got by={self.by}; set `by` to one"
            )
        return self


class ForecastConfig(BaseModel):
    """How rows over time become windows: `context` steps of a series in, `horizon` steps ahead out. A table has a row a
    step (and series), a time column and the target; numeric columns beside them are known in the past only."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    time: ColumnName | None = None
    """The column of times: dates, or numbers at equal distances. null: the only column of dates."""
    series: ColumnName | None = None
    """The column that tells several series apart. null: the rows are one series."""
    horizon: Literal["auto"] | Annotated[int, Field(ge=1, le=10_000)] = "auto"
    """Steps ahead that are predicted at once. auto: a season, or one step where there is none."""
    context: Literal["auto"] | Annotated[int, Field(ge=1, le=100_000)] = "auto"
    """Steps of the past that a prediction is made from. auto: two horizons, or a season and a horizon where that is
    more, 16 at least; less where the data is short."""
    season: Literal["auto"] | Annotated[int, Field(ge=1, le=100_000)] = "auto"
    """Steps after which values come again: models predict the difference to the value one season ago, and the seasonal
    naive forecast, which is that value, is what they are measured against. 1: the last value. auto: of 1 and the
    seasons of the calendar (24 hours, 7 days, 12 months, …) the one whose naive forecast is best on the training
    part."""
    covariates: Literal["auto"] | tuple[ColumnName, ...] = "auto"
    """Columns that are read beside the target, over the context. auto: all numeric ones; []: none."""
    fill: Annotated[int, Field(ge=0, le=100_000)] = 0
    """Missing steps in a row that are filled with the values before them. Windows do not reach over longer gaps."""


class DataConfig(BaseModel):
    """Where the data is and how it is to be read."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    source: Annotated[str, Field(min_length=1)]
    """A file, a folder of class folders of images, ``sklearn:NAME``, ``openml:NUMBER`` or ``python:module:function``,
    which runs the function; paths and modules start from the current folder."""
    target: ColumnName | None = None
    """The column to predict, or the array of an npz file. Formats that carry their own labels need none."""
    kind: Literal["auto"] | Kind = "auto"
    task: Literal["auto"] | Task = "auto"
    test: Annotated[str, Field(min_length=1)] | None = None
    """A separate test file or folder; all of it is the sealed test."""
    split: SplitConfig = SplitConfig()
    types: dict[ColumnName, ColumnType] = Field(default_factory=dict)
    """Column types that are not left to inference, by column name."""
    forecast: ForecastConfig | None = None
    """Of ``kind: forecast`` only."""

    @model_validator(mode="after")
    def _target_is_no_feature(self) -> DataConfig:
        if self.target is not None and self.target in self.types:
            raise ValueError(f"`types` is about feature columns, but got the target {self.target!r}; use `task` for it")
        return self

    @model_validator(mode="after")
    def _split_by_time(self) -> DataConfig:
        """Rows are divided by a column that is named, windows by the times that they are made of."""
        if self.kind != "forecast":
            if self.split.by == "time" and self.split.column is None:
                raise ValueError("a split by time needs `column`, but it is null; name the time column")
            if self.forecast is not None or self.task == "forecast":
                raise ValueError(f"forecasts need `kind: forecast`, but got kind={self.kind}; set it")
            return self
        if self.task not in ("auto", "forecast"):
            raise ValueError(f"the task of `kind: forecast` is forecast, but got task={self.task}; set it to auto")
        if self.target is None:
            raise ValueError("`kind: forecast` needs `target`, the column to predict, but it is null; name it")
        if self.split.by not in ("auto", "time", "kfold") or self.split.column is not None:
            how = f"by={self.split.by}" if self.split.column is None else f"column={self.split.column}"
            raise ValueError(
                f"the windows of a forecast are divided by their times only, but got split.{how}: others would let "
                "training see what the test is to predict; set split.by to time, or kfold for folds that walk forward"
            )
        if self.types:
            raise ValueError("`types` is not used by forecasts; name the columns in `forecast.covariates`")
        return self

    @property
    def forecasting(self) -> ForecastConfig:
        """The forecast's settings, its defaults where the file has none."""
        return self.forecast or ForecastConfig()
