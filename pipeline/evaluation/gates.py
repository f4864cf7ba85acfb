"""The gates of a promotion: conditions on the winner's sealed-test scores, each with its evidence in one line."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from typing import Final

from pydantic import BaseModel, ConfigDict

from pipeline.config import Gate
from pipeline.data.slicing import Slicing
from pipeline.data.spec import Task
from pipeline.errors import ConfigError
from pipeline.evaluation.finalists import Evaluation
from pipeline.evaluation.intervals import Comparison
from pipeline.evaluation.slices import MIN_ROWS, Sliced
from pipeline.objective import COSTS, QUANTITIES, metrics_for
from pipeline.text import MAX_SHOWN, shown

MOST_NAMED: Final = 20
"""Columns that an error lists."""


class GateResult(BaseModel):
    """Whether a gate is passed, and by what."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    gate: str
    passed: bool
    evidence: str


def check_gates(gates: Sequence[Gate], task: Task, slicing: Slicing) -> None:
    """Look at the gates before anything is trained.

    Raises:
        ConfigError: a gate on a metric that the task does not have, or on slices of a column that rows are not divided
            by.
    """
    known = (*metrics_for(task), *(name for name in COSTS if name != "ece" or task not in QUANTITIES))
    for gate in gates:
        if gate.metric is not None and gate.metric not in known:
            raise ConfigError(
                f"`promotion.gates` must use metrics of a {task} task, but got {gate.metric!r}",
                f"use one of {', '.join(known)}",
            )
        if gate.slice is not None and gate.slice not in slicing.columns:
            close = difflib.get_close_matches(gate.slice[:MAX_SHOWN], slicing.columns, n=1)
            known_columns = ", ".join(slicing.columns[:MOST_NAMED]) or "none here"
            raise ConfigError(
                f"`promotion.gates` must name a column whose rows can be divided, but got {shown(gate.slice)}",
                f"did you mean {close[0]}?" if close else f"they are {known_columns}",
            )


def judge(gates: Sequence[Gate], evaluation: Evaluation) -> tuple[GateResult, ...]:
    """Every gate against the winner. A metric that is undefined on the test rows passes nothing."""
    return tuple(_judged(gate, evaluation) for gate in gates)


def _judged(gate: Gate, evaluation: Evaluation) -> GateResult:
    if gate.beats:
        return _beats_champion(gate, evaluation)
    return _bounds(gate, evaluation) if gate.slice is None else _slices(gate, gate.slice, evaluation.winner.sliced)


def _bounds(gate: Gate, evaluation: Evaluation) -> GateResult:
    assert gate.metric is not None
    name = _condition(gate)
    winner = evaluation.winner
    score, cost = winner.test.get(gate.metric), winner.costs.get(gate.metric)
    value = cost if score is None else score.value
    if value is None:
        return GateResult(gate=name, passed=False, evidence=f"{gate.metric} is undefined on the sealed test's rows")
    return GateResult(
        gate=name,
        passed=_within(gate, value),
        evidence=f"measured: {value:.4g}" if score is None else f"sealed test: {score}",
    )


def _condition(gate: Gate) -> str:
    low = "" if gate.min is None else f">= {gate.min:g}"
    high = "" if gate.max is None else f"<= {gate.max:g}"
    return f"{gate.metric} {' and '.join(filter(None, (low, high)))}"


def _within(gate: Gate, value: float) -> bool:
    return (gate.min is None or value >= gate.min) and (gate.max is None or value <= gate.max)


def _slices(gate: Gate, column: str, sliced: Sliced | None) -> GateResult:
    """Every level or bin of the column that has rows enough; one on which the metric is undefined passes nothing."""
    assert gate.metric is not None
    name = f"{_condition(gate)} on every slice of {column}"
    read = [] if sliced is None else sliced.of(column)
    if not read:
        why = f"no slice of {column} has {MIN_ROWS} test rows"
        return GateResult(gate=name, passed=False, evidence=why if sliced else "the slices were not read")
    undefined = [s for s in read if gate.metric not in s.test]
    if undefined:
        return GateResult(gate=name, passed=False, evidence=f"{gate.metric} is undefined on {undefined[0].name}")
    scores = {s.name: s.test[gate.metric] for s in read}
    failed = [said for said, score in scores.items() if not _within(gate, score.value)]
    ends = [*([("lowest", min)] if gate.min is not None else []), *([("highest", max)] if gate.max is not None else [])]
    extremes = [(word, end(read, key=lambda s: s.test[gate.metric or ""].value)) for word, end in ends]
    found = " and ".join(f"{word} {s.name}: {s.test[gate.metric]} on {s.n_rows:,} rows" for word, s in extremes)
    return GateResult(
        gate=name,
        passed=not failed,
        evidence=f"holds on {len(read) - len(failed)} of {len(read)} slices with {MIN_ROWS} test rows or more; {found}",
    )


def beats(comparison: Comparison, confidence: float) -> bool:
    """Whether the two-sided interval of the difference, at this confidence, lies above 0.

    Where the challenger was trained over seeds it is the interval of their mean's difference, luck in training
    included, and the model itself must be ahead, too. Where it was trained once, luck in training passes: the same
    configuration with another seed, luckier by more than the rows' error, is a better model, and next time is not.
    """
    over = comparison.over_seeds
    surely = comparison.probability_better if over is None else over.probability_better
    return comparison.difference.value > 0 and surely > (1 + confidence) / 2


def _beats_champion(gate: Gate, evaluation: Evaluation) -> GateResult:
    name = f"beats champion at {gate.confidence:.3g} confidence"
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
        passed=beats(comparison, gate.confidence),
        evidence=(
            f"difference to v{evaluation.champion}: {comparison.told(evaluation.metric, evaluation.compared_rows)}"
        ),
    )
