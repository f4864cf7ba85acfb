"""``automl sync``: the records are the truth, and Optuna and MLflow are told again what they missed of them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from flows.commands.loading import experiment_name
from flows.commands.shown import Shown, lines
from flows.environment import configure
from flows.workspace import Workspace, find_workspace
from pipeline.config import ExperimentConfig
from pipeline.errors import AutoMLError, InputError, SearchError
from pipeline.files import Locked, exclusive_lock
from pipeline.records import TrialRecord, read_records
from pipeline.search.directory import LOCK, SearchState, read_state

if TYPE_CHECKING:
    from pipeline.tracking.base import SearchStatus, Tracker
    from pipeline.tracking.replay import Replayed

STATUSES: dict[str, SearchStatus] = {"finished": "FINISHED", "failed": "FAILED", "unfinished": "KILLED"}


def sync_searches(experiment: str | None) -> Shown:
    """Every search that nobody is running, of one experiment or of all; what had to be said again.

    Raises:
        InputError: there is no search of this experiment.
        SearchError: some searches could not be brought in line; the others were.
    """
    workspace = find_workspace()
    configure(workspace.prefect_home)
    name = None if experiment is None else experiment_name(experiment)
    directories = list(search_directories(workspace, name))
    if not directories:
        raise InputError(f"no searches{'' if name is None else f' of {name!r}'} under {workspace.state}", "run one")
    done: list[dict[str, Any]] = []
    said: list[str] = []
    errors: list[str] = []
    trackers: dict[str, Tracker] = {}
    for directory in directories:
        try:
            with exclusive_lock(directory / LOCK, "automl sync"):
                state = read_state(directory)
                if state is not None:
                    told, replayed = sync_search(workspace, directory, state, trackers)
                    done.append(
                        {"search": state.id, "told": list(told), **({} if replayed is None else asdict(replayed))}
                    )
                    said.append(f"{state.id}: {_words(told, replayed)}")
        except Locked as lock:
            said.append(f"{directory.name}: left to its controller ({lock.holder})")
        except AutoMLError as error:
            errors.append(str(error))
    if errors:
        raise SearchError(f"{errors[0]} ({len(errors)} of {len(directories)} searches are not in line)")
    return lines(done, *said)


def sync_search(
    workspace: Workspace, directory: Path, state: SearchState, trackers: dict[str, Tracker]
) -> tuple[tuple[int, ...], Replayed | None]:
    """One search, whose lock the caller holds: trials that Optuna was told, and what MLflow was."""
    from pipeline.search.study import JOURNAL, open_study
    from pipeline.tracking.mlflow import MLflowTracker
    from pipeline.tracking.replay import read_replay, replay_search

    config = ExperimentConfig.model_validate(yaml.safe_load(state.config_yaml))
    replay = read_replay(directory)
    if replay is None:
        return (), None  # it ended before it had a parent run: the next start begins it anew
    told: tuple[int, ...] = ()
    if (directory / JOURNAL).exists():
        study = open_study(directory, state.id, replay.info.direction, config.search, config.train.max_epochs, False)
        told = study.tell_missed(read_records(directory))
    uri = workspace.tracking_uri(config.tracking.uri)
    if uri not in trackers:
        trackers[uri] = MLflowTracker(uri, workspace.artifacts)

    def package(record: TrialRecord) -> Path | None:
        """As the search would have logged it; nothing where its data set is gone."""
        from flows.stages import package_trial
        from pipeline.data.prepare import load_prepared

        folder = workspace.data / replay.prepared
        if config.tracking.models == "best" or not folder.is_dir():
            return None
        return package_trial(workspace, load_prepared(folder), record)

    return told, replay_search(trackers[uri], directory, replay, STATUSES[state.status], package)


def search_directories(workspace: Workspace, experiment: str | None) -> Iterator[Path]:
    """Directories of searches, of one experiment or of all, by name."""
    for directory in sorted(workspace.searches.glob("*")):
        if experiment is None or ((state := read_state(directory)) is not None and state.experiment == experiment):
            yield directory


def _words(told: tuple[int, ...], replayed: Replayed | None) -> str:
    parts = [f"Optuna told of {len(told)} trials"] if told else []
    if replayed is not None and replayed.changed:
        parts.append(
            f"MLflow: {len(replayed.delivered)} trials delivered, {replayed.ended} runs without an owner ended, "
            f"{replayed.doubled} doubled runs deleted"
        )
    return "; ".join(parts) or "in line"
