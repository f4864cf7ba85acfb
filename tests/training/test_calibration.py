"""How many trials gain by training together is found by timing them, whatever else happens meanwhile."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest
from torch import Tensor

from pipeline.training import calibration
from pipeline.training.calibration import measure_gains
from pipeline.training.learner import SoloLearner
from tests.training.cohorts import CPU, cohort_of, make, settings

DATA = make("image", "multiclass")
[CONFIG] = cohort_of("mlp", DATA, 1, 0)


@pytest.fixture
def takes(monkeypatch: pytest.MonkeyPatch) -> Callable[[dict[int, float]], None]:
    """Say how many seconds the steps of a cohort take, by its size."""

    def say(seconds: dict[int, float]) -> None:
        monkeypatch.setattr(calibration, "_seconds", lambda learner, _: seconds[learner.size])

    return say


def gains(limit: int = 64) -> dict[int, float]:
    return measure_gains(CONFIG, DATA, settings(DATA), CPU, limit)


def test_sizes_grow_until_one_gains_less_than_the_one_before(takes: Callable[[dict[int, float]], None]) -> None:
    takes({1: 0.01, 4: 0.01, 8: 0.016, 16: 0.04})
    assert gains() == pytest.approx({1: 1, 4: 4, 8: 5, 16: 4})


def test_no_cohort_is_timed_that_could_not_be_used(takes: Callable[[dict[int, float]], None]) -> None:
    takes({1: 0.01, 4: 0.01, 8: 0.01})
    assert gains(limit=8).keys() == {1, 4, 8}
    assert gains(limit=3).keys() == {1}


def test_a_cohort_whose_steps_are_slow_is_the_last_that_is_timed(takes: Callable[[dict[int, float]], None]) -> None:
    takes({1: 0.2, 4: 0.4})
    assert gains() == pytest.approx({1: 1, 4: 2})


def test_a_slow_start_ends_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """A GPU loads its libraries in the first steps, and the machine may be busy; the calibration is kept for long."""
    train_epoch, calls = SoloLearner.train_epoch, []

    def slow_at_first(learner: SoloLearner) -> Tensor:
        if not calls:
            time.sleep(1.2)
        calls.append(learner)
        return train_epoch(learner)

    monkeypatch.setattr(SoloLearner, "train_epoch", slow_at_first)
    assert gains(limit=4).keys() == {1, 4}
