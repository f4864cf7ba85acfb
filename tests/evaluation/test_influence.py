"""Influence on a metric: what the metric does when a row counts a little more, and a standard error as resampling finds
it."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from pipeline.data.spec import DataSpec, Task
from pipeline.evaluation.influence import influences
from pipeline.evaluation.intervals import Resampling, score_intervals
from pipeline.training.metrics import validation_metrics

TASKS: dict[Task, tuple[object, ...]] = {"binary": (0, 1), "multiclass": (0, 1, 2), "regression": ()}


def problem(task: Task, n: int, seed: int = 0) -> tuple[DataSpec, Tensor, Tensor]:
    """A model that is right about two times of three."""
    generator = torch.Generator().manual_seed(seed)
    spec = DataSpec(
        kind="tabular", task=task, n_numeric=1, labels=TASKS[task], target_scale=3.0, n_train=1, n_validation=1
    )  # type: ignore[arg-type]
    if task == "regression":
        target = torch.randn(n, generator=generator)
        return spec, (target + 0.5 * torch.randn(n, generator=generator))[:, None], target
    target = torch.randint(len(TASKS[task]), (n,), generator=generator)
    outputs = torch.randn(n, len(TASKS[task]), generator=generator).round(decimals=1)  # with ties
    outputs[torch.arange(n), target] += 1.0
    return spec, outputs, target


@pytest.mark.parametrize("task", TASKS)
def test_doubling_a_row_moves_the_metric_by_its_influence(task: Task) -> None:
    n = 400
    spec, outputs, target = problem(task, n)
    moves = influences(outputs, target, spec)
    whole = {name: float(value[0]) for name, value in validation_metrics(outputs[None], target, spec).items()}
    assert moves.keys() == whole.keys()
    for row in range(0, n, 41):
        rows = torch.tensor([*range(n), row])
        doubled = validation_metrics(outputs[rows][None], target[rows], spec)
        for name, influence in moves.items():
            assert float(doubled[name][0]) - whole[name] == pytest.approx(float(influence[row]) / n, abs=2e-4), name
    for influence in moves.values():
        assert float(influence.mean()) == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("task", TASKS)
def test_the_standard_error_is_that_of_the_bootstrap(task: Task) -> None:
    """With 4,000 resamples a bootstrap standard error is off by about 1 %."""
    spec, outputs, target = problem(task, 500, seed=1)
    moves = influences(outputs, target, spec)
    resampled = score_intervals(outputs, target, spec, Resampling(0.6827, 4000, 0))
    for name, influence in moves.items():
        error = float(influence.square().mean() / len(influence)) ** 0.5
        assert error == pytest.approx((resampled[name].high - resampled[name].low) / 2, rel=0.1), name


def test_what_is_undefined_on_the_rows_has_no_influence() -> None:
    spec, outputs, target = problem("binary", 50)
    assert "roc_auc" not in influences(outputs, torch.ones_like(target), spec)
    spec, outputs, target = problem("regression", 50)
    assert "r2" not in influences(outputs, torch.zeros_like(target), spec)
    right = influences(target[:, None], target, spec)
    assert all(bool((influence == 0).all()) for influence in right.values()), "nothing moves what is exactly right"
