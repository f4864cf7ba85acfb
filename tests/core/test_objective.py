"""Metrics have a direction, and what is not a number never wins."""

from __future__ import annotations

import itertools
import math
import random

import pytest

from pipeline.errors import ConfigError
from pipeline.objective import METRICS, Objective, metrics_for, objective_for

UP, DOWN = METRICS["accuracy"], METRICS["rmse"]


def test_better_follows_the_direction() -> None:
    assert UP.better(0.9, 0.8)
    assert not UP.better(0.8, 0.9)
    assert DOWN.better(0.8, 0.9)
    assert not DOWN.better(0.9, 0.8)
    assert not UP.better(0.9, 0.9), "equal is not better"


@pytest.mark.parametrize("objective", [UP, DOWN], ids=["maximize", "minimize"])
@pytest.mark.parametrize("broken", [math.nan, math.inf, -math.inf])
def test_a_value_that_is_not_finite_beats_nothing_and_loses_to_everything(objective: Objective, broken: float) -> None:
    assert not objective.better(broken, 0.5)
    assert objective.better(0.5, broken)
    assert not objective.better(broken, broken)
    assert objective.rank_key(broken) == math.inf


@pytest.mark.parametrize("objective", METRICS.values(), ids=METRICS.keys())
def test_ranking_picking_and_comparing_agree(objective: Objective) -> None:
    values = [random.Random(seed).uniform(-2, 2) for seed in range(20)] + [math.nan, math.inf, -math.inf]
    ranked = sorted(values, key=objective.rank_key)
    assert ranked[0] == objective.best_of(values)
    finite = ranked[:20]
    assert all(not objective.better(b, a) for a, b in itertools.pairwise(finite))


def test_the_best_of_nothing_is_the_worst() -> None:
    assert UP.best_of([]) == UP.worst == -math.inf
    assert DOWN.best_of([math.nan]) == DOWN.worst == math.inf


@pytest.mark.parametrize(
    ("task", "metric"), [("binary", "roc_auc"), ("multiclass", "accuracy"), ("regression", "rmse")]
)
def test_auto_is_a_metric_of_the_task(task: str, metric: str) -> None:
    assert objective_for("auto", task).metric == metric  # type: ignore[arg-type]
    assert metric in metrics_for(task)  # type: ignore[arg-type]


@pytest.mark.parametrize(("metric", "task"), [("rmse", "binary"), ("roc_auc", "multiclass"), ("acuracy", "binary")])
def test_a_metric_of_another_task_is_refused_with_those_there_are(metric: str, task: str) -> None:
    with pytest.raises(ConfigError, match="use auto or one of ") as caught:
        objective_for(metric, task)  # type: ignore[arg-type]
    assert repr(metric) in str(caught.value)
