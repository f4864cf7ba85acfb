"""What the data is: the task its target asks for, and the type of every column. Every conclusion says why."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd

from pipeline.data.config import ColumnType
from pipeline.data.dataset import Dataset, Rows
from pipeline.data.findings import Finding
from pipeline.data.spec import Kind, Label, Task
from pipeline.data.times import stamps, time_format
from pipeline.data.values import number_texts, numbers, texts
from pipeline.errors import DataError

MIN_ROWS: Final = 10
"""Fewer rows cannot be divided into three parts that mean anything."""
MAX_CODED_CLASSES: Final = 20
"""A table's target of whole numbers is classes up to so many distinct values, and a quantity above."""
MIN_ROWS_A_CLASS: Final = 5
"""... and only with so many rows for each of them on average."""
NUMERIC_SHARE: Final = 0.9
"""A text column is numeric when at least this share of its present values are numbers."""
TEXT_SHARE: Final = 0.95
"""A text column with more distinct values than this share of its present ones identifies rows."""
PROSE_SHARE: Final = 0.5
"""A column of free text has more distinct values than this share of its present ones ..."""
PROSE_WORDS: Final = 3
"""... and at least so many words in its median value."""
WORD: Final = r"\b\w\w+\b"


@dataclass(frozen=True, slots=True)
class Target:
    """What is predicted. `labels` are sorted, in their JSON type; empty for regression."""

    task: Task
    labels: tuple[Label, ...]
    findings: tuple[Finding, ...]


def infer_target(raw: npt.NDArray[Any], name: str, kind: Kind, task: Literal["auto"] | Task) -> Target:
    """Settle the task and the labels.

    Raises:
        DataError: too few rows, one class, a class a row, or a task that the values do not fit.
    """
    if len(raw) < MIN_ROWS:
        raise DataError(f"a data set must have >= {MIN_ROWS} rows with a target, but has {len(raw)}", "add rows")
    text = texts(raw)
    labels = _labels(text.unique().tolist(), raw)
    n_distinct, n_rows = len(labels), len(raw)
    if n_distinct < 2:
        raise DataError(
            f"the target {name!r} must have 2 or more distinct values, but all {n_rows} rows have {labels[0]!r}",
            "choose another target or add rows",
        )
    inferred, reason = _task_of(labels, n_rows, kind)
    settled = inferred if task == "auto" else task
    if task == "auto":
        _refuse_almost_numbers(labels, name)
    findings = [Finding(severity="info", subject=name, message=f"{reason}: {settled}")] if task == "auto" else []
    if settled == "regression":
        if any(isinstance(label, str) for label in labels):
            example = next(label for label in labels if isinstance(label, str))
            raise DataError(
                f"a regression target must be numbers, but {name!r} has the value {example!r}",
                "fix the value, or set data.task to multiclass",
            )
        return Target("regression", (), tuple(findings))
    if settled == "binary" and n_distinct != 2:
        raise DataError(
            f"a binary target must have 2 distinct values, but {name!r} has {n_distinct}", "set data.task to multiclass"
        )
    if settled == "multiclass" and n_distinct == 2:
        raise DataError(
            f"a multiclass target must have 3 or more values, but {name!r} has 2", "set data.task to binary"
        )
    if n_distinct > n_rows / 2:
        raise DataError(
            f"the target {name!r} has {n_distinct} classes in {n_rows} rows, so that most occur once",
            "choose another target, or group its values",
        )
    stripped = _n_stripped(raw)
    if stripped:
        findings.append(
            Finding(
                severity="warning",
                subject=name,
                message=f"{stripped} labels had blanks around them, which were removed",
                remedy="remove them in the file",
                check="labels",
            )
        )
    return Target(settled, labels, tuple(findings))


def _labels(distinct: list[str], raw: npt.NDArray[Any]) -> tuple[Label, ...]:
    """Distinct target values in the narrowest JSON type that holds all of them, sorted."""
    if raw.dtype == bool or {text.lower() for text in distinct} == {"true", "false"}:
        return tuple(sorted({text.lower() == "true" for text in distinct}))
    values = numbers(np.array(distinct, dtype=object))
    if np.isnan(values).any():
        return tuple(sorted(distinct))
    if all(value.is_integer() and abs(value) < 2**53 for value in values.tolist()):
        return tuple(sorted({int(value) for value in values.tolist()}))
    return tuple(sorted(set(values.tolist())))


def _task_of(labels: tuple[Label, ...], n_rows: int, kind: Kind) -> tuple[Task, str]:
    """The task, and the reason for it in words."""
    n = len(labels)
    classes: Task = "binary" if n == 2 else "multiclass"
    if isinstance(labels[0], bool | str):
        kinds = "truth values" if isinstance(labels[0], bool) else "strings"
        return classes, f"the target has {n} distinct {kinds}"
    if n == 2:
        return classes, "the target has 2 distinct numbers"
    if isinstance(labels[0], int) and n * MIN_ROWS_A_CLASS <= n_rows:
        if kind != "tabular":
            return classes, f"the target of {kind} data has {n} distinct whole numbers"
        if n <= MAX_CODED_CLASSES:
            return classes, f"the target has {n} (<= {MAX_CODED_CLASSES}) distinct whole numbers"
    return "regression", f"the target has {n} distinct numbers in {n_rows} rows"


def _refuse_almost_numbers(labels: tuple[Label, ...], name: str) -> None:
    """Numbers with a few texts between them would become as many classes: ask instead of guessing."""
    if len(labels) <= MAX_CODED_CLASSES or not isinstance(labels[0], str):
        return
    is_text = np.isnan(numbers(np.array(labels, dtype=object)))
    if is_text.mean() <= 1 - NUMERIC_SHARE:
        raise DataError(
            f"the target {name!r} has numbers, but also {labels[int(np.argmax(is_text))]!r}",
            "correct the value, or set data.task to multiclass if the numbers are codes",
        )


def _n_stripped(raw: npt.NDArray[Any]) -> int:
    if raw.dtype.kind in "biuf":
        return 0
    text = pd.Series(raw).astype("str")
    return int((text != text.str.strip()).sum())


def infer_columns(
    frame: pd.DataFrame, rows: Rows, overrides: Mapping[str, ColumnType]
) -> tuple[dict[str, ColumnType], tuple[Finding, ...]]:
    """The type of every column, from the training rows.

    Args:
        rows: where the training rows stand in the source; a column that counts them is no feature.
        overrides: types that the user has settled.

    Raises:
        DataError: an override of a column that does not exist, or no column left to learn from.
    """
    unknown = [name for name in overrides if name not in frame.columns]
    if unknown:
        known = ", ".join(str(name) for name in frame.columns[:20])
        raise DataError(f"`data.types` names a column {unknown[0]!r} that the data does not have", f"columns: {known}")
    types: dict[str, ColumnType] = {}
    findings: list[Finding] = []
    for name, column in frame.items():
        key = str(name)
        types[key], finding = (overrides[key], None) if key in overrides else _type_of(key, column, rows)
        findings += [finding] if finding is not None else []
    if all(kind == "drop" for kind in types.values()):
        reasons = "; ".join(f"{finding.subject}: {finding.message}" for finding in findings[:5])
        raise DataError(f"no column is left to learn from ({reasons})", "add features, or set data.types")
    return types, tuple(findings)


def only_text(data: Dataset, types: Mapping[str, ColumnType]) -> Dataset:
    """Rows of texts with the column of their texts only: the one that `types` calls text, the only one there is, or the
    only one of free text.

    Raises:
        DataError: there is no such column, or more than one.
    """
    frame = data.features
    assert isinstance(frame, pd.DataFrame), "texts stand in a table"
    named = [name for name in frame.columns if types.get(str(name)) == "text"]
    candidates = named or [str(name) for name in frame.columns if str(name) not in types]
    if len(candidates) > 1 and not named:
        rows = np.arange(len(frame))
        candidates = [name for name in candidates if _type_of(name, frame[name], rows)[0] == "text"]
    if len(candidates) != 1:
        columns = ", ".join(map(repr, list(frame.columns)[:10]))
        raise DataError(
            f"texts must stand in one column, but {len(candidates)} of {columns} look like them",
            "set data.types: {COLUMN: text}, or data.kind: tabular to use several columns",
        )
    others = [str(name) for name in frame.columns if name != candidates[0]]
    findings = tuple(
        Finding(severity="warning", subject=name, message="is no part of the text: left out", check="columns")
        for name in others
    )
    return replace(data, features=frame[candidates], findings=(*data.findings, *findings))


def _type_of(name: str, column: pd.Series, rows: Rows) -> tuple[ColumnType, Finding | None]:
    if column.dtype.kind in "iuf" and not np.isinf(column.to_numpy()).any():
        return _type_of_numbers(name, column, rows)
    text = texts(column)
    present = text.dropna()
    n_present, n_distinct = len(present), present.nunique()
    if n_present == 0:
        return "drop", _dropped(name, "has no values")
    if n_distinct == 1 and n_present == len(text):
        return "drop", _dropped(name, f"is always {present.iloc[0]!r}")
    if column.dtype == bool or set(present.str.lower().unique()) <= {"true", "false"}:
        return "categorical", None
    values = numbers(column)
    n_numbers = int(np.isfinite(values).sum())
    if n_numbers >= NUMERIC_SHARE * n_present:
        if _counts_rows(values, rows):
            return "drop", _dropped(name, "counts the rows")
        if n_numbers < n_present:
            odd = present[np.isnan(values[present.index])].unique()[:3]
            return "numeric", Finding(
                severity="warning",
                subject=name,
                message=f"{n_present - n_numbers} of {n_present} values are no finite numbers "
                f"({', '.join(map(repr, odd))}) and count as missing",
                remedy=f"correct them, or set data.types.{name}: categorical",
                check="values",
            )
        return "numeric", None
    format_ = time_format(column)
    if format_ is not None:
        return "datetime", _dates(name, column, format_)
    if _is_prose(present, n_distinct):
        return "text", Finding(
            severity="info",
            subject=name,
            message="is free text: words are hashed",
            remedy=f"set data.types.{name} to categorical or drop for another use of it",
        )
    if n_distinct > TEXT_SHARE * n_present and n_present >= 10:
        return "drop", _dropped(name, f"has {n_distinct} distinct texts in {n_present} rows, so it identifies rows")
    return "categorical", None


def _type_of_numbers(name: str, column: pd.Series, rows: Rows) -> tuple[ColumnType, Finding | None]:
    """As `_type_of`, for a column of finite or missing numbers: writing them as text would take longest of all."""
    values = numbers(column)
    present = values[~np.isnan(values)]
    if len(present) == 0:
        return "drop", _dropped(name, "has no values")
    if len(present) == len(values) and present.min() == present.max():
        return "drop", _dropped(name, f"is always {number_texts(present[:1]).iloc[0]!r}")
    return ("drop", _dropped(name, "counts the rows")) if _counts_rows(values, rows) else ("numeric", None)


def _dates(name: str, column: pd.Series, format_: str) -> Finding:
    """How the dates are read, and how many are none."""
    shown = "ISO 8601" if format_ == "ISO8601" else format_
    n_bad = int(np.isnan(stamps(column, format_)).sum()) - int(texts(column).isna().sum())
    if n_bad:
        return Finding(
            severity="warning",
            subject=name,
            message=f"is read as dates ({shown}); {n_bad} values are none and count as missing",
            remedy=f"correct them, or set data.types.{name}",
            check="values",
        )
    return Finding(severity="info", subject=name, message=f"is read as dates ({shown})")


def _is_prose(present: pd.Series, n_distinct: int) -> bool:
    """Whether most values are texts of several words, and most of them different."""
    if len(present) < 10 or n_distinct < PROSE_SHARE * len(present):
        return False
    sample = present.iloc[np.linspace(0, len(present) - 1, min(len(present), 1000)).astype(int)]
    return bool(sample.str.slice(0, 1000).str.count(WORD).median() >= PROSE_WORDS)


def _counts_rows(values: npt.NDArray[np.float64], rows: Rows) -> bool:
    """Whether the values are whole numbers that grow with every row, no faster than twice as fast as the rows."""
    if len(values) < 10 or np.isnan(values).any() or (values != np.floor(values)).any():
        return False
    in_order = values[np.argsort(rows)]
    return bool((np.diff(in_order) > 0).all()) and in_order[-1] - in_order[0] <= 2 * (rows.max() - rows.min())


def _dropped(name: str, why: str) -> Finding:
    return Finding(
        severity="warning",
        subject=name,
        message=f"{why}: not used",
        remedy=f"set data.types.{name} to use it anyway",
        check="columns",
    )
