"""The gates of a promotion: conditions on the winner's sealed-test scores, each with its evidence in one line."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import BaseModel, ConfigDict

from pipeline.config import Gate
from pipeline.data.spec import Task
from pipeline.errors import ConfigError
from pipeline.evaluation.finalists import Evaluation
from pipeline.objective import COSTS, QUANTITIES, metrics_for


class GateResult(BaseModel):
    """Whether a gate is passed, and by what."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    gate: str
    passed: bool
    evidence: str


def check_gates(gates: Sequence[Gate], task: Task) -> None:
    """Look at the gates before anything is trained.

    Raises:
        ConfigError: a gate on a metric that the task does not have.
    """
    known = (*metrics_for(task), *(name for name in COSTS if name != "ece" or task not in QUANTITIES))
    for gate in gates:
        if gate.metric is not None and gate.metric not in known:
            raise ConfigError(
                f"`promotion.gates` must use metrics of a {task} task, but got {gate.metric!r}",
                f"use one of {', '.join(known)}",
            )


def judge(gates: Sequence[Gate], evaluation: Evaluation) -> tuple[GateResult, ...]:
    """Every gate against the winner. A metric that is undefined on the test rows passes nothing."""
    return tuple(_beats_champion(gate, evaluation) if gate.beats else _bounds(gate, evaluation) for gate in gates)


def _bounds(gate: Gate, evaluation: Evaluation) -> GateResult:
    assert gate.metric is not None
    low = "" if gate.min is None else f">= {gate.min:g}"
    high = "" if gate.max is None else f"<= {gate.max:g}"
    name = f"{gate.metric} {' and '.join(filter(None, (low, high)))}"
    winner = evaluation.winner
    score, cost = winner.test.get(gate.metric), winner.costs.get(gate.metric)
    value = cost if score is None else score.value
    if value is None:
        return GateResult(gate=name, passed=False, evidence=f"{gate.metric} is undefined on the sealed test's rows")
    passed = (gate.min is None or value >= gate.min) and (gate.max is None or value <= gate.max)
    return GateResult(
        gate=name, passed=passed, evidence=f"measured: {value:.4g}" if score is None else f"sealed test: {score}"
    )


def _beats_champion(gate: Gate, evaluation: Evaluation) -> GateResult:
    name = f"beats champion with probability > {gate.confidence:g}"
    if evaluation.champion is None:
        return GateResult(gate=name, passed=True, evidence="there is no champion yet")
    if evaluation.versus_champion is None:
        return GateResult(
            gate=name,
            passed=False,
            evidence=f"champion v{evaluation.champion} is not comparable: {evaluation.champion_problem}",
        )
    comparison = evaluation.versus_champion
    return GateResult(
        gate=name,
        passed=comparison.difference.value > 0 and comparison.probability_better > gate.confidence,
        evidence=(
            f"difference to v{evaluation.champion}: {comparison.difference} {evaluation.metric}, better in "
            f"{comparison.probability_better:.1%} of resamples{evaluation.compared_rows}"
        ),
    )
