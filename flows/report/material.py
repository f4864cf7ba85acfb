"""What a report is made of, gathered from the search's folder: it needs no store, and works while a search runs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from optuna import Study

from flows.stages.evaluate import EVALUATION
from flows.stages.explain import read_explanation
from flows.stages.promote import PROMOTION, PromotionRecord
from flows.workspace import Workspace
from pipeline.data.prepare import Prepared, find_prepared
from pipeline.evaluation.explanation import Explanation
from pipeline.evaluation.finalists import Evaluation
from pipeline.records import TrialRecord, read_records
from pipeline.registry.ledger import Move, history
from pipeline.search.directory import SearchState
from pipeline.search.importance import importances
from pipeline.search.study import read_study


@dataclass(frozen=True, slots=True)
class Material:
    """Everything a report says. What is None has not happened yet, or was removed since."""

    state: SearchState
    records: tuple[TrialRecord, ...]
    evaluation: Evaluation | None
    promotion: PromotionRecord | None
    prepared: Prepared | None
    explanation: Explanation | None
    """Of the winner."""
    study: Study | None
    """Optuna's own, which its plots are drawn from."""
    importance: dict[str, dict[str, float]]
    """By family, then by parameter."""
    moves: tuple[Move, ...]
    """Of the registered model's champion alias."""


def gather(workspace: Workspace, state: SearchState, model: str) -> Material:
    """Read what is on disk of a search.

    Args:
        model: the registered model's name.
    """
    directory = workspace.search(state.id)
    records = tuple(read_records(directory))
    evaluation = _read(directory / EVALUATION)
    study = read_study(directory, state.id)
    return Material(
        state=state,
        records=records,
        evaluation=None if evaluation is None else Evaluation.model_validate_json(evaluation),
        promotion=None if (said := _read(directory / PROMOTION)) is None else PromotionRecord.model_validate_json(said),
        prepared=find_prepared(workspace.data, state.fingerprint),
        explanation=read_explanation(directory),
        study=study,
        importance={} if study is None else importances(study, records),
        moves=tuple(history(workspace.ledger, model)),
    )


def _read(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None
