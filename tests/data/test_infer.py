"""Inference: the task and the column types, with the reason for each."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from pipeline.data.infer import infer_columns, infer_target
from pipeline.data.spec import Kind
from pipeline.errors import DataError

ROWS = np.arange(100)


@pytest.mark.parametrize(
    ("values", "kind", "task", "labels"),
    [
        (["no", "yes"] * 20, "tabular", "binary", ("no", "yes")),
        (["b", "c", "a"] * 10, "tabular", "multiclass", ("a", "b", "c")),
        (["True", "False"] * 10, "tabular", "binary", (False, True)),
        ([True, False] * 10, "tabular", "binary", (False, True)),
        (["1", "2", "10"] * 10, "tabular", "multiclass", (1, 2, 10)),
        ([1.0, 2.0, 3.0] * 10, "tabular", "multiclass", (1, 2, 3)),
        ([0.5, 1.5] * 10, "tabular", "binary", (0.5, 1.5)),
        ([0.5, 1.5, 2.5] * 10, "tabular", "regression", ()),
        (list(range(20)) * 5, "tabular", "multiclass", tuple(range(20))),
        (list(range(21)) * 5, "tabular", "regression", ()),
        (list(range(20)) * 4, "tabular", "regression", ()),
        (list(range(100)) * 5, "image", "multiclass", tuple(range(100))),
    ],
)
def test_the_task_follows_the_values(values: list[Any], kind: Kind, task: str, labels: tuple[Any, ...]) -> None:
    dtype = object if isinstance(values[0], str) else None
    target = infer_target(np.array(values, dtype=dtype), "y", kind, "auto")
    assert (target.task, target.labels) == (task, labels)
    assert [type(label) for label in target.labels] == [type(label) for label in labels]
    assert str(len(set(values))) in target.findings[0].message


def test_a_stated_task_is_kept() -> None:
    values = np.arange(1, 5).repeat(10)
    assert infer_target(values, "y", "tabular", "regression").task == "regression"
    assert infer_target(np.linspace(0, 1, 3).repeat(5), "y", "tabular", "multiclass").labels == (0.0, 0.5, 1.0)


@pytest.mark.parametrize(
    ("values", "task", "message"),
    [
        (["a"] * 20, "auto", "2 or more distinct values, but all 20 rows have 'a'"),
        ([f"k{i}" for i in range(20)], "auto", "20 classes in 20 rows"),
        (["a", "b"] * 4, "auto", ">= 10 rows"),
        (["a", "b"] * 10, "regression", "must be numbers, but 'y' has the value 'a'"),
        (["a", "b"] * 10, "multiclass", "set data.task to binary"),
        (["a", "b", "c"] * 10, "binary", "has 3"),
        ([*map(str, range(99)), "oops"], "auto", "numbers, but also 'oops'"),
    ],
)
def test_targets_that_cannot_be_learned(values: list[str], task: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        infer_target(np.array(values, dtype=object), "y", "tabular", task)


def test_blanks_around_labels_do_not_make_new_classes() -> None:
    target = infer_target(np.array(["a", " a", "b ", "b"] * 5, dtype=object), "y", "tabular", "auto")
    assert target.labels == ("a", "b")
    assert "10 labels had blanks" in target.findings[-1].message


@pytest.mark.parametrize(
    ("values", "expected", "reason"),
    [
        ([f"{i % 7}.5" for i in range(100)], "numeric", None),
        (["a", "b"] * 50, "categorical", None),
        ([True, False] * 50, "categorical", None),
        (["True", "False"] * 50, "categorical", None),
        ([*(str(i * i) for i in range(95)), *["12kg"] * 5], "numeric", "5 of 100 values are no finite numbers"),
        ([*(str(i * i) for i in range(80)), *["12kg"] * 20], "categorical", None),
        ([np.nan] * 100, "drop", "has no values"),
        ([7] * 100, "drop", "is always '7'"),
        ([*[7.0] * 90, *[np.nan] * 10], "numeric", None),
        ([f"id-{i}" for i in range(100)], "drop", "identifies rows"),
        (list(range(1000, 1100)), "drop", "counts the rows"),
        ((np.arange(100) * 37 % 101).tolist(), "numeric", None),
        ((np.arange(100) * 3600 + 1_600_000_000).tolist(), "numeric", None),
    ],
)
def test_column_types_follow_the_values(values: list[Any], expected: str, reason: str | None) -> None:
    frame = pd.DataFrame({"c": values, "other": [1, 2, 3, 4] * 25})
    types, findings = infer_columns(frame, ROWS, {})
    assert types["c"] == expected
    messages = [finding.message for finding in findings if finding.subject == "c"]
    assert messages == [] if reason is None else reason in messages[0]


def test_overrides_settle_a_type_without_a_finding() -> None:
    frame = pd.DataFrame({"id": [f"id-{i}" for i in range(100)], "x": np.arange(100) % 9})
    types, findings = infer_columns(frame, ROWS, {"id": "categorical", "x": "categorical"})
    assert types == {"id": "categorical", "x": "categorical"}
    assert findings == ()
    with pytest.raises(DataError, match="names a column 'idd'"):
        infer_columns(frame, ROWS, {"idd": "drop"})


def test_no_column_left_is_an_error_with_the_reasons() -> None:
    with pytest.raises(DataError, match=r"no column is left to learn from \(c: is always '1'"):
        infer_columns(pd.DataFrame({"c": [1] * 100}), ROWS, {})
