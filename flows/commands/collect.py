"""``automl gc``: what nobody needs any more. Each piece goes from MLflow first and from the disk after that, so that a
kill in between leaves files without a run, which the next ``gc`` finds, and never a run without its files."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import yaml
from pydantic import TypeAdapter, ValidationError

from flows.commands.loading import experiment_name
from flows.commands.shown import Shown, lines
from flows.commands.sync import search_directories
from flows.environment import configure
from flows.workspace import Workspace, find_workspace
from pipeline.config import Duration, ExperimentConfig
from pipeline.errors import InputError
from pipeline.files import Locked, exclusive_lock
from pipeline.objective import METRICS
from pipeline.records import RECORD, TrialRecord, read_records, trial_directory
from pipeline.search.directory import LOCK, SearchState, read_state
from pipeline.training.checkpoint import CHECKPOINT

if TYPE_CHECKING:
    from pipeline.tracking.retention import Retention

HALF_MADE_S = 86_400.0
"""A half-made file that is older has nobody who is making it."""


@dataclass(frozen=True, slots=True)
class Garbage:
    """One thing to remove: what it is, its files, and what MLflow must be told before they go."""

    what: str
    path: Path
    n_bytes: int
    before: tuple[Callable[[], None], ...] = field(default=(), repr=False)

    def remove(self) -> None:
        for tell in self.before:
            tell()
        if self.path.is_dir() and not self.path.is_symlink():
            doomed = self.path.with_name(f".deleting-{self.path.name}")
            self.path.rename(doomed)
            shutil.rmtree(doomed)
        else:
            self.path.unlink(missing_ok=True)


def collect(experiment: str | None, older_than: str | None, *, dry_run: bool) -> Shown:
    """Find and, unless `dry_run`, remove: half-made files and checkpoints of trials that ended, models beyond
    ``tracking.models``, artifact folders without a run and, with `older_than`, searches that ended so long ago.

    Searches that are unfinished or running stay as they are; a search of which a version is registered stays whole.

    Raises:
        InputError: no such experiment, or no such duration.
    """
    workspace = find_workspace()
    configure(workspace.prefect_home)
    name = None if experiment is None else experiment_name(experiment)
    age = None if older_than is None else _seconds(older_than)
    directories = list(search_directories(workspace, name))
    if not directories:
        raise InputError(f"no searches{'' if name is None else f' of {name!r}'} under {workspace.state}", "run one")
    stores: dict[str, Retention] = {}
    found: list[Garbage] = []
    with ExitStack() as locks:
        for directory in directories:
            try:
                locks.enter_context(exclusive_lock(directory / LOCK, "automl gc"))
            except Locked:
                continue
            state = read_state(directory)
            if state is not None and state.status != "unfinished":
                found += _of_search(workspace, directory, state, stores, age)
        if name is None:
            found += _orphans(workspace, stores)
        if not dry_run:
            for garbage in found:
                garbage.remove()
    total = sum(garbage.n_bytes for garbage in found)
    verb = "would free" if dry_run else "freed"
    value = {
        "dry_run": dry_run,
        "bytes": total,
        "items": [{"what": g.what, "path": str(g.path), "bytes": g.n_bytes} for g in found],
    }
    said = [f"{garbage.what}: {garbage.path} ({_size(garbage.n_bytes)})" for garbage in found]
    return lines(value, *said, f"{verb} {_size(total)} in {len(found)} pieces")


def _of_search(
    workspace: Workspace, directory: Path, state: SearchState, stores: dict[str, Retention], age: float | None
) -> Iterator[Garbage]:
    config = ExperimentConfig.model_validate(yaml.safe_load(state.config_yaml))
    store = _store(workspace, config, stores)
    runs = [] if store is None else store.runs(state.id)
    registered = {} if store is None else store.registered_runs()
    records = list(read_records(directory))
    ended = max((record.finished for record in records), default=state.created)
    expired = age is not None and time.time() - ended > age
    if expired and store is not None and not any(run.id in registered for run in runs):
        tell = tuple(_deletion(store, run.id, run.files) for run in runs)
        size = _bytes(directory) + sum(_bytes(run.files) for run in runs if run.files is not None)
        yield Garbage(f"search {state.id}, ended {_days(time.time() - ended)} ago", directory, size, tell)
        return
    for record in records:
        checkpoint = trial_directory(directory, record.number) / CHECKPOINT
        if checkpoint.exists():
            yield Garbage(f"checkpoint of {record.label}, which has ended", checkpoint, checkpoint.stat().st_size)
    for pattern in ("champion-v*", "verify-v*"):
        for path in directory.glob(pattern):
            yield Garbage("copy of a registered model", path, _bytes(path))
    for pattern in (f"trials/*/.{CHECKPOINT}.*", f"trials/*/.{RECORD}.*", ".search.json.*"):
        for path in directory.glob(pattern):
            yield Garbage("half-written file", path, path.stat().st_size)
    if store is None:
        return
    kept = _kept_models(config, records) | {run.trial for run in runs if run.role == "finalist"}
    for run in runs:
        beyond = run.role == "trial" and run.trial not in kept and run.id not in registered
        if beyond and run.model is not None and run.model.exists():
            what = f"model of trial {run.trial} of {state.id}, beyond tracking.models: {config.tracking.models}"
            yield Garbage(what, run.model, _bytes(run.model), (_forgetting(store, run.id),))


def _kept_models(config: ExperimentConfig, records: list[TrialRecord]) -> set[int | None]:
    """Trials whose models ``tracking.models`` wants."""
    complete = [record for record in records if record.state == "COMPLETE" and record.objective is not None]
    ranked = sorted(complete, key=lambda record: METRICS[record.metric].rank_key(record.objective or 0.0))
    models = config.tracking.models
    if models.startswith("top-"):
        ranked = ranked[: int(models.removeprefix("top-"))]
    return set() if models == "best" else {record.number for record in ranked}


def _orphans(workspace: Workspace, stores: dict[str, Retention]) -> Iterator[Garbage]:
    """Artifact folders of runs that no store of these searches knows, and what was half made long ago."""
    known = {run for store in stores.values() for run in store.all_run_ids()}
    # Folders of an experiment hold one folder for each run, named by its id: 32 hexadecimal digits.
    for folder in workspace.artifacts.glob("*/" + "[0-9a-f]" * 32):
        if stores and folder.name not in known and _old(folder):
            yield Garbage("artifacts of a run that MLflow does not have", folder, _bytes(folder))
    patterns = (".deleting-*", "searches/.deleting-*", "data/.making-*", "artifacts/*/*/artifacts/.staging-*")
    for path in (path for pattern in patterns for path in workspace.state.glob(pattern)):
        if _old(path) or path.name.startswith(".deleting-"):
            yield Garbage("half-made or half-deleted", path, _bytes(path))


def _store(workspace: Workspace, config: ExperimentConfig, stores: dict[str, Retention]) -> Retention | None:
    from pipeline.tracking.retention import Retention

    if not workspace.has_store(config.tracking.uri):
        return None
    uri = workspace.tracking_uri(config.tracking.uri)
    if uri not in stores:
        stores[uri] = Retention(uri)
    return stores[uri]


def _forgetting(store: Retention, run: str) -> Callable[[], None]:
    return lambda: store.forget_model(run)


def _deletion(store: Retention, run: str, files: Path | None) -> Callable[[], None]:
    def delete() -> None:
        store.delete(run)
        if files is not None:
            shutil.rmtree(files.parent, ignore_errors=True)

    return delete


def _seconds(text: str) -> float:
    try:
        return float(TypeAdapter(Duration).validate_python(text))
    except ValidationError:
        raise InputError(f"--older-than must be a duration as 30d or 12h, but got {text!r}", "write 30d") from None


def _old(path: Path) -> bool:
    return time.time() - path.stat().st_mtime > HALF_MADE_S


def _bytes(path: Path) -> int:
    """What removing it frees: files that have another name elsewhere count for nothing."""
    if not path.is_dir():
        return path.stat().st_size if path.exists() and path.stat().st_nlink == 1 else 0
    stats = [file.lstat() for file in path.rglob("*") if file.is_file()]
    return sum(stat.st_size for stat in stats if stat.st_nlink == 1)


def _size(n_bytes: int) -> str:
    return f"{n_bytes / 2**20:.1f} MiB"


def _days(seconds: float) -> str:
    return f"{seconds / 86_400:.0f} days"
