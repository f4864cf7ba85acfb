"""Looking before leaping: a wrong file or wrong data is found before a store, a run or a server exists."""

from __future__ import annotations

import shutil
from pathlib import Path

from flows import stages
from flows.stages import Experiment
from pipeline.errors import InputError


def vet(experiment: Experiment, *, new: bool) -> None:
    """Prepare the data and hold the experiment against it; where that fails, nothing it made is left behind.

    Raises:
        InputError: the data is wrong, or the file does not fit it or the unfinished search that it would go on with.
    """
    workspace = experiment.workspace
    workspace.create()
    before = _entries(workspace.data)
    try:
        prepared = stages.prepare_stage(experiment)
        stages.check_against_data(experiment.config, prepared)
        stages.find_or_create_search(experiment, prepared, new=new)
    except InputError:
        for path in _entries(workspace.data) - before:
            shutil.rmtree(path)
        for folder in (workspace.data, workspace.state):
            if folder.is_dir() and not _entries(folder):
                folder.rmdir()
        raise


def _entries(folder: Path) -> set[Path]:
    return set(folder.iterdir()) if folder.is_dir() else set()
