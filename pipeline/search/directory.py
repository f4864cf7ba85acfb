"""A search on disk: ``searches/<id>/`` with its state, lock, journal and trials; the state is replaced atomically."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import yaml
from pydantic import BaseModel, ConfigDict

from pipeline.errors import SearchError
from pipeline.files import Locked, exclusive_lock, write_atomic
from pipeline.redaction import Redacted

STATE = "search.json"
LOCK = "lock"

Status = Literal["unfinished", "finished", "failed"]


class SearchState(BaseModel):
    """What a search is, and how far it got. Times are Unix seconds; durations seconds."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str
    experiment: str
    config_yaml: str
    """As `ExperimentConfig.to_yaml` gives it: secrets are masked."""
    fingerprint: str
    split_hash: str
    created: float
    status: Status = "unfinished"
    elapsed: float = 0.0
    """Time spent searching over all starts: what ``budget.time`` bounds."""
    reason: Redacted = ""
    """Why it ended."""


RESUMABLE_CHANGES = ("search.budget", "resources", "evaluate", "promotion", "tracking.models", "schedule")
"""What may differ between the starts of one search."""


def searches(state_directory: Path) -> Path:
    """The folder of all searches."""
    return state_directory / "searches"


def new_id(experiment: str, now: float, parent: Path) -> str:
    """``digits-20260101-031500``, with a counter where that exists."""
    base = f"{experiment}-{time.strftime('%Y%m%d-%H%M%S', time.gmtime(now))}"
    candidates = (base if n == 1 else f"{base}-{n}" for n in range(1, 10_000))
    return next(candidate for candidate in candidates if not (parent / candidate).exists())


def read_state(directory: Path) -> SearchState | None:
    """The state in this directory; None where there is none.

    Raises:
        SearchError: it is damaged.
    """
    path = directory / STATE
    try:
        return SearchState.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise SearchError(f"{path}: damaged ({str(error).splitlines()[0]}); move {directory} away") from error


def write_state(directory: Path, state: SearchState) -> None:
    """Replace the state."""
    write_atomic(directory / STATE, state.model_dump_json(indent=1).encode())


def states_of(state_directory: Path, experiment: str) -> list[SearchState]:
    """All searches of an experiment, oldest first."""
    parent = searches(state_directory)
    if not parent.is_dir():
        return []
    found = [read_state(directory) for directory in sorted(parent.iterdir()) if directory.is_dir()]
    mine = [state for state in found if state is not None and state.experiment == experiment]
    return sorted(mine, key=lambda state: state.created)


def differences(old: str, new: str) -> list[str]:
    """Fields of two resolved experiment files that differ and may not: ``search.seed: 0 -> 1``."""
    before, after = _flat(yaml.safe_load(old)), _flat(yaml.safe_load(new))
    return [
        f"{key}: {before.get(key)!r} -> {after.get(key)!r}"
        for key in sorted(before.keys() | after.keys())
        if before.get(key) != after.get(key) and not key.startswith(RESUMABLE_CHANGES)
    ]


def _flat(value: object, prefix: str = "") -> dict[str, object]:
    if not isinstance(value, dict) or not value:
        return {prefix: value}
    return {k: v for key, item in value.items() for k, v in _flat(item, f"{prefix}.{key}".lstrip(".")).items()}


@contextmanager
def search_lock(directory: Path) -> Iterator[None]:
    """Be the one controller of a search; the lock dies with the process.

    Raises:
        SearchError: another controller runs; the message says which.
    """
    holder = f"pid {os.getpid()} on {socket.gethostname()}"
    try:
        with exclusive_lock(directory / LOCK, holder):
            yield
    except Locked as error:
        raise SearchError(
            f"search {directory.name} is already running: {error.holder}; wait for it or stop it"
        ) from None
