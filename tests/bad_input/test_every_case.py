"""The reference's list of 92 is whole: every number has a row, and what does not apply says why."""

from __future__ import annotations

from collections import Counter

from tests.bad_input import test_arrays, test_config, test_environment, test_files, test_models, test_space, test_tables
from tests.bad_input.cases import numbers_in

TABLES = (test_config, test_space, test_tables, test_arrays, test_files, test_environment, test_models)
CASES = tuple(case for module in TABLES for case in module.CASES)


def test_every_number_of_the_reference_has_a_row() -> None:
    assert numbers_in(CASES) == set(range(1, 93))


def test_rows_are_told_apart_by_their_names() -> None:
    doubled = [key for key, count in Counter((case.number, case.name) for case in CASES).items() if count > 1]
    assert doubled == []


def test_what_is_not_tried_here_says_why_or_where() -> None:
    for case in CASES:
        assert bool(case.expected) + bool(case.skip) + bool(case.shown_by) == 1, case
