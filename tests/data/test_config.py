"""The ``data:`` block: defaults, and what it refuses."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from pipeline.data.config import DataConfig, SplitConfig


def test_defaults_are_those_of_the_experiment_file() -> None:
    config = DataConfig(source="a.csv")
    assert config.model_dump() == {
        "source": "a.csv",
        "target": None,
        "kind": "auto",
        "task": "auto",
        "test": None,
        "split": {"by": "auto", "validation": 0.2, "test": 0.2, "folds": 5, "column": None, "seed": 0},
        "types": {},
        "forecast": None,
    }


def test_a_numeric_column_name_is_text() -> None:
    config = DataConfig.model_validate({"source": "a.csv", "target": 2020, "types": {2019: "drop"}})
    assert config.target == "2020"
    assert config.types == {"2019": "drop"}


@pytest.mark.parametrize(
    ("split", "message"),
    [
        ({"validation": 0.0}, "greater than 0"),
        ({"test": 1.0}, "less than 1"),
        ({"validation": 0.5, "test": 0.5}, "validation \\+ test must be < 1"),
        ({"by": "group"}, "needs `column`"),
        ({"by": "random", "column": "a"}, "group, time and kfold splits only"),
        ({"seed": -1}, "greater than or equal to 0"),
        ({"size": 1}, "Extra inputs"),
    ],
)
def test_impossible_splits_are_refused(split: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        SplitConfig.model_validate(split)


def test_a_split_by_time_needs_its_column() -> None:
    with pytest.raises(ValidationError, match="needs `column`"):
        DataConfig.model_validate({"source": "a.csv", "split": {"by": "time"}})


def test_a_type_for_the_target_is_refused() -> None:
    with pytest.raises(ValidationError, match="feature columns"):
        DataConfig.model_validate({"source": "a.csv", "target": "y", "types": {"y": "numeric"}})


def test_unknown_keys_are_refused() -> None:
    with pytest.raises(ValidationError, match="Extra inputs"):
        DataConfig.model_validate({"source": "a.csv", "sauce": "b.csv"})
