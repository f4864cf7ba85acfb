"""``automl doctor``: what is wrong with this installation and its stores, each finding with its remedy."""

from __future__ import annotations

import os
import shutil
import sqlite3
import tempfile
from collections.abc import Callable, Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

from packaging.version import Version
from pydantic import BaseModel, ConfigDict
from rich.console import Console

from flows.commands.shown import Shown
from flows.environment import configure
from flows.workspace import Workspace, find_workspace
from pipeline.errors import AutoMLError
from pipeline.files import Locked, exclusive_lock
from pipeline.registry.loading import load_version
from pipeline.search.directory import read_state

PACKAGES = ("torch", "optuna", "mlflow", "prefect", "fastapi", "scikit-learn", "pydantic")
MIN_FREE_GB = 2.0


class Diagnosis(BaseModel):
    """One thing that was looked at."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    state: Literal["ok", "problem"]
    subject: str
    message: str
    remedy: str = ""


def examine(tracking_uri: str) -> Shown:
    """Everything there is to look at, in order."""
    workspace = find_workspace()
    configure(workspace.prefect_home)
    found: list[Diagnosis] = []
    checks: tuple[Callable[[], Iterator[Diagnosis]], ...] = (
        _versions,
        _devices,
        lambda: _disk(workspace),
        lambda: _tracking(workspace, tracking_uri),
        lambda: _searches(workspace),
        lambda: _champions(workspace, tracking_uri),
    )
    for check in checks:
        found.extend(check())
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
        yield Diagnosis(state="ok", subject="tracking", message=uri.split("@")[-1])
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
            with exclusive_lock(directory / "lock", "automl doctor"):
                yield Diagnosis(
                    state="problem",
                    subject=state.id,
                    message="unfinished, and nobody is running it",
                    remedy="the same `automl run` goes on with it",
                )
        except Locked as error:
            yield Diagnosis(state="ok", subject=state.id, message=f"running: {error.holder}")


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
