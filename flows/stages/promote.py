"""The promotion stage: gates, the registered version, the champion alias."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from flows.stages.evaluate import Evaluated, evaluate_stage
from flows.stages.experiment import Experiment
from flows.stores import Stores
from pipeline.data.prepare import Prepared
from pipeline.errors import ChampionMovedError
from pipeline.evaluation.gates import GateResult, judge
from pipeline.registry.base import ModelRegistry, ModelVersion
from pipeline.registry.loading import load_version
from pipeline.registry.promotion import promote, settle
from pipeline.search.directory import (
    SearchState,
)

COMPARISONS: Final = 5
"""So often a winner is compared with a champion that keeps moving."""


@dataclass(frozen=True, slots=True)
class Promotion:
    """What became of the winner: one line for people, and the gates behind it."""

    promoted: bool
    line: str
    gates: tuple[GateResult, ...]
    version: int | None
    evaluated: Evaluated
    """What the gates judged: the evaluation that came in, or a newer one where the champion moved meanwhile."""


def promote_stage(
    experiment: Experiment, state: SearchState, evaluated: Evaluated, prepared: Prepared, stores: Stores
) -> Promotion:
    """Make the winner the champion if every gate is passed. Where another search was faster, the winner is compared
    again, with its champion.

    Raises:
        ChampionMovedError: the champion moves faster than we compare.
    """
    for _ in range(COMPARISONS - 1):
        try:
            return _promote(experiment, state, evaluated, prepared, stores.registry)
        except ChampionMovedError:
            evaluated = evaluate_stage(experiment, prepared, state, stores)
    return _promote(experiment, state, evaluated, prepared, stores.registry)


def _promote(
    experiment: Experiment, state: SearchState, evaluated: Evaluated, prepared: Prepared, registry: ModelRegistry
) -> Promotion:
    name = experiment.config.registered_model
    evaluation = evaluated.evaluation
    settle(registry, name, experiment.workspace.ledger)
    winner = evaluation.winner
    champion = registry.champion(name)
    key = f"{state.id}/{winner.trial}"
    if champion is not None and champion.tags.get("automl.key") == key:
        return Promotion(
            False,
            f"{name} v{champion.version} is already the champion from this search",
            (),
            champion.version,
            evaluated,
        )
    gates = judge(experiment.config.promotion.gates, evaluation)
    failed = [gate for gate in gates if not gate.passed]
    if failed:
        current = "no champion" if champion is None else f"champion v{champion.version} unchanged"
        line = f"{name}: {current}: {failed[0].gate} not passed ({failed[0].evidence})"
        return Promotion(False, line, gates, None, evaluated)
    version = make_champion(
        experiment,
        state,
        winner.trial,
        evaluated.runs[winner.trial],
        prepared,
        registry,
        expected=evaluation.champion,
        action="promote",
        evidence=[f"{g.gate}: {g.evidence}" for g in gates],
    )
    score = winner.test[evaluation.metric]
    return Promotion(
        True,
        f"promoted {name} v{version.version}: {evaluation.metric} {score} on the sealed test",
        gates,
        version.version,
        evaluated,
    )


def make_champion(
    experiment: Experiment,
    state: SearchState,
    trial: int,
    run_id: str,
    prepared: Prepared,
    registry: ModelRegistry,
    *,
    expected: int | None,
    action: str,
    evidence: list[str],
) -> ModelVersion:
    """Register a trial's model, verify what was registered, and move the alias."""
    directory = experiment.workspace.search(state.id)

    def verify(version: ModelVersion) -> None:
        load_version(registry, version, directory / f"verify-v{version.version}")

    return promote(
        registry,
        experiment.config.registered_model,
        run_id,
        f"{state.id}/{trial}",
        {
            "automl.search": state.id,
            "automl.trial": str(trial),
            "automl.data": prepared.fingerprint,
            "automl.split": prepared.split_hash,
        },
        expected=expected,
        action=action,
        evidence=evidence,
        verify=verify,
        ledger=experiment.workspace.ledger,
    )
