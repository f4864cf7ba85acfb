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
    together."""
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
        if self.by in ("group", "time") and self.column is None:
            raise ValueError(f"a split by {self.by} needs `column`, but it is null; name the {self.by} column")
        if self.by not in ("group", "time", "kfold") and self.column is not None:
            raise ValueError(
                f"`column` is used by group, time and kfold splits only, but got by={self.by}; set `by` to one"
            )
        return self


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

    @model_validator(mode="after")
    def _target_is_no_feature(self) -> DataConfig:
        if self.target is not None and self.target in self.types:
            raise ValueError(f"`types` is about feature columns, but got the target {self.target!r}; use `task` for it")
        return self
