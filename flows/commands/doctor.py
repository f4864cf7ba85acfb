"""``automl doctor``: what is wrong with this installation and its stores, each finding with its remedy."""

from __future__ import annotations

import os
import shutil
import sqlite3
import tempfile
from collections.abc import Callable, Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import yaml
from packaging.version import Version
from pydantic import BaseModel, ConfigDict
from rich.console import Console

from flows.commands.shown import Shown
from flows.environment import configure
from flows.workspace import Workspace, find_workspace
from pipeline.config import ExperimentConfig
from pipeline.errors import AutoMLError, StoreError
from pipeline.files import Locked, exclusive_lock
from pipeline.records import read_records
from pipeline.registry.loading import load_version
from pipeline.search.directory import LOCK, SearchState, read_state

if TYPE_CHECKING:
    from pipeline.tracking.base import Tracker

PACKAGES = ("torch", "optuna", "mlflow", "prefect", "fastapi", "scikit-learn", "pydantic")
MIN_FREE_GB = 2.0


class Diagnosis(BaseModel):
    """One thing that was looked at."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    state: Literal["ok", "problem"]
    subject: str
    message: str
    remedy: str = ""


def examine(tracking_uri: str, *, fix: bool = False) -> Shown:
    """Everything there is to look at, in order.

    Args:
        fix: bring stores in line with the records where a kill left them behind; nothing else is safe to do unasked.
    """
    workspace = find_workspace()
    configure(workspace.prefect_home)
    found: list[Diagnosis] = []
    checks: tuple[Callable[[], Iterator[Diagnosis]], ...] = (
        _versions,
        _devices,
        lambda: _disk(workspace),
        lambda: _tracking(workspace, tracking_uri),
        lambda: _searches(workspace),
        lambda: _left_behind(workspace, fix),
        lambda: _champions(workspace, tracking_uri),
    )
    for check in checks:
        try:
            found.extend(check())
        except StoreError as error:
            remedy = "start the server, or correct the tracking URI"
            found.append(Diagnosis(state="problem", subject="tracking", message=str(error), remedy=remedy))
    problems = [item for item in found if item.state == "problem"]
    value: dict[str, Any] = {"problems": len(problems), "findings": [item.model_dump() for item in found]}

    def text(console: Console) -> None:
        for item in found:
            mark = "ok     " if item.state == "ok" else "PROBLEM"
            console.print(
                f"{mark} {item.subject}: {item.message}" + (f"; {item.remedy}" if item.remedy else ""), markup=False
            )
        console.print(f"{len(problems)} problem{'' if len(problems) == 1 else 's'}")

    return Shown(value, text)


def _versions() -> Iterator[Diagnosis]:
    for name in PACKAGES:
        try:
            yield Diagnosis(state="ok", subject=name, message=version(name))
        except PackageNotFoundError:
            yield Diagnosis(
                state="problem",
                subject=name,
                message="not installed",
                remedy="pip install -c constraints.txt automl-pipeline",
            )
    if Version(version("fastapi")) >= Version("0.151"):
        yield Diagnosis(
            state="problem",
            subject="fastapi",
            message=f"Prefect {version('prefect')} cannot start its server under FastAPI {version('fastapi')}",
            remedy="pip install 'fastapi>=0.139,<0.151'",
        )


def _devices() -> Iterator[Diagnosis]:
    import torch

    from pipeline.training.devices import find_slots

    slots = find_slots()
    yield Diagnosis(
        state="ok",
        subject="devices",
        message=f"{torch.cuda.device_count()} GPUs; slots: {', '.join(s.name for s in slots)}",
    )


def _disk(workspace: Workspace) -> Iterator[Diagnosis]:
    folder = workspace.state if workspace.state.exists() else workspace.state.parent
    free = shutil.disk_usage(folder).free / 2**30
    state: Literal["ok", "problem"] = "ok" if free >= MIN_FREE_GB else "problem"
    yield Diagnosis(
        state=state,
        subject="disk",
        message=f"{free:.1f} GiB free at {folder}",
        remedy="" if state == "ok" else "free some space",
    )
    if workspace.state.exists() and not os.access(workspace.state, os.W_OK):
        yield Diagnosis(
            state="problem",
            subject="disk",
            message=f"{workspace.state} is not writable",
            remedy="check its permissions",
        )


def _tracking(workspace: Workspace, tracking_uri: str) -> Iterator[Diagnosis]:
    uri = workspace.tracking_uri(tracking_uri)
    if not uri.startswith("sqlite:///"):
        from pipeline.registry.mlflow import MLflowRegistry

        n_models = len(MLflowRegistry(uri, workspace.state / "registry").names())
        yield Diagnosis(state="ok", subject="tracking", message=f"{uri.split('@')[-1]}, {n_models} registered models")
        return
    path = Path(uri.removeprefix("sqlite:///"))
    if not path.exists():
        yield Diagnosis(state="ok", subject="tracking", message=f"{path} will be made by the first run")
        return
    try:
        with sqlite3.connect(f"file:{path}?mode=ro", uri=True) as connection:
            answer = connection.execute("PRAGMA quick_check").fetchone()[0]
            running = connection.execute("SELECT count(*) FROM runs WHERE status = 'RUNNING'").fetchone()[0]
    except sqlite3.DatabaseError as error:
        yield Diagnosis(
            state="problem",
            subject="tracking",
            message=f"{path}: {error}",
            remedy="restore it from a backup, or move it away and run `automl run` again",
        )
        return
    state: Literal["ok", "problem"] = "ok" if answer == "ok" else "problem"
    yield Diagnosis(state=state, subject="tracking", message=f"{path}: {answer}, {running} runs RUNNING")


def _searches(workspace: Workspace) -> Iterator[Diagnosis]:
    for directory in sorted(workspace.searches.glob("*")):
        try:
            state = read_state(directory)
        except AutoMLError as error:
            yield Diagnosis(state="problem", subject=directory.name, message=str(error))
            continue
        if state is None or state.status != "unfinished":
            continue
        try:
            with exclusive_lock(directory / LOCK, "automl doctor"):
                yield Diagnosis(
                    state="problem",
                    subject=state.id,
                    message="unfinished, and nobody is running it",
                    remedy="the same `automl run` goes on with it",
                )
        except Locked as error:
            yield Diagnosis(state="ok", subject=state.id, message=f"running: {error.holder}")


def _left_behind(workspace: Workspace, fix: bool) -> Iterator[Diagnosis]:
    """What a kill left of searches that nobody runs: the records are whole, the stores behind them."""
    from flows.commands.sync import search_directories, sync_search

    trackers: dict[str, Tracker] = {}
    for directory in search_directories(workspace, None):
        try:
            with exclusive_lock(directory / LOCK, "automl doctor"):
                state = read_state(directory)
                findings = [] if state is None else _behind(workspace, directory, state, trackers)
                if state is not None and findings and fix:
                    sync_search(workspace, directory, state, trackers)
                    yield Diagnosis(state="ok", subject=directory.name, message=f"fixed: {'; '.join(findings)}")
                elif findings:
                    remedy = "`automl doctor --fix` or `automl sync`"
                    what = "; ".join(findings)
                    yield Diagnosis(state="problem", subject=directory.name, message=what, remedy=remedy)
        except Locked:
            continue
        except StoreError:
            raise
        except AutoMLError as error:
            yield Diagnosis(state="problem", subject=directory.name, message=str(error), remedy="see the message")


def _behind(workspace: Workspace, directory: Path, state: SearchState, trackers: dict[str, Tracker]) -> list[str]:
    from pipeline.search.journal import is_torn
    from pipeline.search.study import JOURNAL
    from pipeline.tracking.mlflow import MLflowTracker
    from pipeline.tracking.replay import read_replay

    found = []
    if is_torn(directory / JOURNAL):
        found.append("the journal's last entry is torn")
    config = ExperimentConfig.model_validate(yaml.safe_load(state.config_yaml))
    if read_replay(directory) is None or not workspace.has_store(config.tracking.uri):
        return found
    uri = workspace.tracking_uri(config.tracking.uri)
    if uri not in trackers:
        trackers[uri] = MLflowTracker(uri, workspace.artifacts)
    survey = trackers[uri].survey(state.id)
    records = {record.number: record.state for record in read_records(directory)}
    if survey is None:
        return [*found, f"MLflow has none of its {len(records)} trials"]
    missing = sum(survey.states.get(number) != ended for number, ended in records.items())
    if missing:
        found.append(f"MLflow lacks the end of {missing} trials")
    if survey.running:
        found.append(f"{survey.running} runs are RUNNING and nobody runs the search")
    if survey.doubled:
        found.append(f"{survey.doubled} runs are there twice")
    return found


def _champions(workspace: Workspace, tracking_uri: str) -> Iterator[Diagnosis]:
    uri = workspace.tracking_uri(tracking_uri)
    if not workspace.has_store(uri):
        return
    from pipeline.registry.mlflow import MLflowRegistry

    registry = MLflowRegistry(uri, workspace.state / "registry")
    for name in registry.names():
        champion = registry.champion(name)
        if champion is None:
            yield Diagnosis(state="ok", subject=name, message="no champion")
            continue
        try:
            with tempfile.TemporaryDirectory(prefix="automl-doctor-") as scratch:
                load_version(registry, champion, Path(scratch))
        except AutoMLError as error:
            yield Diagnosis(
                state="problem",
                subject=name,
                message=f"champion v{champion.version}: {error}",
                remedy=f"`automl rollback {name}`",
            )
        else:
            yield Diagnosis(
                state="ok", subject=name, message=f"champion v{champion.version} loads and reproduces its predictions"
            )
