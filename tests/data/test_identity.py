"""Rows are known again by what is in them, wherever they stand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from pipeline.data.dataset import Features
from pipeline.data.identity import KnownRows, draw_order, row_hashes

TABLE = pd.DataFrame({"age": ["31", "1.5", None, "31"], "town": ["Lyon", " Porto", "?", "Lyon"]})


@pytest.mark.parametrize(
    "same",
    [
        TABLE[["town", "age"]],
        TABLE.assign(age=["31.0", " 1.50", "NA", "3.1e1"]),
        TABLE.assign(age=[31.0, 1.5, np.nan, 31.0]),
        TABLE.assign(town=["Lyon ", "Porto", None, "Lyon"]),
    ],
    ids=["columns in another order", "numbers written otherwise", "numbers as numbers", "blanks"],
)
def test_the_same_rows_have_the_same_hashes(same: pd.DataFrame) -> None:
    assert row_hashes(same).tolist() == row_hashes(TABLE).tolist()
    assert row_hashes(same.iloc[::-1]).tolist() == row_hashes(TABLE).tolist()[::-1]


@pytest.mark.parametrize(
    "other",
    [
        TABLE.assign(age=["31", "1.5", "0", "32"]),
        TABLE.rename(columns={"age": "years"}),
        TABLE.rename(columns={"age": "town", "town": "age"}),
        TABLE.assign(town="Lyon", age="1"),
    ],
)
def test_other_rows_have_other_hashes(other: pd.DataFrame) -> None:
    assert row_hashes(other)[2:].tolist() != row_hashes(TABLE)[2:].tolist()


def test_a_million_rows_have_a_million_hashes() -> None:
    hashes = row_hashes(pd.DataFrame({"a": np.arange(1_000_000) // 1000, "b": np.arange(1_000_000) % 1000}))
    assert len(np.unique(hashes)) == 1_000_000


SERIES = [np.arange(n, dtype=np.float32).reshape(-1, 1) for n in (3, 4, 5)]


@pytest.mark.parametrize("rows", [SERIES, np.arange(12, dtype=np.uint8).reshape(3, 1, 2, 2)], ids=["series", "images"])
def test_rows_of_other_kinds_are_known_too(rows: Any) -> None:
    hashes = row_hashes(rows)
    assert hashes.dtype == np.uint64
    assert row_hashes(rows[1:]).tolist() == hashes[1:].tolist()
    assert hashes[0] != hashes[1]


def test_a_place_in_the_lottery_depends_on_the_row_and_the_seed_alone() -> None:
    hashes = np.arange(1000, dtype=np.uint64)
    places = draw_order(hashes, 0)
    assert draw_order(hashes[::-1], 0).tolist() == places.tolist()[::-1]
    assert np.corrcoef(places.astype(float), draw_order(hashes, 1).astype(float))[0, 1] < 0.2
    assert np.corrcoef(places.astype(float), np.arange(1000))[0, 1] < 0.2
    twice = draw_order(np.concatenate([hashes, hashes]), 0)
    assert twice[:1000].tolist() == places.tolist()
    assert len(np.unique(twice)) == 2000, "each of two equal rows has a place of its own"


@pytest.mark.parametrize("features", [TABLE, SERIES])
def test_known_rows_are_recognised_after_being_stored(features: Features, tmp_path: Path) -> None:
    KnownRows.of(features[:2]).save(tmp_path / "known.npz")
    known = KnownRows.load(tmp_path / "known.npz").among(features)
    assert known is not None
    assert known[:2].all()
    assert not known[2]


def test_a_new_column_does_not_make_rows_unknown_and_a_lost_one_is_said() -> None:
    known = KnownRows.of(TABLE[:1])
    seen = known.among(TABLE.assign(weight="70"))
    assert seen is not None
    assert seen.tolist() == [True, False, False, True]
    assert known.among(TABLE[["age"]]) is None
