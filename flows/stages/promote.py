"""The promotion stage: gates, the registered version, the champion alias."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pydantic import BaseModel, ConfigDict

from flows.stages.evaluate import Evaluated, evaluate_stage
from flows.stages.experiment import Experiment
from flows.stores import Stores
from pipeline.data.prepare import Prepared
from pipeline.errors import ChampionMovedError
from pipeline.evaluation.gates import GateResult, judge
from pipeline.files import write_atomic
from pipeline.registry.base import ModelRegistry, ModelVersion
from pipeline.registry.ledger import Move, last_move
from pipeline.registry.loading import load_version
from pipeline.registry.promotion import promote, settle
from pipeline.search.directory import (
    SearchState,
)

PROMOTION: Final = "promotion.json"
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

    def move(self, model: str, ledger: Path) -> Move | None:
        """What the ledger says of it; None where nothing was promoted."""
        return last_move(ledger, model, self.version) if self.promoted else None


class PromotionRecord(BaseModel):
    """A promotion as the search's folder keeps it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    promoted: bool
    line: str
    gates: tuple[GateResult, ...]
    version: int | None


def promote_stage(
    experiment: Experiment,
    state: SearchState,
    evaluated: Evaluated,
    prepared: Prepared,
    stores: Stores,
    *,
    asked: bool = False,
    promotes: bool = True,
) -> Promotion:
    """Make the winner the champion if every gate is passed. Where another search was faster, the winner is compared
    again, with its champion.

    Args:
        asked: a person asks for the promotion; without one `promotion.mode` decides whether it is made.
        promotes: with it off the gates are judged, and that is all.

    Raises:
        ChampionMovedError: the champion moves faster than we compare.
    """
    promotes = promotes or asked
    for n in range(1, COMPARISONS + 1):
        try:
            promotion = _promote(
                experiment, state, evaluated, prepared, stores.registry, asked=asked, promotes=promotes
            )
            break
        except ChampionMovedError:
            if n == COMPARISONS:
                raise
            evaluated = evaluate_stage(experiment, prepared, state, stores)
    _record(experiment.workspace.search(state.id), promotion)
    return promotion


def _record(directory: Path, promotion: Promotion) -> None:
    """Keep what became of the winner. Gates that were judged stay: a champion is not judged again."""
    path = directory / PROMOTION
    if promotion.gates or not path.exists():
        said = PromotionRecord(
            promoted=promotion.promoted, line=promotion.line, gates=promotion.gates, version=promotion.version
        )
        write_atomic(path, said.model_dump_json(indent=1).encode())


def _promote(
    experiment: Experiment,
    state: SearchState,
    evaluated: Evaluated,
    prepared: Prepared,
    registry: ModelRegistry,
    *,
    asked: bool,
    promotes: bool,
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
    if not promotes:
        line = f"{name}: not promoted, though every gate is passed: promotion is off"
        return Promotion(False, line, gates, None, evaluated)
    run_id = evaluated.runs[winner.trial]
    mode = experiment.config.promotion.mode
    if mode == "never" and not asked:
        line = (
            f"{name}: #{winner.trial:03d} passes the gates; promotion.mode is never, `automl promote` moves the alias"
        )
        return Promotion(False, line, gates, None, evaluated)
    if mode == "approve" and not asked:
        tags = _tags(state, winner.trial, prepared) | {"automl.waits": "for approval"}
        waiting = registry.register(name, run_id, key, tags)
        line = f"{name} v{waiting.version} passes the gates and waits for approval: `automl promote` moves the alias"
        return Promotion(False, line, gates, None, evaluated)
    version = make_champion(
        experiment,
        state,
        winner.trial,
        run_id,
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
        _tags(state, trial, prepared),
        expected=expected,
        action=action,
        evidence=evidence,
        verify=verify,
        ledger=experiment.workspace.ledger,
    )


def _tags(state: SearchState, trial: int, prepared: Prepared) -> dict[str, str]:
    """Where a version comes from."""
    return {
        "automl.search": state.id,
        "automl.trial": str(trial),
        "automl.data": prepared.fingerprint,
        "automl.split": prepared.split_hash,
    }
