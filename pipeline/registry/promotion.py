"""Promotion as a transaction: lock, intent, alias, tags, ledger. A kill after any of them leaves a champion that
serves, and whoever comes next finishes what was begun: no move is missing from the ledger, none on it did not happen.

The lock and the ledger lie in the state folder, so this holds among the processes that share one. What another machine
or MLflow's own UI did to the alias is seen at the next move, and put on the ledger as done elsewhere.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from pipeline.errors import ChampionMovedError, GateError
from pipeline.files import exclusive_lock
from pipeline.redaction import redacted
from pipeline.registry.base import PREVIOUS, ModelRegistry, ModelVersion
from pipeline.registry.ledger import Move, clear_intent, history, new_move, read_intent, record, write_intent

MAX_EVIDENCE = 4000
"""Characters of the evidence that a version's tag keeps; the ledger keeps all."""


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
    """Register the model that `run_id` logged and make it the champion. Said again after a kill, it is done once.

    Args:
        expected: the champion that the candidate was compared with; None when there was none.
        verify: loads the version as a user would and raises PackageError where it does not reproduce itself.

    Raises:
        ChampionMovedError: the champion is another one than `expected`.
    """
    version = registry.register(name, run_id, key, tags)
    verify(version)
    with _settled(registry, name, ledger):
        _move(registry, new_move(name, action, expected, version.version, evidence), ledger)
    return version


def rollback(
    registry: ModelRegistry, name: str, *, verify: Callable[[ModelVersion], None], ledger: Path, reason: str
) -> ModelVersion:
    """Make the previous champion the champion again.

    Raises:
        GateError: there is no previous champion.
    """
    with _settled(registry, name, ledger):
        champion = registry.champion(name)
        previous = None if champion is None else _previous(registry, champion, ledger)
        if champion is None or previous is None:
            raise GateError(f"{name} has no previous champion to go back to; see `automl models {name}`")
        verify(previous)
        _move(registry, new_move(name, "rollback", champion.version, previous.version, [reason]), ledger)
        return previous


def settle(registry: ModelRegistry, name: str, ledger: Path) -> None:
    """Finish the books of a move that was cut short, and note what moved the alias without us."""
    with _settled(registry, name, ledger):
        pass


@contextmanager
def _settled(registry: ModelRegistry, name: str, ledger: Path) -> Iterator[None]:
    """Nobody else who shares the ledger moves this champion meanwhile, and the ledger ends at the present one."""
    lock = ledger.parent / "locks" / f"{name}.promotion.lock"
    with exclusive_lock(lock, f"promoting {name}", wait=True):
        current = _champion(registry, name)
        intent = read_intent(ledger, name)
        if intent is not None and intent.after == current:
            _write_down(registry, intent, ledger)
        moves = history(ledger, name)
        known = moves[-1].after if moves else None
        if known != current:
            record(ledger, new_move(name, "elsewhere", known, current, ["the alias was found moved"]))
        if intent is not None:
            clear_intent(ledger, name)
        yield


def _move(registry: ModelRegistry, move: Move, ledger: Path) -> None:
    """Move the alias; the caller holds the lock.

    Raises:
        ChampionMovedError: the champion is not ``move.before`` any more.
    """
    assert move.after is not None, "a champion is replaced, never taken away"
    current = _champion(registry, move.model)
    if current == move.after:
        return  # by an earlier try, whose move the ledger has by now
    if current != move.before:
        raise ChampionMovedError(move.model, current, move.before)
    write_intent(ledger, move)
    registry.move_champion(move.model, move.after, move.before)
    _write_down(registry, move, ledger)
    clear_intent(ledger, move.model)


def _write_down(registry: ModelRegistry, move: Move, ledger: Path) -> None:
    """What follows a moved alias: the version's tags, then the ledger's line. Twice is once."""
    assert move.after is not None
    evidence = redacted(" | ".join(move.evidence))[:MAX_EVIDENCE]
    registry.tag(move.model, move.after, {"automl.promoted": "true", "automl.evidence": evidence})
    if all(known.id != move.id for known in history(ledger, move.model)):
        record(ledger, move)


def _champion(registry: ModelRegistry, name: str) -> int | None:
    champion = registry.champion(name)
    return None if champion is None else champion.version


def _previous(registry: ModelRegistry, champion: ModelVersion, ledger: Path) -> ModelVersion | None:
    """The version that `previous` names. A move that was cut short leaves that alias on the champion itself: then the
    ledger knows."""
    versions = registry.versions(champion.name)
    named = next((v for v in versions if PREVIOUS in v.aliases and v.version != champion.version), None)
    if named is not None:
        return named
    befores = [m.before for m in history(ledger, champion.name) if m.after == champion.version]
    return next((v for v in versions if befores and v.version == befores[-1]), None)
