"""Splits: disjoint, complete, repeatable, and by the rule that was asked for."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.data.config import SplitConfig
from pipeline.data.identity import Hashes, row_hashes
from pipeline.data.split import Split, make_split
from pipeline.errors import DataError


def split(n: int, classes: Any = None, key: Any = None, *, with_test: bool = True, **config: Any) -> Split:
    series = None if key is None else pd.Series(key, name="k")
    classes = None if classes is None else np.asarray(classes)
    config = {"by": "random" if classes is None else "stratified", **config}
    return make_split(SplitConfig(**config), rows(n), classes=classes, key=series, with_test=with_test)[0]


def rows(n: int) -> Hashes:
    """Hashes of n different rows."""
    return row_hashes(pd.DataFrame({"x": np.arange(n)}))


def assert_partition(result: Split, n: int) -> None:
    assert sorted(np.concatenate([result.train, result.validation, result.test]).tolist()) == list(range(n))
    assert min(len(result.train), len(result.validation)) > 0


@given(n=st.integers(10, 300), n_classes=st.integers(2, 12), seed=st.integers(0, 9), with_test=st.booleans())
def test_every_row_is_in_exactly_one_part(n: int, n_classes: int, seed: int, with_test: bool) -> None:
    classes = np.random.default_rng(seed).integers(0, n_classes, n)
    for key in (classes, None):
        result = split(n, key, seed=seed, with_test=with_test)
        assert_partition(result, n)
        assert len(result.validation) == max(1, round(0.2 * n))
        assert len(result.test) == (max(1, round(0.2 * n)) if with_test else 0)


def test_classes_keep_their_shares() -> None:
    classes = np.array([0] * 900 + [1] * 100)
    result = split(1000, classes)
    for part in (result.train, result.validation, result.test):
        assert classes[part].mean() == pytest.approx(0.1, abs=0.005)


@given(
    n=st.integers(50, 400), extra=st.integers(1, 60), n_classes=st.integers(1, 6), seed=st.integers(0, 99),
    by=st.sampled_from(["random", "stratified", "kfold"]),
)  # fmt: skip
def test_rows_that_are_added_move_few_of_the_others(n: int, extra: int, n_classes: int, seed: int, by: str) -> None:
    """The last places of the test part wander as the part grows, in each class: by chance about the root of what was
    added, and never more than that and a row a class."""
    generator = np.random.default_rng(seed)
    hashes, classes = rows(n + extra), generator.integers(0, n_classes, n + extra)
    order = generator.permutation(n + extra)  # the rows of the next day come in any order
    before, _ = make_split(SplitConfig(by=by), hashes[:n], classes=classes[:n], key=None, with_test=True)
    after, _ = make_split(SplitConfig(by=by), hashes[order], classes=classes[order], key=None, with_test=True)
    now_tested = set(hashes[order][after.test].tolist())
    developed = set(hashes[:n][np.setdiff1d(np.arange(n), before.test)].tolist())
    assert len(now_tested & developed) <= extra + n_classes
    kept = len(now_tested & set(hashes[:n][before.test].tolist()))
    assert kept >= len(before.test) - extra - n_classes


def test_rows_that_are_added_keep_nineteen_of_twenty_test_rows_tested() -> None:
    hashes, classes = rows(2200), np.arange(2200) % 3
    tests = []
    for n in (2000, 2200):
        result, _ = make_split(SplitConfig(), hashes[:n], classes=classes[:n], key=None, with_test=True)
        tests.append(set(result.test.tolist()))
    assert len(tests[0] & tests[1]) >= 0.95 * len(tests[0])


def test_rows_that_are_added_to_groups_move_none_of_them() -> None:
    groups = np.arange(300) % 23
    before, after = (split(n, None, groups[:n], by="group", column="k") for n in (200, 300))
    assert set(groups[before.test]) == set(groups[after.test])
    assert set(groups[before.validation]) == set(groups[after.validation])


def test_equal_rows_are_divided_like_others() -> None:
    result, _ = make_split(
        SplitConfig(), row_hashes(pd.DataFrame({"x": [1.0] * 2000})), classes=None, key=None, with_test=True
    )
    assert [len(part) for part in (result.train, result.validation, result.test)] == [1200, 400, 400]
    assert abs(result.test.mean() - 1000) < 5 * 577 / 20, "from all over the file"


def test_the_seed_decides() -> None:
    assert split(100, seed=1).digest == split(100, seed=1).digest
    assert split(100, seed=1).digest != split(100, seed=2).digest


def test_a_class_with_one_row_is_trained_on_and_said() -> None:
    classes = np.array([0] * 50 + [1] * 49 + [2])
    result, findings = make_split(SplitConfig(by="stratified"), rows(100), classes=classes, key=None, with_test=True)
    assert 99 in result.train
    assert ["single row" in finding.message for finding in findings] == [True]


def test_more_classes_than_held_out_rows_are_drawn_at_random_and_said() -> None:
    result, findings = make_split(
        SplitConfig(by="stratified"), rows(20), classes=np.arange(20) // 2, key=None, with_test=True
    )
    assert_partition(result, 20)
    assert {"cannot hold" in finding.message for finding in findings} == {True}


@given(n=st.integers(12, 300), n_classes=st.integers(2, 40), folds=st.integers(2, 5), seed=st.integers(0, 9))
def test_every_row_but_the_tests_is_validated_in_one_fold(n: int, n_classes: int, folds: int, seed: int) -> None:
    classes = np.random.default_rng(seed).integers(0, n_classes, n)
    for key in (classes, None):
        result = split(n, key, by="kfold", folds=folds, seed=seed)
        assert sorted([*result.train, *result.test]) == list(range(n))
        assert len(result.validation) == 0
        assert result.folds is not None
        assert len(result.folds) == len(result.train)
        sizes = np.bincount(result.folds, minlength=folds)
        assert len(sizes) == folds
        assert sizes.max() - sizes.min() <= n_classes


def test_folds_keep_the_classes_shares_and_are_part_of_the_digest() -> None:
    classes = np.array([0] * 90 + [1] * 10)
    result = split(100, classes, by="kfold")
    assert result.folds is not None
    per_fold = [int(classes[result.train[result.folds == fold]].sum()) for fold in range(5)]
    assert sorted(per_fold) == [1, 1, 2, 2, 2]
    assert result.digest != split(100, classes, by="kfold", folds=4).digest


def test_groups_stay_in_one_fold() -> None:
    groups = np.arange(200) % 23
    result = split(200, np.arange(200) % 2, groups, by="kfold", column="k")
    assert result.folds is not None
    folds_of = {group: set(result.folds[groups[result.train] == group]) for group in set(groups[result.train])}
    assert {len(folds) for folds in folds_of.values()} == {1}
    assert not set(groups[result.train]) & set(groups[result.test])


@pytest.mark.parametrize(("n", "by_folds"), [(1240, True), (1252, False), (11, False)])
def test_auto_cross_validates_where_the_validation_part_would_be_small(n: int, by_folds: bool) -> None:
    result, findings = make_split(SplitConfig(), rows(n), classes=np.arange(n) % 2, key=None, with_test=True)
    assert (result.folds is not None) == by_folds
    assert ["cross-validated in 5 folds" in finding.message for finding in findings] == [True] * by_folds


def test_groups_stay_together() -> None:
    groups = np.arange(200) % 23
    result = split(200, np.arange(200) % 2, groups, by="group", column="k")
    assert_partition(result, 200)
    parts = [set(groups[rows]) for rows in (result.train, result.validation, result.test)]
    assert not parts[0] & parts[1]
    assert not parts[0] & parts[2]
    assert not parts[1] & parts[2]


@pytest.mark.parametrize("as_dates", [True, False])
def test_time_goes_forward_and_equal_stamps_stay_together(as_dates: bool) -> None:
    days = np.random.default_rng(0).integers(0, 40, 200)
    key = [str(day) for day in pd.to_datetime("2024-01-01") + pd.to_timedelta(days, unit="D")] if as_dates else days
    result = split(200, None, key, by="time", column="k")
    assert_partition(result, 200)
    assert days[result.train].max() < days[result.validation].min()
    assert days[result.validation].max() < days[result.test].min()


@pytest.mark.parametrize(
    ("key", "config", "message"),
    [
        (["a"] * 10 + ["b"] * 10, {"by": "group"}, "needs >= 3 groups, but there are 2"),
        (["a"] * 10 + ["b"] * 5 + ["c"] * 5, {"by": "kfold"}, "5 folds by 'k' need as many groups, but 2 are left"),
        ([None] * 3 + ["b"] * 17, {"by": "group"}, "but 3 have none"),
        (["2024-01-01"] * 19 + ["31.02.2024"], {"by": "time"}, "row 20 has '31.02.2024'"),
        ([5] * 20, {"by": "time"}, "same time"),
    ],
)
def test_keys_that_cannot_divide(key: list[Any], config: dict[str, str], message: str) -> None:
    with pytest.raises(DataError, match=message):
        split(20, None, key, column="k", **config)


def test_stratified_needs_classes() -> None:
    with pytest.raises(DataError, match="needs classes"):
        split(20, None, by="stratified")


def test_distinct_stamps_divide_exactly() -> None:
    stamps = np.random.default_rng(0).permutation(100)
    result = split(100, None, stamps, by="time", column="k")
    assert sorted(stamps[result.train]) == list(range(60))
    assert sorted(stamps[result.validation]) == list(range(60, 80))
    assert sorted(stamps[result.test]) == list(range(80, 100))
