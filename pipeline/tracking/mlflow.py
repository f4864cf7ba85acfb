"""EDGE mlflow: searches as parent runs, trials as child runs, through explicit ids only (no active run, no globals)."""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from mlflow import MlflowClient
from mlflow.entities import DatasetInput, Run
from mlflow.exceptions import MlflowException

from pipeline.packaging import package_digest
from pipeline.records import TrialRecord
from pipeline.tracking import entities, projection
from pipeline.tracking.artifacts import put_file, put_folder, put_text
from pipeline.tracking.base import FinalistInfo, SearchInfo, SearchStatus, StoreRefusedError, Survey
from pipeline.tracking.model_folder import ModelFolders, history_tag
from pipeline.tracking.projection import PACKAGE, ROLE, STATE, STATUS, TRIAL
from pipeline.tracking.runs import KnownRun, Runs, known
from pipeline.tracking.store import PATIENCE_S, is_server, open_store, patient, store_errors
from pipeline.tracking.transactions import share_sessions

RESUMED_WITH: Final = "automl.resumed_with"


@dataclass(frozen=True, slots=True)
class _Search:
    experiment: str
    run: KnownRun
    datasets: list[DatasetInput]


class MLflowTracker:
    """Implements `Tracker` on an MLflow database or server. One writer a search; its threads take turns.

    Args:
        uri: absolute tracking URI.
        artifacts: folder under which each experiment keeps its files; a server puts them where it wants to instead.
        clock: Unix seconds.
        patience_s: how long an operation is repeated while the store is out of order.

    Raises:
        StoreError: the store cannot be opened.
    """

    def __init__(
        self, uri: str, artifacts: Path, clock: Callable[[], float] = time.time, *, patience_s: float = PATIENCE_S
    ) -> None:
        self._uri, self._artifacts, self._clock, self.patience_s = uri, artifacts.absolute(), clock, patience_s
        self._lock = threading.RLock()
        self._client: MlflowClient = open_store(uri)
        self._sessions = share_sessions(self._client)
        self._runs = Runs(self._client)
        self._searches: dict[str, _Search] = {}
        self._models = ModelFolders()

    @contextmanager
    def together(self) -> Iterator[None]:
        with self._lock, store_errors("store several trials at once"):
            if self._sessions is None:
                yield
                return
            try:
                with self._sessions.shared():
                    yield
            except BaseException:
                self._runs, self._searches = Runs(self._client), {}  # nothing of it was stored: ask what is
                raise

    def start_search(self, info: SearchInfo) -> str:
        with self._lock, store_errors(f"start search {info.id}"):
            experiment = self._experiment(info.experiment)
            found = self._runs.find([experiment], projection.search_key(info.id))
            if found is None:
                run = self._runs.create(experiment, info.id, projection.search_tags(info), self._clock())
                params = projection.texts(info.params)
            else:
                run, params = found, self._resume(found, info)
            search = _Search(experiment, known(run), [entities.dataset_input(info)])
            if not search.run.running:
                self._runs.go_on(search.run)
            self._client.log_batch(search.run.id, params=entities.params(params))
            self._log_inputs(search)
            for path, text in {projection.CONFIG_PATH: info.config_yaml, **info.texts}.items():
                put_text(self._client, search.run.id, search.run.artifact_uri, text, path)
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
                self._runs.end(run, STATUS[record.state], record.finished)
                run.state = record.state
            elif tags:
                self._client.log_batch(run.id, tags=entities.tags(tags))
            run.package = tags.get(PACKAGE, run.package)
            return run.id

    @patient
    def finish_finalist(self, search: str, info: FinalistInfo, package: Path | None, files: Mapping[str, Path]) -> str:
        with self._lock, store_errors(f"store finalist {info.trial} of {search}"):
            parent = self._search(search)
            name = projection.finalist_name(info.trial, info.family)
            tags = projection.finalist_tags(search, info)
            run = self._runs.child(parent.experiment, parent.run.id, name, tags, self._clock())
            self._describe(run, parent, info.params)
            if run.state is None:
                for to, source in files.items():
                    put_file(self._client, run.id, run.artifact_uri, source, to)
                tags = self._put_model(run, package) | {STATE: "COMPLETE"}
                points = projection.finite(projection.points(info.metrics, self._clock()))
                self._client.log_batch(run.id, metrics=entities.metrics(points), tags=entities.tags(tags))
                self._runs.end(run, "FINISHED", self._clock())
                run.state = "COMPLETE"
            return run.id

    @patient
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
            points = projection.finite(projection.points(metrics, self._clock()))
            texts = {name: projection.shortened(text) for name, text in tags.items()}
            self._client.log_batch(run.id, metrics=entities.metrics(points), tags=entities.tags(texts))
            self._end_search(search, status)

    def interrupt_search(self, search: str) -> None:
        with self._lock, store_errors(f"interrupt search {search}"):
            self._end_search(search, "KILLED")

    @patient
    def survey(self, search: str) -> Survey | None:
        with self._lock, store_errors(f"look at search {search}"):
            experiments = [experiment.experiment_id for experiment in self._client.search_experiments()]
            parent = self._runs.find(experiments, projection.search_key(search))
            if parent is None:
                return None
            children = list(self._runs.stored_children(parent.info.experiment_id, search))
        states = {
            int(c.data.tags[TRIAL]): known(c).state or "unfinished" for c in children if c.data.tags[ROLE] == "trial"
        }
        return Survey(
            states,
            running=sum(run.info.status == "RUNNING" for run in (parent, *children)),
            doubled=len(children) - len({run.data.tags[projection.KEY] for run in children}),
        )

    @patient
    def end_search(self, search: str, status: SearchStatus) -> None:
        with self._lock, store_errors(f"end search {search}"):
            self._search(search)
            self._end_search(search, status)

    @patient
    def trial_states(self, search: str) -> dict[int, str]:
        with self._lock, store_errors(f"read the trials of {search}"):
            children = self._runs.stored_children(self._search(search).experiment, search)
            trials = [run for run in children if run.data.tags[ROLE] == "trial"]
        claims = Counter(int(run.data.tags[TRIAL]) for run in trials)
        doubled = sorted(number for number, count in claims.items() if count > 1)
        if doubled:
            raise StoreRefusedError(f"two runs or more claim trial {doubled[0]} of {search}; `automl sync` keeps one")
        return {int(run.data.tags[TRIAL]): known(run).state or "RUNNING" for run in trials}

    @patient
    def run_url(self, search: str) -> str:
        with self._lock, store_errors(f"look up search {search}"):
            found = self._search(search)
        path = f"#/experiments/{found.experiment}/runs/{found.run.id}"
        return f"{self._uri.rstrip('/')}/{path}" if is_server(self._uri) else f"/{path}"

    def close(self) -> None:
        """Nothing waits here: every method returns once MLflow has stored what it was told."""

    def _experiment(self, name: str) -> str:
        found = self._client.get_experiment_by_name(name)
        if found is None:
            location = None if is_server(self._uri) else (self._artifacts / name).as_uri()
            try:
                tags = {"mlflow.experimentKind": "custom_model_development"}  # the UI opens on runs, not on traces
                return str(self._client.create_experiment(name, artifact_location=location, tags=tags))
            except MlflowException:
                found = self._client.get_experiment_by_name(name)
                if found is None:  # else another search was faster, or the answer got lost
                    raise
        if found.lifecycle_stage != "active":
            raise StoreRefusedError(
                f"experiment {name!r} is deleted in MLflow; restore it with `mlflow experiments restore "
                f"--experiment-id {found.experiment_id}`, or choose another `name`"
            )
        return str(found.experiment_id)

    def _log_inputs(self, search: _Search) -> None:
        """MLflow looks whether it has the data set, then writes it: of two searches that start at once one is refused
        what the other has written, and finds it at the second look."""
        try:
            self._client.log_inputs(search.run.id, search.datasets)
        except MlflowException:
            self._client.log_inputs(search.run.id, search.datasets)

    def _search(self, search: str) -> _Search:
        """From memory or, for a search of an earlier process, from the store, with its children."""
        if search not in self._searches:
            experiments = [experiment.experiment_id for experiment in self._client.search_experiments()]
            run = self._runs.find(experiments, projection.search_key(search))
            if run is None:
                raise StoreRefusedError(f"MLflow has no run of search {search}; `automl sync` creates it")
            datasets = list(run.inputs.dataset_inputs) if run.inputs is not None else []
            self._runs.learn(run.info.experiment_id, search)
            self._searches[search] = _Search(run.info.experiment_id, known(run), datasets)
        return self._searches[search]

    def _resume(self, run: Run, info: SearchInfo) -> dict[str, str]:
        """Learn what a known search has; the params it does not have yet. MLflow never changes a param: what is
        different this time (a larger budget, say) goes into a tag."""
        self._runs.learn(run.info.experiment_id, info.id)
        params = projection.texts(info.params)
        stored: dict[str, str] = run.data.params
        changed = {name: value for name, value in params.items() if stored.get(name, value) != value}
        if changed:
            self._client.set_tag(run.info.run_id, RESUMED_WITH, projection.shortened(json.dumps(changed)))
        return {name: value for name, value in params.items() if name not in stored}

    def _end_search(self, search: str, status: SearchStatus) -> None:
        """End the parent run, and the trials that trained until a moment ago: resuming sets them RUNNING again."""
        parent, now = self._search(search), self._clock()
        for child in self._runs.running_children(search):
            self._runs.end(child, "KILLED", now)
        self._runs.end(parent.run, status, now)

    def _start_trial(
        self, search: str, number: int, family: str, params: Mapping[str, object], started: float
    ) -> KnownRun:
        parent = self._search(search)
        name, tags = projection.trial_name(number, family), projection.trial_tags(search, number, family)
        run = self._runs.child(parent.experiment, parent.run.id, name, tags, started)
        self._describe(run, parent, params)
        if run.state is None and not run.running:
            self._runs.go_on(run)
        return run

    def _describe(self, run: KnownRun, parent: _Search, params: Mapping[str, object]) -> None:
        if not run.described:
            self._client.log_batch(run.id, params=entities.params(projection.texts(params)))
            self._client.log_inputs(run.id, parent.datasets)
            run.described = True

    def _put_model(self, run: KnownRun, package: Path | None) -> dict[str, str]:
        """Store a loadable model around the package unless the run has it; the tags that say so."""
        if package is None or run.package == (digest := package_digest(package)):
            return {}
        folder, now = self._models.of(package), self._clock()
        put_folder(
            self._client,
            run.id,
            run.artifact_uri,
            projection.MODEL_PATH,
            lambda target: folder.fill(target, package, run.id, now),
        )
        return {PACKAGE: digest, **history_tag(run.id, now)}


def migrate(uri: str) -> None:
    """Create the tables of a fresh database, so that whoever connects next finds them there.

    Raises:
        StoreError: the store cannot be reached, or has the schema of another MLflow.
    """
    open_store(uri)
