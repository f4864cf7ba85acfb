"""What a run ended with, in one line that is read in the morning, and kept beside the search."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict

from flows.stages.evaluate import Evaluated
from flows.stages.promote import Promotion
from pipeline.config import ExperimentConfig
from pipeline.evaluation.intervals import Comparison
from pipeline.files import write_atomic

OUTCOME = "outcome.json"


class Outcome(BaseModel):
    """The end of a run, and what it was asked for: the same again would bring nothing new."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    line: str
    promoted: bool
    promotes: bool
    """Whether the run was to promote at all."""
    config_yaml: str


def result_line(evaluated: Evaluated, promotion: Promotion) -> str:
    """``promoted v7: roc_auc 0.9172 [0.9125, 0.9214], difference to v6 +0.0021 [+0.0004, +0.0039]``, or
    ``champion v6 unchanged: difference -0.0020 [-0.0060, +0.0020]``: challenger minus champion on the same sealed rows,
    positive where the challenger is better."""
    evaluation = evaluated.evaluation
    comparison = None if evaluation.versus_champion is None else _difference(evaluation.versus_champion)
    if promotion.promoted:
        line = f"promoted v{promotion.version}: {evaluation.metric} {evaluation.winner.test[evaluation.metric]}"
        return line if comparison is None else f"{line}, difference to v{evaluation.champion} {comparison}"
    if promotion.version is not None:
        return f"champion v{promotion.version} is from this search already"
    failed = [gate for gate in promotion.gates if not gate.passed]
    if not failed:  # switched off, or somebody is to approve: the promotion says it
        return promotion.line
    champion = "no champion" if evaluation.champion is None else f"champion v{evaluation.champion} unchanged"
    reasons = [] if comparison is None else [f"difference {comparison}"]
    if evaluation.champion_problem is not None:
        reasons.append(f"not comparable, {evaluation.champion_problem}")
    reasons += [f"{gate.gate} not passed ({gate.evidence})" for gate in failed if not gate.gate.startswith("beats")]
    return f"{champion}: {', '.join(reasons)}"


def _difference(comparison: Comparison) -> str:
    over = comparison.over_seeds
    d = comparison.difference if over is None else over.difference
    return f"{d.value:+.4f} [{d.low:+.4f}, {d.high:+.4f}]{'' if over is None else f' over {over.n} seeds'}"


def write_outcome(
    directory: Path, config: ExperimentConfig, evaluated: Evaluated, promotion: Promotion, *, promotes: bool
) -> Outcome:
    """Keep the outcome of a search that is through."""
    outcome = Outcome(
        line=result_line(evaluated, promotion),
        promoted=promotion.promoted,
        promotes=promotes,
        config_yaml=config.to_yaml(),
    )
    write_atomic(directory / OUTCOME, outcome.model_dump_json(indent=1).encode())
    return outcome


def read_outcome(directory: Path) -> Outcome | None:
    """The outcome that a search has; None where it has none yet."""
    try:
        return Outcome.model_validate_json((directory / OUTCOME).read_bytes())
    except FileNotFoundError:
        return None
