"""Every check finds what was planted for it, and little on data that is clean."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.data.card import card_markdown, data_card
from pipeline.data.checks.drift import stability_index
from pipeline.data.checks.leakage import AUC, score_alone
from pipeline.data.checks.policy import ChecksConfig, refuse_errors, settle
from pipeline.data.config import DataConfig, SplitConfig
from pipeline.data.findings import CheckName, Finding
from pipeline.data.prepare import Prepared, prepare
from pipeline.errors import DataError

N = 600
random = np.random.default_rng(0)
CLEAN = pd.DataFrame(
    {"age": random.normal(40, 10, N).round(2), "income": random.lognormal(10, 1, N).round(1),
     "town": random.choice(["Berlin", "Lyon", "Porto"], N)}
)  # fmt: skip
CLASSES = np.where(CLEAN["age"] + random.normal(0, 10, N) > 40, "yes", "no")
AMOUNTS = (CLEAN["age"] * 3 + random.normal(0, 20, N)).round(2)


def prepared(table: pd.DataFrame, test: pd.DataFrame | None = None, **split: object) -> Prepared:
    """The table with the target `y`, prepared."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        table.to_csv(folder / "a.csv", index=False)
        if test is not None:
            test.to_csv(folder / "t.csv", index=False)
        config = DataConfig(
            source="a.csv", target="y", test=None if test is None else "t.csv", split=SplitConfig.model_validate(split)
        )
        return prepare(config, folder, folder / "store")


def warned(result: Prepared, check: CheckName) -> list[str]:
    """What the check's warnings are about."""
    return [f.subject for f in result.findings if f.check == check and f.severity == "warning"]


PLANTED: dict[str, tuple[CheckName, str, Callable[[], Prepared]]] = {
    "a copy of the classes": ("leakage", "z", lambda: prepared(CLEAN.assign(z=CLASSES == "yes", y=CLASSES))),
    "a noisy code of the classes": (
        "leakage", "z", lambda: prepared(CLEAN.assign(z=(CLASSES == "yes") + random.normal(0, 0.01, N), y=CLASSES))),
    "a value that is missing where the answer is no": (
        "leakage", "z", lambda: prepared(CLEAN.assign(z=np.where(CLASSES == "yes", CLEAN["age"], np.nan), y=CLASSES))),
    "the amount in another currency": ("leakage", "z", lambda: prepared(CLEAN.assign(z=AMOUNTS * 1.17 + 5, y=AMOUNTS))),
    "the amount on another scale": ("leakage", "z", lambda: prepared(CLEAN.assign(z=np.exp(AMOUNTS / 50), y=AMOUNTS))),
    "the amount, rounded": ("leakage", "z", lambda: prepared(CLEAN.assign(z=AMOUNTS.round(), y=AMOUNTS))),
    "rows twice": ("duplicates", "split", lambda: prepared(pd.concat([CLEAN.assign(y=CLASSES)] * 2))),
    "test rows that were trained on": (
        "duplicates", "split", lambda: prepared(CLEAN.assign(y=CLASSES), CLEAN.assign(y=CLASSES)[:100])),
    "patients in all parts": (
        "groups", "patient_id", lambda: prepared(CLEAN.assign(patient_id=[f"p{i % 60}" for i in range(N)], y=CLASSES))),
    "a test file with known groups": (
        "groups", "g", lambda: prepared(
            CLEAN.assign(g=np.arange(N) % 50, y=CLASSES)[:500], CLEAN.assign(g=np.arange(N) % 50, y=CLASSES)[500:],
            by="group", column="g")),
    "a record over time, divided at random": (
        "time", "day", lambda: prepared(CLEAN.assign(day=pd.date_range("2024-01-01", periods=N), y=CLASSES))),
    "a test file from the past": (
        "time", "day", lambda: prepared(
            CLEAN.assign(day=pd.date_range("2024-01-01", periods=N), y=CLASSES)[100:],
            CLEAN.assign(day=pd.date_range("2024-01-01", periods=N), y=CLASSES)[:100], by="time", column="day")),
    "a column in another unit": (
        "columns", "months", lambda: prepared(CLEAN.assign(months=CLEAN["age"] * 12, y=CLASSES))),
    "a column under other names": (
        "columns", "code", lambda: prepared(
            CLEAN.assign(code=CLEAN["town"].map({"Berlin": "B", "Lyon": "L", "Porto": "P"}), y=CLASSES))),
    "numbers of customers": (
        "columns", "nr", lambda: prepared(CLEAN.assign(nr=random.permutation(N) + 7000, y=CLASSES))),
    "an older training file": (
        "drift", "age", lambda: prepared(
            CLEAN.assign(y=CLASSES), CLEAN.assign(age=CLEAN["age"] + 15, y=CLASSES)[:200])),
    "a town that training hardly knows": (
        "drift", "town", lambda: prepared(CLEAN.assign(y=CLASSES), CLEAN.assign(town="Oslo", y=CLASSES)[:200])),
    "yes and Yes": ("labels", "y", lambda: prepared(CLEAN.assign(y=np.where(random.random(N) < 0.1, "Yes", CLASSES)))),
    "one answer for equal rows, and another": (
        "labels", "y", lambda: prepared(pd.DataFrame({"a": np.arange(N) % 9, "y": random.choice(["u", "v"], N)}))),
    "three rows of a class": (
        "classes", "y", lambda: prepared(CLEAN.assign(y=np.where(np.arange(N) < 3, "rare", CLASSES)))),
}  # fmt: skip


@pytest.mark.parametrize("name", PLANTED)
def test_what_was_planted_is_found(name: str) -> None:
    check, subject, plant = PLANTED[name]
    assert subject in warned(plant(), check)


@pytest.mark.parametrize("target", [CLASSES, AMOUNTS], ids=["classes", "amounts"])
def test_clean_rows_raise_no_alarm(target: object) -> None:
    assert [f for f in prepared(CLEAN.assign(y=target)).findings if f.severity != "info"] == []


REAL = {
    # clean data sets, and the warnings that they raise (check and subject), each looked at by hand
    "sklearn:iris": (None, None, set()),
    "sklearn:wine": (None, None, set()),
    "sklearn:breast_cancer": (None, None, set()),
    "sklearn:diabetes": (None, None, set()),
    "sklearn:digits": (None, None, set()),
    "adult/train.csv": ("class", "adult/test.csv", set()),
    "credit_g/credit_g.csv": ("credit_risk", None, set()),
    "california_housing/housing.csv": ("median_house_value", None, set()),
    "diamonds/diamonds.csv": ("price", None, set()),
    "letter/train.csv": ("lettr", "letter/test.csv", {("duplicates", "split")}),  # 8 % repeat: small integers
    "sms_spam/sms_spam.csv": ("label", None, {("duplicates", "split")}),  # 403 messages occur twice
    "amazon_access/amazon_access.csv": ("ACTION", None, {("groups", "MGR_ID")}),  # managers stay the same
    "italy_power_demand/ItalyPowerDemand_TRAIN.ts": (None, "italy_power_demand/ItalyPowerDemand_TEST.ts", set()),
    "japanese_vowels/JapaneseVowels_TRAIN.ts": (None, "japanese_vowels/JapaneseVowels_TEST.ts", set()),
}  # fmt: skip


@pytest.mark.parametrize("source", REAL)
def test_alarms_on_real_data_are_few_and_true(source: str, real_data: Path, tmp_path: Path) -> None:
    target, test, expected = REAL[source]
    result = prepare(DataConfig(source=source, target=target, test=test), real_data, tmp_path)
    assert {(f.check, f.subject) for f in result.findings if f.severity == "warning"} == expected


def test_the_planted_leaks_of_the_malformed_collection_are_found(real_data: Path, tmp_path: Path) -> None:
    leaked = prepare(DataConfig(source="leaked_target_copy.csv", target="class"), real_data / "malformed", tmp_path)
    assert sorted(warned(leaked, "leakage")) == ["target_code", "target_copy"]
    ids = prepare(DataConfig(source="huge_cardinality_ids.csv", target="class"), real_data / "malformed", tmp_path)
    assert sorted(warned(ids, "columns")) == ["free_text", "row_id", "uuid"]
    dates = prepare(DataConfig(source="dates.csv", target="class"), real_data / "malformed", tmp_path)
    assert sorted(warned(dates, "values")) == ["date_eu", "date_iso"]
    copies = prepare(DataConfig(source="collinear_columns.csv", target="class"), real_data / "malformed", tmp_path)
    assert sorted(warned(copies, "columns")) == ["dup_a", "dup_b"]


def test_a_strong_feature_is_no_leak() -> None:
    """Of one in five rows the column does not tell the answer."""
    column = pd.Series(np.where(np.random.default_rng(1).random(N) < 0.2, "maybe", CLASSES))
    codes = (CLASSES == "yes").astype(np.int64)
    assert 0.9 < score_alone(column, "categorical", codes, is_classes=True) < AUC


@given(st.lists(st.integers(1, 500), min_size=2, max_size=20), st.integers(1, 20))
@settings(max_examples=25, deadline=None)
def test_equal_shares_do_not_drift(counts: list[int], times: int) -> None:
    train = np.array(counts) * 1000
    index, bound = stability_index(train, train * times)
    assert 0 <= index < 1e-3
    assert bound > 0


def test_chance_is_no_drift() -> None:
    """200 draws of 100 and 50 rows over 10 bins: by the bound's construction 0.2 false alarms are expected, and
    more than 3 have odds below 1 in 10,000."""
    draw = np.random.default_rng(0)
    alarms = 0
    for _ in range(200):
        index, bound = stability_index(*(np.bincount(draw.integers(0, 10, n), minlength=10) for n in (100, 50)))
        alarms += index > max(0.25, bound)
    assert alarms <= 3


def finding(check: CheckName | None, severity: str = "warning") -> Finding:
    return Finding.model_validate({"severity": severity, "subject": "x", "message": "m", "check": check})


def test_policies_decide_what_a_warning_means() -> None:
    found = [finding("leakage"), finding("drift"), finding("labels"), finding("labels", "info"), finding(None)]
    settled = settle(found, ChecksConfig(leakage="error", drift="off", labels="error"))
    assert [f.severity for f in settled] == ["error", "error", "info", "warning"]


def test_an_error_stops_in_one_line_that_says_how_to_go_on() -> None:
    refuse_errors([finding("leakage")], "a.csv")
    with pytest.raises(
        DataError, match=r"^a.csv: x: m \(and 1 more\); correct it, or set checks.leakage: warn to go on$"
    ):
        refuse_errors(settle([finding("leakage")] * 2, ChecksConfig(leakage="error")), "a.csv")


def test_the_card_says_what_was_given_divided_and_found(tmp_path: Path) -> None:
    CLEAN.assign(z=CLASSES, y=CLASSES).to_csv(tmp_path / "a|b.csv", index=False)
    result = prepare(DataConfig(source="a|b.csv", target="y"), tmp_path, tmp_path / "store")
    card = data_card("a|b.csv", result, settle(result.findings, ChecksConfig()))
    assert (card.n_train, card.n_folds, card.n_test, card.columns["town"]) == (480, 5, 120, "categorical")
    assert sum(card.labels.values()) == 480
    page = card_markdown(card)
    assert page.startswith("# Data: a\\|b.csv")
    assert "| warning | leakage | z |" in page
