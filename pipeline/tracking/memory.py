"""A tracker in memory: for tests, and for searches that want no MLflow. It shows what MLflow would show."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from pipeline.records import TrialRecord
from pipeline.tracking import projection
from pipeline.tracking.base import FinalistInfo, SearchInfo, SearchStatus, Survey
from pipeline.tracking.projection import Point, RunStatus


@dataclass(slots=True)
class MemoryRun:
    """One run, with the fields that a run in MLflow has."""

    id: str
    name: str
    parent: str | None
    tags: dict[str, str]
    params: dict[str, str] = field(default_factory=dict)
    points: list[Point] = field(default_factory=list)
    files: dict[str, bytes] = field(default_factory=dict)
    model: Path | None = None
    status: RunStatus = "RUNNING"

    def copy(self) -> MemoryRun:
        """Another run with the same content."""
        return replace(
            self, tags=dict(self.tags), params=dict(self.params), points=list(self.points), files=dict(self.files)
        )

    def log(self, points: tuple[Point, ...]) -> None:
        """Add the points that are not there yet."""
        self.points += [point for point in points if point not in self.points]


class InMemoryTracker:
    """Implements `Tracker`. `runs` holds everything, by idempotency key."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self.runs: dict[str, MemoryRun] = {}

    @contextmanager
    def together(self) -> Iterator[None]:
        before = {key: run.copy() for key, run in self.runs.items()}
        try:
            yield
        except BaseException:
            self.runs = before
            raise

    def start_search(self, info: SearchInfo) -> str:
        run = self._run(info.id, None, projection.search_tags(info), projection.search_key(info.id))
        run.status = "RUNNING"
        run.params = projection.texts(info.params) | run.params
        for path, text in {projection.CONFIG_PATH: info.config_yaml, **info.texts}.items():
            run.files[path] = text.encode()
        return run.id

    def start_trial(self, search: str, number: int, family: str, params: Mapping[str, object]) -> str:
        return self._trial(search, number, family, params).id

    def finish_trial(self, record: TrialRecord, package: Path | None) -> str:
        run = self._trial(record.search, record.number, record.family, record.params)
        run.log(projection.trial_points(record))
        run.tags |= projection.end_tags(record)
        run.model = package or run.model
        if record.traceback is not None:
            run.files[projection.TRACEBACK_PATH] = record.traceback.encode()
        run.status = projection.STATUS[record.state]
        return run.id

    def finish_finalist(self, search: str, info: FinalistInfo, package: Path | None, files: Mapping[str, Path]) -> str:
        key, name = projection.finalist_key(search, info.trial), projection.finalist_name(info.trial, info.family)
        run = self._run(name, search, projection.finalist_tags(search, info), key)
        if run.status == "RUNNING":
            run.params = projection.texts(info.params)
            run.log(projection.finite(projection.points(info.metrics, self._clock())))
            run.model = package
            run.files |= {to: source.read_bytes() for to, source in files.items()}
            run.status = "FINISHED"
        return run.id

    def finish_search(
        self,
        search: str,
        status: SearchStatus,
        metrics: Mapping[str, float],
        tags: Mapping[str, str],
        files: Mapping[str, Path],
    ) -> None:
        run = self.runs[projection.search_key(search)]
        run.log(projection.finite(projection.points(metrics, self._clock())))
        run.tags |= tags
        run.files |= {to: source.read_bytes() for to, source in files.items()}
        self.end_search(search, status)

    def interrupt_search(self, search: str) -> None:
        self.end_search(search, "KILLED")

    def survey(self, search: str) -> Survey | None:
        if projection.search_key(search) not in self.runs:
            return None
        states = {
            int(r.tags[projection.TRIAL]): r.tags.get(projection.STATE, "unfinished") for r in self._trials(search)
        }
        mine = [run for run in self.runs.values() if run.tags[projection.SEARCH] == search]
        return Survey(states, sum(run.status == "RUNNING" for run in mine), 0)

    def trial_states(self, search: str) -> dict[int, str]:
        return {
            int(run.tags[projection.TRIAL]): run.tags.get(projection.STATE, "RUNNING") for run in self._trials(search)
        }

    def run_url(self, search: str) -> str:
        return f"memory:{self.runs[projection.search_key(search)].id}"

    def close(self) -> None:
        """Nothing waits here."""

    def end_search(self, search: str, status: SearchStatus) -> None:
        for child in self._trials(search):
            if child.status == "RUNNING":
                child.status = "KILLED"
        self.runs[projection.search_key(search)].status = status

    def _trial(self, search: str, number: int, family: str, params: Mapping[str, object]) -> MemoryRun:
        tags = projection.trial_tags(search, number, family)
        run = self._run(projection.trial_name(number, family), search, tags, projection.trial_key(search, number))
        run.params |= projection.texts(params)
        if projection.STATE not in run.tags:
            run.status = "RUNNING"
        return run

    def _run(self, name: str, search: str | None, tags: dict[str, str], key: str) -> MemoryRun:
        if key not in self.runs:
            parent = None if search is None else self.runs[projection.search_key(search)].id
            self.runs[key] = MemoryRun(f"run-{len(self.runs):06d}", name, parent, tags)
        return self.runs[key]

    def _trials(self, search: str) -> list[MemoryRun]:
        return [
            run
            for run in self.runs.values()
            if run.tags[projection.ROLE] == "trial" and run.tags[projection.SEARCH] == search
        ]
