"""Finding what a verb is about: experiment files, experiments by name, searches, registries."""

from __future__ import annotations

from pathlib import Path

from flows.workspace import Workspace, find_workspace
from pipeline.config import ExperimentConfig, load_experiment
from pipeline.errors import InputError
from pipeline.search.directory import SearchState, states_of


def experiment_name(text: str) -> str:
    """An experiment's name, from the name itself or from its file."""
    if text.endswith((".yaml", ".yml")):
        return load_experiment(Path(text)).name
    return text


def load(file: Path, overrides: tuple[str, ...]) -> tuple[ExperimentConfig, Path, Workspace]:
    """An experiment file with overrides, the folder its paths start from, and the workspace.

    Raises:
        ConfigError: the file breaks a rule, or its tracking URI is of no store we know.
    """
    config, workspace = load_experiment(file, overrides), find_workspace()
    workspace.tracking_uri(config.tracking.uri)
    return config, Path.cwd(), workspace


def find_search(workspace: Workspace, experiment: str, search: str | None) -> SearchState:
    """A search of an experiment: the latest, or the one with this id.

    Raises:
        InputError: there is none.
    """
    states = states_of(workspace.state, experiment)
    if search is not None:
        states = [state for state in states if state.id == search]
    if not states:
        known = sorted({p.name.rsplit("-", 2)[0] for p in workspace.searches.glob("*-*-*")})
        hint = f"known experiments: {', '.join(known)}" if known else "start one with `automl run FILE`"
        raise InputError(f"no search {search or 'of experiment ' + repr(experiment)} under {workspace.state}", hint)
    return states[-1]
