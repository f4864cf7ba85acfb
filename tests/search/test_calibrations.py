"""What is known of cohorts' gains, and what follows for classes that were not timed."""

from pathlib import Path

import pytest

from pipeline.search.calibrations import Calibrations
from pipeline.training.calibration import CostClass, choose, time_together

PAYS, PAYS_SMALL, ALONE = {1: 1.0, 4: 2.0, 16: 5.0}, {1: 1.0, 4: 2.0}, {1: 1.0, 4: 1.1}


def mlp(work: int) -> CostClass:
    return CostClass("mlp", "cpu", work, 16)


def size(calibrations: Calibrations, work: int) -> int | None:
    gains = calibrations.gains(mlp(work))
    return None if gains is None else choose(gains)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "calibration.json"


def test_what_was_timed_is_kept_for_the_next_search(path: Path) -> None:
    Calibrations(path, "cpu").add(mlp(20), PAYS)
    assert Calibrations(path, "cpu").gains(mlp(20)) == PAYS


@pytest.mark.parametrize(
    ("timed", "work", "expected"),
    [
        ({}, 20, None),
        ({22: PAYS}, 20, 16),  # smaller than one that gains to the limit
        ({18: PAYS}, 20, None),  # larger: may gain less
        ({22: PAYS_SMALL}, 20, None),  # smaller than one that gains a little: may gain more
        ({16: ALONE, 18: ALONE}, 20, 1),  # larger than two that gain nothing
        ({18: ALONE}, 20, None),  # one timing may be noise
        ({22: ALONE, 24: ALONE}, 20, None),  # smaller: may gain
    ],
)
def test_a_class_between_timed_ones_is_timed_only_where_they_leave_it_open(
    path: Path, timed: dict[int, dict[int, float]], work: int, expected: int | None
) -> None:
    calibrations = Calibrations(path, "cpu")
    for other, gains in timed.items():
        calibrations.add(mlp(other), gains)
    assert size(calibrations, work) == expected


def test_another_family_device_or_limit_says_nothing(path: Path) -> None:
    calibrations = Calibrations(path, "cpu")
    for other in (CostClass("cnn", "cpu", 22, 16), CostClass("mlp", "cuda", 22, 16), CostClass("mlp", "cpu", 22, 8)):
        calibrations.add(other, {1: 1.0, other.limit: 9.0})
    assert size(calibrations, 20) is None


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"machine": "another", "classes": []}', b'{"machine": 1}'])
def test_a_file_that_is_broken_or_of_another_machine_is_timed_anew(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    assert size(Calibrations(path, "cpu"), 20) is None


def test_the_time_of_sizes_between_timed_ones_is_interpolated() -> None:
    gains = {1: 1.0, 4: 2.5}
    assert [time_together(gains, size) for size in (1, 2, 4, 8)] == [1.0, 2 / 1.5, 4 / 2.5, 8 / 2.5]


@pytest.mark.parametrize(
    ("gains", "expected"),
    [
        ({1: 1.0, 4: 2.0, 8: 3.0, 16: 4.0, 32: 5.0}, 32),
        ({1: 1.0, 4: 2.3, 8: 2.2, 16: 2.4, 32: 2.1}, 4),
        ({1: 1.0, 4: 2.0, 8: 2.7, 16: 2.9}, 8),
        ({1: 1.0, 4: 1.25, 8: 1.32}, 8),
        ({1: 1.0, 4: 1.2}, 1),
        ({1: 1.0}, 1),
    ],
    ids=["grows to the end", "flat", "nearly flat", "the first is not worth it", "nothing is", "never timed"],
)
def test_the_smallest_cohort_that_gains_nearly_the_most_is_chosen(gains: dict[int, float], expected: int) -> None:
    assert choose(gains) == expected
