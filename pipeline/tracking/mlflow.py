"""EDGE mlflow: searches as parent runs, trials as child runs, through explicit ids only (no active run, no globals)."""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from mlflow import MlflowClient
from mlflow.entities import DatasetInput, Run
from mlflow.exceptions import MlflowException

from pipeline.errors import StoreError
from pipeline.packaging.package import package_digest
from pipeline.records import TrialRecord
from pipeline.tracking import entities, projection
from pipeline.tracking.artifacts import put_file, put_folder, put_text
from pipeline.tracking.base import FinalistInfo, SearchInfo, SearchStatus, StoreRefusedError
from pipeline.tracking.model_folder import ModelFolders, history_tag
from pipeline.tracking.projection import KEY, PACKAGE, ROLE, SEARCH, STATE, STATUS, TRIAL
from pipeline.tracking.store import is_server, open_store, store_errors

PARENT: Final = "mlflow.parentRunId"
RESUMED_WITH: Final = "automl.resumed_with"
PAGE: Final = 1000


@dataclass(slots=True)
class _Run:
    """What is known of a run without asking the store. `state` is set once the run has ended as that state's should."""

    id: str
    artifact_uri: str
    running: bool
    described: bool
    """It has its params and its data set."""
    state: str | None
    package: str | None


@dataclass(frozen=True, slots=True)
class _Search:
    experiment: str
    run: _Run
    datasets: list[DatasetInput]


class MLflowTracker:
    """Implements `Tracker` on an MLflow database or server. One writer a search; its threads take turns.

    Args:
        uri: absolute tracking URI.
        artifacts: folder under which each experiment keeps its files; a server puts them where it wants to instead.
        clock: Unix seconds.

    Raises:
        StoreError: the store cannot be opened.
    """

    def __init__(self, uri: str, artifacts: Path, clock: Callable[[], float] = time.time) -> None:
        self._uri, self._artifacts, self._clock = uri, artifacts.absolute(), clock
        self._lock = threading.RLock()
        self._client: MlflowClient = open_store(uri)
        self._searches: dict[str, _Search] = {}
        self._runs: dict[str, _Run] = {}
        """By idempotency key: every run of the searches in `_searches`."""
        self._doubtful: set[str] = set()
        """Keys whose creation was asked for and not answered: looked for before they are created again."""
        self._models = ModelFolders()

    def start_search(self, info: SearchInfo) -> str:
        with self._lock, store_errors(f"start search {info.id}"):
            experiment = self._experiment(info.experiment)
            found = self._find([experiment], projection.search_key(info.id))
            run = found or self._create(experiment, info.id, projection.search_tags(info), self._clock(), info.id)
            search = _Search(experiment, _known(run), [entities.dataset_input(info)])
            params = projection.texts(info.params) if found is None else self._resume(found, info)
            self._client.log_batch(run.info.run_id, params=entities.params(params))
            self._client.log_inputs(run.info.run_id, search.datasets)
            put_text(self._client, run.info.run_id, run.info.artifact_uri, info.config_yaml, projection.CONFIG_PATH)
            self._searches[info.id] = search
            return search.run.id

    def start_trial(self, search: str, number: int, family: str, params: Mapping[str, object]) -> str:
        with self._lock, store_errors(f"start trial {number} of {search}"):
            return self._start_trial(search, number, family, params, self._clock()).id

    def finish_trial(self, record: TrialRecord, package: Path | None) -> str:
        with self._lock, store_errors(f"finish trial {record.number} of {record.search}"):
            run = self._start_trial(record.search, record.number, record.family, record.params, record.started)
            tags = self._put_model(run, package)
            if run.state != record.state:
                if record.traceback is not None:
                    put_text(self._client, run.id, run.artifact_uri, record.traceback, projection.TRACEBACK_PATH)
                points = entities.metrics(projection.trial_points(record))
                tags |= projection.end_tags(record)
                self._client.log_batch(run.id, metrics=points, tags=entities.tags(tags))
                self._end(run, STATUS[record.state], record.finished)
                run.state = record.state
            elif tags:
                self._client.log_batch(run.id, tags=entities.tags(tags))
            run.package = tags.get(PACKAGE, run.package)
            return run.id

    def finish_finalist(self, search: str, info: FinalistInfo, package: Path | None, files: Mapping[str, Path]) -> str:
        with self._lock, store_errors(f"store finalist {info.trial} of {search}"):
            parent = self._search(search)
            name = projection.finalist_name(info.trial, info.family)
            run = self._child(parent, name, projection.finalist_tags(search, info), self._clock())
            self._describe(run, parent, info.params)
            if run.state is None:
                for to, source in files.items():
                    put_file(self._client, run.id, run.artifact_uri, source, to)
                tags = self._put_model(run, package)
                points = projection.finite(projection.points(info.metrics, self._clock()))
                self._client.log_batch(
                    run.id,
                    metrics=entities.metrics(points),
                    tags=entities.tags(tags | {STATE: "COMPLETE"}),
                )
                self._end(run, "FINISHED", self._clock())
                run.state = "COMPLETE"
            return run.id

    def finish_search(
        self,
        search: str,
        status: SearchStatus,
        metrics: Mapping[str, float],
        tags: Mapping[str, str],
        files: Mapping[str, Path],
    ) -> None:
        with self._lock, store_errors(f"finish search {search}"):
            run = self._search(search).run
            for to, source in files.items():
                put_file(self._client, run.id, run.artifact_uri, source, to)
            now = self._clock()
            points = projection.finite(projection.points(metrics, now))
            self._client.log_batch(run.id, metrics=entities.metrics(points), tags=entities.tags(tags))
            self._end_search(search, status, now)

    def interrupt_search(self, search: str) -> None:
        with self._lock, store_errors(f"interrupt search {search}"):
            self._end_search(search, "KILLED", self._clock())

    def trial_states(self, search: str) -> dict[int, str]:
        with self._lock, store_errors(f"read the trials of {search}"):
            experiment = self._search(search).experiment
            trials = [run for run in self._children(experiment, search) if run.data.tags.get(ROLE) == "trial"]
        claims = Counter(int(run.data.tags[TRIAL]) for run in trials)
        doubled = sorted(number for number, count in claims.items() if count > 1)
        if doubled:
            raise StoreError(f"two runs or more claim trial {doubled[0]} of {search}; delete all but one in MLflow")
        return {int(run.data.tags[TRIAL]): _known(run).state or "RUNNING" for run in trials}

    def run_url(self, search: str) -> str:
        with self._lock, store_errors(f"look up search {search}"):
            found = self._search(search)
        path = f"#/experiments/{found.experiment}/runs/{found.run.id}"
        return f"{self._uri.rstrip('/')}/{path}" if is_server(self._uri) else f"/{path}"

    def close(self) -> None:
        """Nothing waits here: every method returns once MLflow has stored what it was told."""

    # Runs, by key.

    def _start_trial(self, search: str, number: int, family: str, params: Mapping[str, object], started: float) -> _Run:
        parent = self._search(search)
        tags = projection.trial_tags(search, number, family)
        run = self._child(parent, projection.trial_name(number, family), tags, started)
        self._describe(run, parent, params)
        if run.state is None and not run.running:
            self._client.update_run(run.id, status="RUNNING")
            run.running = True
        return run

    def _child(self, parent: _Search, name: str, tags: dict[str, str], started: float) -> _Run:
        key = tags[KEY]
        if key not in self._runs:
            found = self._find([parent.experiment], key) if key in self._doubtful else None
            run = found or self._create(parent.experiment, name, tags | {PARENT: parent.run.id}, started, key)
            self._runs[key] = _known(run)
        return self._runs[key]

    def _describe(self, run: _Run, parent: _Search, params: Mapping[str, object]) -> None:
        if not run.described:
            self._client.log_batch(run.id, params=entities.params(projection.texts(params)))
            self._client.log_inputs(run.id, parent.datasets)
            run.described = True

    def _create(self, experiment: str, name: str, tags: dict[str, str], started: float, key: str) -> Run:
        self._doubtful.add(key)
        run = self._client.create_run(
            experiment,
            start_time=projection.milliseconds(started),
            tags=tags | entities.source_tags(),
            run_name=name,
        )
        self._doubtful.discard(key)
        return run

    def _find(self, experiments: list[str], key: str) -> Run | None:
        found = self._client.search_runs(experiments, f"tags.`{KEY}` = '{key}'", max_results=1)
        return found[0] if found else None

    def _search(self, search: str) -> _Search:
        """The parent run and all children, from memory or, for a search of an earlier process, from the store."""
        if search not in self._searches:
            experiments = [experiment.experiment_id for experiment in self._client.search_experiments()]
            run = self._find(experiments, projection.search_key(search))
            if run is None:
                raise StoreRefusedError(f"MLflow has no run of search {search}; `automl sync` creates it")
            experiment = run.info.experiment_id
            datasets = list(run.inputs.dataset_inputs) if run.inputs is not None else []
            self._learn_children(experiment, search)
            self._searches[search] = _Search(experiment, _known(run), datasets)
        return self._searches[search]

    def _learn_children(self, experiment: str, search: str) -> None:
        for run in self._children(experiment, search):
            self._runs.setdefault(run.data.tags[KEY], _known(run))

    def _children(self, experiment: str, search: str) -> Iterator[Run]:
        token = None
        while True:
            page = self._client.search_runs(
                [experiment],
                f"tags.`{SEARCH}` = '{search}' AND tags.`{ROLE}` != 'search'",
                max_results=PAGE,
                page_token=token,
            )
            yield from page
            token = page.token
            if not token:
                return

    def _end_search(self, search: str, status: str, at: float) -> None:
        """The parent run, and the children that trained until a moment ago: resuming sets them RUNNING again."""
        for key, child in self._runs.items():
            if key.startswith(f"{search}/") and child.running:
                self._end(child, "KILLED", at)
        self._end(self._search(search).run, status, at)

    def _end(self, run: _Run, status: str, at: float) -> None:
        self._client.set_terminated(run.id, status, projection.milliseconds(at))
        run.running = False

    # What belongs to runs.

    def _experiment(self, name: str) -> str:
        found = self._client.get_experiment_by_name(name)
        if found is None:
            location = None if is_server(self._uri) else (self._artifacts / name).as_uri()
            try:
                return str(self._client.create_experiment(name, artifact_location=location))
            except MlflowException:
                found = self._client.get_experiment_by_name(name)
                if found is None:
                    raise
        if found.lifecycle_stage != "active":
            raise StoreRefusedError(
                f"experiment {name!r} is deleted in MLflow; restore it with `mlflow experiments restore "
                f"--experiment-id {found.experiment_id}`, or choose another `name`"
            )
        return str(found.experiment_id)

    def _resume(self, run: Run, info: SearchInfo) -> dict[str, str]:
        """Set a known search RUNNING; the params it does not have yet. MLflow never changes a param: what is different
        this time (a larger budget, say) goes into a tag."""
        self._learn_children(run.info.experiment_id, info.id)
        self._client.update_run(run.info.run_id, status="RUNNING")
        params = projection.texts(info.params)
        stored: dict[str, str] = run.data.params
        changed = {name: value for name, value in params.items() if stored.get(name, value) != value}
        if changed:
            self._client.set_tag(run.info.run_id, RESUMED_WITH, projection.shortened(json.dumps(changed)))
        return {name: value for name, value in params.items() if name not in stored}

    def _put_model(self, run: _Run, package: Path | None) -> dict[str, str]:
        """Store a loadable model around the package unless the run has it; the tags that say so."""
        if package is None or run.package == (digest := package_digest(package)):
            return {}
        folder = self._models.of(package)
        put_folder(
            self._client,
            run.id,
            run.artifact_uri,
            projection.MODEL_PATH,
            lambda target: folder.fill(target, package, run.id, self._clock()),
        )
        return {PACKAGE: digest, **history_tag(run.id, self._clock())}


def _known(run: Run) -> _Run:
    tags = run.data.tags
    state = tags.get(STATE)
    whole = any(state == ours and run.info.status == theirs for ours, theirs in STATUS.items())
    return _Run(
        id=run.info.run_id,
        artifact_uri=run.info.artifact_uri,
        running=run.info.status == "RUNNING",
        described=run.inputs is not None and bool(run.inputs.dataset_inputs),
        # A kill between the last two writes of a trial leaves the tag without the status: then it is not finished.
        state=state if whole else None,
        package=tags.get(PACKAGE),
    )


def migrate(uri: str) -> None:
    """Create the tables of a fresh database, so that whoever connects next finds them there.

    Raises:
        StoreError: the store cannot be reached, or has the schema of another MLflow.
    """
    open_store(uri)
