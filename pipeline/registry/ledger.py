"""The ledger of champions: every move of every champion alias in one file that only grows, and the intent of the move
that is being made, by which a move that was cut short is put on the ledger by whoever comes next."""

from __future__ import annotations

import getpass
import json
import time
import uuid
from collections.abc import Sequence
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from pipeline.files import append_line, read_lines, write_atomic
from pipeline.redaction import Redacted


class Move(BaseModel):
    """One move of the champion alias."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str = ""
    """Of the move: one that was written down by whoever cleaned up after a kill is not written down twice."""
    time: float
    """Unix seconds."""
    who: str
    model: str
    action: str
    """``promote``, ``force``, ``rollback``, or ``elsewhere`` for what another tool or another machine did."""
    before: int | None
    after: int | None
    evidence: tuple[Redacted, ...]


def new_move(name: str, action: str, before: int | None, after: int | None, evidence: Sequence[str]) -> Move:
    """A move by whoever runs this process, now."""
    return Move(
        id=uuid.uuid4().hex,
        time=time.time(),
        who=getpass.getuser(),
        model=name,
        action=action,
        before=before,
        after=after,
        evidence=tuple(evidence),
    )


def history(ledger: Path, name: str) -> list[Move]:
    """All moves of a model's champion alias, oldest first."""
    moves = [Move.model_validate_json(line) for line in read_lines(ledger)]
    return [move for move in moves if move.model == name]


def last_move(ledger: Path, name: str, version: int | None) -> Move | None:
    """How a version last became the champion; None where it never did."""
    return next((move for move in reversed(history(ledger, name)) if move.after == version), None)


def record(ledger: Path, move: Move) -> None:
    """Put a move on the ledger, durably."""
    append_line(ledger, json.dumps(move.model_dump(mode="json")))


def read_intent(ledger: Path, name: str) -> Move | None:
    """The move that was being made when its process died; None where all that was begun has ended."""
    try:
        return Move.model_validate_json(_intent(ledger, name).read_bytes())
    except FileNotFoundError:
        return None


def write_intent(ledger: Path, move: Move) -> None:
    """Say durably what is about to be done."""
    write_atomic(_intent(ledger, move.model), move.model_dump_json().encode())


def clear_intent(ledger: Path, name: str) -> None:
    """It was done, or it never will be."""
    _intent(ledger, name).unlink(missing_ok=True)


def _intent(ledger: Path, name: str) -> Path:
    return ledger.parent / "intents" / f"{name}.json"
