"""``automl report``: a search as one HTML page."""

from __future__ import annotations

from pathlib import Path

import yaml

from flows.commands.loading import experiment_name, find_search
from flows.commands.shown import Shown, lines
from flows.workspace import find_workspace
from pipeline.errors import InputError
from pipeline.files import OURS, THEIRS, write_atomic
from pipeline.text import shown


def make_report(experiment: str, output: Path | None, search: str | None) -> Shown:
    """Write the page.

    Raises:
        InputError: no such search, or nowhere to write the page to.
    """
    if output is not None and (output.suffix not in {".html", ".htm"} or output.is_dir()):
        raise InputError(f"the report must be an .html file, but got {shown(output.name)}", "rename it")
    workspace = find_workspace()
    state = find_search(workspace, experiment_name(experiment), search)
    from flows.report.material import gather
    from flows.report.page import render
    from flows.stages.report import REPORT

    model = yaml.safe_load(state.config_yaml)["promotion"]["model"] or state.experiment
    page = render(gather(workspace, state, model)).encode()
    target, mode = (workspace.search(state.id) / REPORT, OURS) if output is None else (output, THEIRS)
    try:
        write_atomic(target, page, mode)
    except (PermissionError, NotADirectoryError, FileExistsError) as error:
        raise InputError(
            f"the report {shown(str(target))} cannot be written ({error.strerror})", "choose another folder"
        ) from error
    value = {"search": state.id, "report": str(target), "bytes": len(page)}
    return lines(value, f"{target} ({len(page) / 1000:.0f} kB)")
