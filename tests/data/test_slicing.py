"""Rows are divided by what training rows were like: every row is in one slice of each column, and no bin knows the
test."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from pipeline.data.config import DataConfig
from pipeline.data.prepare import prepare
from pipeline.data.slicing import Slicing, fit_slicing

TRAIN = pd.DataFrame({
    "age": [10.0, 20, 30, 40, None, 10, 20, 30, 40, 40],
    "gain": [0.0] * 9 + [5.0],
    "town": ["Lyon", "Lyon", "Porto", None, "Lyon", "Porto", "Bonn", "Lyon", "Lyon", "Lyon"],
    "grade": ["1", "2", "1.0", "02", "1", "2", "1", "2", "1", "2"],
    "day": ["2024-01-01", "2024-02-01", "2024-03-01", "2024-04-01", "2024-01-01"] * 2,
    "note": ["some words of prose"] * 10,
    "key": [f"k{n}" for n in range(10)],
    "sex": ["f", "m"] * 5,
    "size": [float(n) for n in range(10)],
})  # fmt: skip
SCHEMA = {"age": "numeric", "gain": "numeric", "town": "categorical", "grade": "categorical", "day": "datetime",
          "note": "text"}  # fmt: skip


def sizes(slicing: Slicing, features: object, codes: list[int] | None = None) -> dict[str, dict[str, int]]:
    """Rows by column and slice, those that have some."""
    found: dict[str, dict[str, int]] = {}
    for level in slicing.divide(features, None if codes is None else np.array(codes)):  # type: ignore[arg-type]
        if level.rows.any():
            found.setdefault(level.column, {})[level.name] = int(level.rows.sum())
    return found


def test_columns_are_divided_by_their_levels_or_training_quartiles_and_missing_values() -> None:
    slicing = fit_slicing(TRAIN, SCHEMA, "buys", ("no", "yes"))
    found = sizes(slicing, TRAIN, [0] * 7 + [1] * 3)
    assert found["age"] == {"<= 20": 4, "20 to 30": 2, "> 30": 3, "missing": 1}
    assert found["gain"] == {"<= 0": 9, "> 0": 1}
    assert found["town"] == {"Lyon": 6, "Porto": 2, "Bonn": 1, "missing": 1}
    assert found["grade"] == {"1": 5, "2": 5}, "1, 1.0 and 01 are one level"
    assert found["day"] == {"<= 2024-01-01": 4, "2024-01-01 to 2024-02-01": 2, "2024-02-01 to 2024-03-01": 2,
                            "> 2024-03-01": 2}  # fmt: skip
    assert found["buys"] == {"no": 7, "yes": 3}
    assert "note" not in found


def test_columns_that_no_model_sees_are_divided_where_they_have_few_levels_or_the_file_names_them() -> None:
    assert "sex" in fit_slicing(TRAIN, SCHEMA, "buys", ()).columns
    many = pd.concat([TRAIN] * 3, ignore_index=True).assign(size=np.arange(30.0), key=[f"k{n}" for n in range(30)])
    unasked = fit_slicing(many, SCHEMA, "buys", ()).columns
    assert "size" not in unasked
    assert "key" not in unasked
    asked = fit_slicing(many, SCHEMA, "buys", (), asked={"size", "key"}).columns
    assert "size" in asked
    assert "key" not in asked, "a level a row is no slice"


def test_new_rows_fall_where_training_put_the_borders() -> None:
    slicing = fit_slicing(TRAIN, SCHEMA, "buys", ())
    new = pd.DataFrame({"age": [1000.0, -5.0], "town": ["Rome", "Lyon"], "grade": ["1.00", "7"]})
    found = sizes(slicing, new)
    assert found["age"] == {"> 30": 1, "<= 20": 1}
    assert found["town"] == {"other levels": 1, "Lyon": 1}
    assert found["grade"] == {"1": 1, "other levels": 1}
    assert "gain" not in found, "a column that the rows lack has no slices"


def test_sequences_are_divided_by_length_and_images_by_class_only() -> None:
    series = [np.zeros((n, 2), dtype=np.float32) for n in (3, 4, 5, 6, 7, 8, 9, 10)]
    by_length = fit_slicing(series, {}, "class", ("a", "b"))
    assert by_length.columns == ("length", "class")
    assert sizes(by_length, series, [0, 1] * 4)["length"] == {"<= 4": 2, "4 to 6": 2, "6 to 8": 2, "> 8": 2}
    assert fit_slicing(series[:1] * 5, {}, "class", ()).columns == (), "all are as long"
    images = fit_slicing(np.zeros((4, 1, 2, 2)), {}, "class", ("a", "b"))
    assert images.columns == ("class",)


def test_prepared_data_keeps_how_its_training_rows_are_divided(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    frame = pd.DataFrame({"x": generator.normal(size=400), "sex": generator.choice(["f", "m"], 400)})
    frame["y"] = np.where(frame["x"] > 0, "yes", "no")
    frame.to_csv(tmp_path / "t.csv", index=False)
    config = DataConfig.model_validate({"source": "t.csv", "target": "y", "types": {"sex": "drop"}})
    prepared = prepare(config, tmp_path, tmp_path / "store")
    slicing = prepared.slicing()
    assert slicing.columns == ("x", "sex", "y")
    assert "sex" not in prepared.schema
    (tmp_path / "other.csv").write_text((tmp_path / "t.csv").read_text())
    again = prepare(config.model_copy(update={"source": "other.csv"}), tmp_path, tmp_path / "elsewhere").slicing()
    assert again == slicing
