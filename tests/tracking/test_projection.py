"""Names, notes and bounds of what a person sees, where no store is needed to check them."""

from __future__ import annotations

import pytest

from pipeline.tracking import projection
from tests.tracking.records import STARTED, record, search_info


@pytest.mark.parametrize(("number", "name"), [(0, "#000 mlp"), (12, "#012 mlp"), (1234, "#1234 mlp")])
def test_names_are_those_of_the_record(number: int, name: str) -> None:
    assert projection.trial_name(number, "mlp") == name == record(number).label


def test_times_are_the_records_so_that_writing_again_changes_nothing() -> None:
    points = projection.trial_points(record(n_epochs=2))
    assert {point.timestamp for point in points if point.key == "train/loss"} == {
        round((STARTED + seconds) * 1000) for seconds in (0.5, 1.0)
    }
    assert {point.timestamp for point in points if point.key == "objective"} == {round((STARTED + 10) * 1000)}
    assert projection.trial_points(record(n_epochs=2)) == points


@pytest.mark.parametrize(("direction", "word"), [("maximize", "DESC"), ("minimize", "ASC")])
def test_the_note_sorts_the_leaderboard_the_right_way(direction: str, word: str) -> None:
    assert f"`metrics.objective` {word}" in projection.search_note(search_info(direction=direction))


def test_only_the_optimised_metric_has_a_curve_beside_the_losses() -> None:
    points = projection.trial_points(record())
    assert {point.key for point in points if point.step} == {"train/loss", "val/loss", "val/accuracy"}


def test_a_trial_that_failed_before_its_first_epoch_has_its_time_and_nothing_it_did_not_measure() -> None:
    failed = record(state="FAIL", n_epochs=0, n_params=0, peak_mb=0.0)
    assert {point.key for point in projection.trial_points(failed)} == {"time/train_s"}
