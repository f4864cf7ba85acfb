"""The leaderboard: rank order, standard errors, and the trials that no other one beats in score and size."""

from __future__ import annotations

import pytest

from flows.leaderboard import leaderboard, pareto, to_csv
from pipeline.records import TrialRecord
from tests.tracking.records import record


def scored(number: int, score: float, n_params: int) -> TrialRecord:
    return record(number, objective=score, n_params=n_params)


@pytest.mark.parametrize(
    ("metric", "front"),
    [("accuracy", [2, 3, 5]), ("log_loss", [0, 5])],
)
def test_the_front_is_what_no_other_trial_beats_in_score_and_parameters(metric: str, front: list[int]) -> None:
    records = [
        scored(0, 0.50, 10), scored(1, 0.90, 900), scored(2, 0.95, 500), scored(3, 0.90, 100), scored(4, 0.90, 100),
        scored(5, 0.60, 5), record(6, "PRUNED", objective=0.99, n_params=1), record(7, "FAIL"),
    ]  # fmt: skip
    rows = pareto(leaderboard([r.model_copy(update={"metric": metric}) for r in records]), metric)
    assert [row.trial for row in rows] == front


def test_standard_errors_are_in_the_rows_where_there_are_folds() -> None:
    rows = leaderboard([record(0, objective=0.9, objective_se=0.01), record(1, objective=0.8)])
    assert [row.se for row in rows] == [0.01, None]
    assert ",0.01," in to_csv(rows).splitlines()[1]
