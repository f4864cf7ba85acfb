"""MLflow databases that cost no migration, and what a person sees in a tracker, whichever it is."""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from mlflow import MlflowClient
from mlflow.entities import Run

from pipeline.tracking.artifacts import local_folder
from pipeline.tracking.base import Tracker
from pipeline.tracking.memory import InMemoryTracker, MemoryRun
from pipeline.tracking.mlflow import MLflowTracker, migrate


def make_template(directory: Path) -> Path:
    """A migrated database in one file. Migrating costs a second of CPU, copying nothing."""
    path = directory / "mlflow.db"
    migrate(f"sqlite:///{path}")
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")  # what is in the log beside it, too
    return path


def copy_database(template: Path, directory: Path) -> str:
    """The URI of a fresh database in `directory`."""
    directory.mkdir(parents=True, exist_ok=True)
    return f"sqlite:///{shutil.copyfile(template, directory / 'mlflow.db')}"


@dataclass(frozen=True, slots=True)
class View:
    """One run as a person sees it. `curves` has metric name to ``[(step, value)]``."""

    name: str
    status: str
    tags: dict[str, str]
    params: dict[str, str]
    curves: dict[str, list[tuple[int, float]]]
    files: set[str]
    parent: str | None

    @property
    def metrics(self) -> dict[str, float]:
        """Last value of every metric."""
        return {name: curve[-1][1] for name, curve in self.curves.items()}


def view(tracker: Tracker, run_id: str, uri: str = "") -> View:
    """A run by its id."""
    if isinstance(tracker, InMemoryTracker):
        return _of_memory(next(run for run in tracker.runs.values() if run.id == run_id))
    client = MlflowClient(tracking_uri=uri)
    return _of_mlflow(client, client.get_run(run_id))


def count_runs(tracker: Tracker, uri: str = "") -> int:
    """All runs there are."""
    if isinstance(tracker, InMemoryTracker):
        return len(tracker.runs)
    client = MlflowClient(tracking_uri=uri)
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    return len(client.search_runs(experiments))


def reopened(tracker: Tracker, uri: str, artifacts: Path) -> Tracker:
    """The tracker as the next process finds it: without anything that was only in memory."""
    return tracker if isinstance(tracker, InMemoryTracker) else MLflowTracker(uri, artifacts)


def _of_memory(run: MemoryRun) -> View:
    curves: dict[str, list[tuple[int, float]]] = {}
    for point in run.points:
        curves.setdefault(point.key, []).append((point.step, point.value))
    files = set(run.files) | ({"model/"} if run.model is not None else set())
    return View(run.name, run.status, dict(run.tags), dict(run.params), curves, files, run.parent)


def _of_mlflow(client: MlflowClient, run: Run) -> View:
    curves = {
        name: [(metric.step, metric.value) for metric in client.get_metric_history(run.info.run_id, name)]
        for name in run.data.metrics
    }
    folder = local_folder(run.info.artifact_uri)
    assert folder is not None
    files = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    files = {"model/" if name.startswith("model/") else name for name in files}
    tags = dict(run.data.tags)
    return View(
        run.info.run_name, run.info.status, tags, dict(run.data.params), curves, files, tags.get("mlflow.parentRunId")
    )
