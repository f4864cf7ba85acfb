"""Dates and prose in tables: formats are found, and what becomes of a value is what a person means by it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pipeline.data.config import DataConfig
from pipeline.data.prepare import prepare
from pipeline.data.preprocess.datetimes import fit_datetime
from pipeline.data.preprocess.words import LEAST_FEATURES, MOST_FEATURES, fit_text
from pipeline.data.times import in_time_order, stamps, time_format
from pipeline.errors import DataError


@pytest.mark.parametrize(
    ("texts", "format_"),
    [
        (["2024-01-31", "2024-02-29T12:00:00+02:00", "2023-12"], "ISO8601"),
        (["31.01.2024", "01.02.2024"], "%d.%m.%Y"),
        (["01/31/2024", "02/01/2024"], "%m/%d/%Y"),
        (["31/01/2024", "01/02/2024"], "%d/%m/%Y"),
        (["Jan 31, 2024", None], "%b %d, %Y"),
        (["20240131", "20240201"], None),
        (["red", "2024-01-01"], None),
        ([None, None], None),
    ],
)
def test_the_format_is_found(texts: list[str | None], format_: str | None) -> None:
    assert time_format(pd.Series(texts, dtype="str")) == format_


def test_an_impossible_date_is_missing() -> None:
    read = stamps(pd.Series(["31.01.2024", "31.02.2024", None]), "%d.%m.%Y")
    assert np.isnan(read).tolist() == [False, True, True]
    assert read[0] == pd.Timestamp("2024-01-31", tz="UTC").timestamp()


def test_rows_in_order_are_told_from_rows_that_happen_to_have_dates() -> None:
    days = pd.Series(pd.date_range("2024-01-01", periods=60).astype(str))
    assert in_time_order(days)
    assert in_time_order(days[::-1].reset_index(drop=True))
    assert not in_time_order(days.sample(frac=1, random_state=0).reset_index(drop=True))
    assert not in_time_order(pd.Series(["2023-01-01"] * 30 + ["2024-01-01"] * 30))


def test_december_is_beside_january_and_the_future_is_far_but_bounded() -> None:
    days = pd.Series(pd.date_range("2020-01-01", "2023-12-31").astype(str))
    column = fit_datetime("day", days)
    assert column.parts == ("month", "day", "weekday")
    code = column.encode(pd.Series(["2022-12-15", "2022-01-15", "2022-06-15", "2900-01-01", "never"]))
    assert code.shape == (5, column.width)
    month = code[:, 1:3]
    assert np.linalg.norm(month[0] - month[1]) < np.linalg.norm(month[0] - month[2])
    assert code[3, 0] == 10
    assert not code[4].any()


def test_missing_dates_are_information() -> None:
    column = fit_datetime("day", pd.Series(["2024-01-01", "2024-01-02", None]))
    assert column.encode(pd.Series([None, "2024-01-01"]))[:, -1].tolist() == [1, 0]


def test_a_column_without_dates_cannot_be_one() -> None:
    with pytest.raises(DataError, match=r"'x' has no dates.*data.types.x"):
        fit_datetime("x", pd.Series(["a", "b"]))


def test_text_is_hashed_to_the_same_numbers_everywhere() -> None:
    column = fit_text("t", 100)
    first = column.encode(pd.Series(["a good film", None, "never seen words"]))
    assert first.shape == (3, column.n_features)
    assert np.linalg.norm(first, axis=1) == pytest.approx([column.n_features**0.5, 0, column.n_features**0.5])
    assert (column.encode(pd.Series(["a good film"])) == first[:1]).all()


def test_hashed_words_get_no_bins(tmp_path: Path) -> None:
    texts = [f"{'good' if i % 2 else 'bad'} film number {i} of many" for i in range(80)]
    table = pd.DataFrame({"x": range(80, 0, -1), "t": texts, "y": [i % 2 for i in range(80)]})
    table["x"] = table["x"] * 7 % 31
    table.to_csv(tmp_path / "a.csv", index=False)
    prepared = prepare(DataConfig(source="a.csv", target="y"), tmp_path, tmp_path / "store")
    assert prepared.schema == {"x": "numeric", "t": "text"}
    assert len(prepared.spec.bins) == prepared.spec.n_numeric == 1 + MOST_FEATURES
    assert len(prepared.spec.bins[0]) > 2
    assert set(prepared.spec.bins[1:]) == {(0.0,)}


def test_more_rows_get_fewer_features() -> None:
    assert fit_text("t", 805_000).n_features < fit_text("t", 1000).n_features
    assert fit_text("t", 10**9).n_features == LEAST_FEATURES
