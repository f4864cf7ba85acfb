"""Drift: columns that moved are named with how far, columns that did not are not."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from pipeline.data.dataset import Dataset
from pipeline.data.profile import MAX_KNOTS, Profile, profile
from pipeline.evaluation.drift import drift

SCHEMA = {"age": "numeric", "children": "numeric", "town": "categorical"}
TOWNS = ["Berlin", "Lyon", "Porto"]


def table(seed: int, n: int = 2000, **changed: Any) -> Profile:
    generator = np.random.default_rng(seed)
    frame = pd.DataFrame(
        {
            "age": generator.normal(45, 12, n),
            "children": generator.integers(0, 4, n),
            "town": generator.choice(TOWNS, n, p=[0.5, 0.3, 0.2]),
        }
    )
    for name, value in changed.items():
        frame[name] = value(generator, frame) if callable(value) else value
    target = np.where(frame["age"].fillna(0) > 45, "yes", "no")
    return profile(Dataset("tabular", frame, target, "made here"), SCHEMA, "buys", is_quantity=False)


THEN = table(0)


@pytest.mark.parametrize("seed", range(1, 21))
def test_other_rows_of_the_same_kind_have_not_moved(seed: int) -> None:
    result = drift(THEN, table(seed, n=[300, 2000][seed % 2]))
    assert [column.name for column in result.columns if column.moved] == []
    assert result.line == "0 of 4 columns have moved"


@pytest.mark.parametrize(
    ("changed", "moved"),
    [
        ({"age": lambda g, f: g.normal(57, 12, len(f))}, {"age", "buys"}),
        ({"age": lambda g, f: g.normal(45, 30, len(f))}, {"age"}),
        ({"children": 2}, {"children"}),
        ({"children": lambda g, f: g.integers(0, 4, len(f)) * 1.0 + 10}, {"children"}),
        ({"town": lambda g, f: g.choice(TOWNS, len(f), p=[0.2, 0.3, 0.5])}, {"town"}),
        ({"town": lambda g, f: np.where(g.random(len(f)) < 0.2, "Oslo", f["town"])}, {"town"}),
        ({"town": lambda g, f: f["town"].where(g.random(len(f)) < 0.7)}, {"town"}),
        ({"children": np.nan}, {"children"}),
    ],
    ids=["mean", "spread", "one value", "out of range", "shares", "new category", "missing", "all missing"],
)
def test_what_moved_is_named(changed: dict[str, Any], moved: set[str]) -> None:
    result = drift(THEN, table(1, **changed))
    assert {column.name for column in result.columns if column.moved} == moved
    assert all(column.moved for column in result.columns[: len(moved)]), "first"
    assert result.line.startswith(f"{len(moved)} of 4 columns have moved: {result.columns[0].name} (PSI ")


def test_effects_have_their_textbook_size() -> None:
    """The index of N(m, 1) against N(0, 1) is m squared in the limit of fine bins; ten bins see a little less."""
    age = next(
        c for c in drift(THEN, table(1, 20_000, age=lambda g, f: g.normal(51, 12, len(f)))).columns if c.name == "age"
    )
    assert age.mean_shift == pytest.approx(0.5, abs=0.05)
    assert 0.17 < age.psi < 0.28
    assert age.p < 1e-6
    same = next(c for c in drift(THEN, THEN).columns if c.name == "age")
    assert (same.psi, same.cramers_v, same.p, same.moved) == (0, 0, 1, False)


def test_a_few_rows_that_look_different_by_chance_are_no_drift() -> None:
    column = next(c for c in drift(table(3, n=30), table(4, n=30)).columns if c.name == "age")
    assert column.psi > 0.1
    assert not column.moved


def test_columns_that_came_went_or_changed_their_type_are_said() -> None:
    frame = pd.DataFrame({"age": ["young", "old"] * 20, "weight": np.arange(40.0)})
    data = Dataset("tabular", frame, np.array(["yes", "no"] * 20), "made here")
    now = profile(data, {"age": "categorical", "weight": "numeric"}, "buys", is_quantity=False)
    result = drift(THEN, now)
    assert set(result.gone) == {"age", "children", "town"}
    assert set(result.added) == {"age", "weight"}
    assert "gone: age, children, town; new: age, weight" in result.line


def test_images_and_sequences_are_seen_through_summaries() -> None:
    generator = np.random.default_rng(0)
    labels = np.arange(500) % 2
    images = generator.integers(0, 200, (500, 1, 4, 4), dtype=np.uint8)
    dark, light = (
        profile(Dataset("image", x, labels, "made here"), {}, "target", is_quantity=False)
        for x in (images, images + 50)
    )
    moved = {column.name for column in drift(dark, light).columns if column.moved}
    assert moved == {"brightness of channel 1"}

    def series(longest: int) -> Profile:
        rows = [generator.normal(size=(int(n), 2)).astype(np.float32) for n in generator.integers(5, longest, 500)]
        return profile(Dataset("sequence", rows, labels, "made here"), {}, "target", is_quantity=False)

    assert "steps" in {column.name for column in drift(series(20), series(40)).columns if column.moved}


def test_a_profile_is_small_and_survives_its_file() -> None:
    big = table(5, 50_000, town=lambda g, f: g.integers(0, 30_000, len(f)).astype(str))
    assert max(len(column.knots) for column in big.columns) <= MAX_KNOTS
    text = big.model_dump_json()
    assert len(text) < 40_000
    assert Profile.model_validate_json(text) == big
