"""What a search optimises: a named metric with a direction, and the table of metrics there are."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Literal

from pipeline.data.spec import Task
from pipeline.errors import ConfigError

Direction = Literal["maximize", "minimize"]

CLASSIFICATION: Final[frozenset[Task]] = frozenset({"binary", "multiclass"})
REGRESSION: Final[frozenset[Task]] = frozenset({"regression"})
QUANTITIES: Final[frozenset[Task]] = frozenset({"regression", "forecast"})


@dataclass(frozen=True, slots=True)
class Objective:
    """A metric and the direction in which it is better."""

    metric: str
    direction: Direction
    tasks: frozenset[Task]
    description: str

    def better(self, a: float, b: float) -> bool:
        """Whether `a` beats `b`. A non-finite value beats nothing, and any finite value beats it."""
        if not math.isfinite(a):
            return False
        if not math.isfinite(b):
            return True
        return a > b if self.direction == "maximize" else a < b

    @property
    def worst(self) -> float:
        """The value that every finite value beats."""
        return -math.inf if self.direction == "maximize" else math.inf

    def best_of(self, values: Iterable[float]) -> float:
        """The best of the values; `worst` when there are none."""
        best = self.worst
        for value in values:
            if self.better(value, best):
                best = value
        return best

    def rank_key(self, value: float) -> float:
        """A sort key: ascending order puts the best first and non-finite values last."""
        if not math.isfinite(value):
            return math.inf
        return -value if self.direction == "maximize" else value


METRICS: Final[dict[str, Objective]] = {
    objective.metric: objective
    for objective in (
        Objective("accuracy", "maximize", CLASSIFICATION, "share of rows whose most probable class is right"),
        Objective("balanced_accuracy", "maximize", CLASSIFICATION, "mean recall over the classes"),
        Objective("f1_macro", "maximize", CLASSIFICATION, "mean F1 over the classes"),
        Objective("log_loss", "minimize", CLASSIFICATION, "mean negative log probability of the true class, in nats"),
        Objective("roc_auc", "maximize", frozenset({"binary"}), "probability that a positive ranks above a negative"),
        Objective("rmse", "minimize", QUANTITIES, "root mean squared error, in units of the target"),
        Objective("mae", "minimize", QUANTITIES, "mean absolute error, in units of the target"),
        Objective(
            "mase",
            "minimize",
            frozenset({"forecast"}),
            "mean absolute error over that of repeating the training part's last season",
        ),
        Objective("r2", "maximize", REGRESSION, "share of the target's variance that is explained"),
    )
}

COSTS: Final[dict[str, str]] = {
    "latency_ms_p50": "median time of one raw row, preprocessing included, in ms",
    "latency_ms_p95": "95th percentile of that time",
    "size_mb": "size of the model package in MB",
    "n_params": "trainable parameters",
    "ece": "expected calibration error on the sealed test, of classes",
}
"""What else a promotion can be bound to: measured of the winner, lower is better."""

_DEFAULT: Final[dict[Task, str]] = {
    "binary": "roc_auc",
    "multiclass": "accuracy",
    "regression": "rmse",
    "forecast": "mae",
}


def metrics_for(task: Task) -> tuple[str, ...]:
    """Names of the metrics that a task has, in the table's order."""
    return tuple(name for name, objective in METRICS.items() if task in objective.tasks)


def objective_for(metric: str, task: Task) -> Objective:
    """The objective that `metric` names, or the task's own for ``auto``.

    Raises:
        ConfigError: no such metric, or not one of this task.
    """
    name = _DEFAULT[task] if metric == "auto" else metric
    objective = METRICS.get(name)
    if objective is None or task not in objective.tasks:
        raise ConfigError(
            f"`search.metric` must be a metric of a {task} task, but got {name!r}",
            f"use auto or one of {', '.join(metrics_for(task))}",
        )
    return objective
