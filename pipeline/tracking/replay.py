"""What a tracker missed of a search, said again from the search's own directory: the records are the truth."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pydantic import BaseModel, ConfigDict

from pipeline.errors import SearchError
from pipeline.files import write_atomic
from pipeline.records import TrialRecord, read_records
from pipeline.tracking.base import SearchInfo, SearchStatus, Tracker

REPLAY: Final = "replay.json"


class Replay(BaseModel):
    """``replay.json``: what the records do not say, and the tracker was told when the search began."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    info: SearchInfo
    prepared: str
    """Folder of its prepared data set, by name."""


@dataclass(frozen=True, slots=True)
class Replayed:
    """What was done to a search's runs."""

    search: str
    delivered: tuple[int, ...]
    """Trials that the tracker did not have as they are on record."""
    ended: int
    """Runs that were RUNNING without an owner."""
    doubled: int
    """Runs that were there twice."""

    @property
    def changed(self) -> bool:
        return bool(self.delivered or self.ended or self.doubled)


def write_replay(directory: Path, replay: Replay) -> None:
    """Keep it in the search's directory."""
    write_atomic(directory / REPLAY, replay.model_dump_json(indent=1).encode())


def read_replay(directory: Path) -> Replay | None:
    """From a search's directory; None where the search never got so far.

    Raises:
        SearchError: it is damaged.
    """
    try:
        return Replay.model_validate_json((directory / REPLAY).read_bytes())
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise SearchError(f"{directory / REPLAY}: damaged; delete it, and the next `automl run` writes it") from error


def replay_search(
    tracker: Tracker,
    directory: Path,
    replay: Replay,
    status: SearchStatus,
    package: Callable[[TrialRecord], Path | None],
) -> Replayed:
    """Bring a tracker in line with the records of a search that nobody runs. The caller holds the search's lock.

    Args:
        status: what the search is, now that nobody runs it.
        package: the model package of a completed trial that is to have one.
    """
    records = {record.number: record for record in read_records(directory)}
    survey = tracker.survey(replay.info.id)
    states = {} if survey is None else survey.states
    missing = tuple(number for number, record in records.items() if states.get(number) != record.state)
    if survey is not None and not missing and not survey.running and not survey.doubled:
        return Replayed(replay.info.id, (), 0, 0)
    tracker.start_search(replay.info)
    for number in missing:
        record = records[number]
        tracker.finish_trial(record, package(record) if record.state == "COMPLETE" else None)
    tracker.end_search(replay.info.id, status)
    if survey is None:
        return Replayed(replay.info.id, missing, 0, 0)
    return Replayed(replay.info.id, missing, survey.running, survey.doubled)
