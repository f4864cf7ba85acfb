"""The gates of a promotion: conditions on the winner's sealed-test scores, each with its evidence in one line."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import BaseModel, ConfigDict

from pipeline.config import Gate
from pipeline.errors import ConfigError
from pipeline.evaluation.finalists import Evaluation


class GateResult(BaseModel):
    """Whether a gate is passed, and by what."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    gate: str
    passed: bool
    evidence: str


def judge(gates: Sequence[Gate], evaluation: Evaluation) -> tuple[GateResult, ...]:
    """Every gate against the winner.

    Raises:
        ConfigError: a gate on a metric that the task does not have.
    """
    return tuple(_beats_champion(gate, evaluation) if gate.beats else _bounds(gate, evaluation) for gate in gates)


def _bounds(gate: Gate, evaluation: Evaluation) -> GateResult:
    scores = evaluation.winner.test
    assert gate.metric is not None
    if gate.metric not in scores:
        raise ConfigError(
            f"`promotion.gates` must use metrics of this task, but got {gate.metric!r}",
            f"use one of {', '.join(scores)}",
        )
    score = scores[gate.metric]
    low = "" if gate.min is None else f">= {gate.min:g}"
    high = "" if gate.max is None else f"<= {gate.max:g}"
    passed = (gate.min is None or score.value >= gate.min) and (gate.max is None or score.value <= gate.max)
    bounds = " and ".join(filter(None, (low, high)))
    return GateResult(gate=f"{gate.metric} {bounds}", passed=passed, evidence=f"sealed test: {score}")


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
            f"{comparison.probability_better:.1%} of resamples"
        ),
    )
