"""Promotion: from gates to the champion alias, every move on a ledger that only grows."""

from __future__ import annotations

import getpass
import json
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from pipeline.errors import GateError
from pipeline.files import append_line, read_lines
from pipeline.redaction import Redacted, redacted
from pipeline.registry.base import PREVIOUS, ModelRegistry, ModelVersion


class Move(BaseModel):
    """One move of the champion alias."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    time: float
    """Unix seconds."""
    who: str
    model: str
    action: str
    """``promote``, ``force`` or ``rollback``."""
    before: int | None
    after: int
    evidence: tuple[Redacted, ...]


def promote(
    registry: ModelRegistry,
    name: str,
    run_id: str,
    key: str,
    tags: Mapping[str, str],
    *,
    expected: int | None,
    action: str,
    evidence: Sequence[str],
    verify: Callable[[ModelVersion], None],
    ledger: Path,
) -> ModelVersion:
    """Register the model that `run_id` logged and make it the champion.

    Args:
        expected: the champion that the candidate was compared with; None when there was none.
        verify: loads the version as a user would and raises PackageError where it does not reproduce itself.

    Raises:
        GateError: the champion has moved since.
    """
    version = registry.register(name, run_id, key, tags)
    verify(version)
    registry.move_champion(name, version.version, expected)
    registry.tag(
        name, version.version, {"automl.promoted": "true", "automl.evidence": redacted(" | ".join(evidence))[:4000]}
    )
    _record(ledger, name, action, expected, version.version, evidence)
    return version


def rollback(
    registry: ModelRegistry, name: str, *, verify: Callable[[ModelVersion], None], ledger: Path, reason: str
) -> ModelVersion:
    """Make the previous champion the champion again.

    Raises:
        GateError: there is no previous champion.
    """
    champion = registry.champion(name)
    previous = next((v for v in registry.versions(name) if PREVIOUS in v.aliases), None)
    if champion is None or previous is None:
        raise GateError(f"{name} has no previous champion to go back to; see `automl models {name}`")
    verify(previous)
    registry.move_champion(name, previous.version, champion.version)
    _record(ledger, name, "rollback", champion.version, previous.version, [reason])
    return previous


def history(ledger: Path, name: str) -> list[Move]:
    """All moves of a model's champion alias, oldest first."""
    moves = [Move.model_validate_json(line) for line in read_lines(ledger)]
    return [move for move in moves if move.model == name]


def _record(ledger: Path, name: str, action: str, before: int | None, after: int, evidence: Sequence[str]) -> None:
    move = Move(
        time=time.time(),
        who=getpass.getuser(),
        model=name,
        action=action,
        before=before,
        after=after,
        evidence=tuple(evidence),
    )
    append_line(ledger, json.dumps(move.model_dump(mode="json")))
