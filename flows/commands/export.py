"""``automl export``: a registered model as one ONNX file, or as a script that trains it again."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

import yaml

from flows.commands.loading import experiment_name, find_search
from flows.commands.models import check_writable, find_version, open_registry
from flows.commands.shown import Shown, lines
from flows.stages.evaluate import read_evaluation
from flows.workspace import Workspace, find_workspace
from pipeline.config import ExperimentConfig
from pipeline.data.dataset import Features
from pipeline.data.prepare import Prepared, load_prepared
from pipeline.data.source import read_features
from pipeline.errors import InputError
from pipeline.packaging.predictor import Predictor
from pipeline.records import TrialRecord, read_record, trial_directory
from pipeline.registry.base import ModelRegistry, ModelVersion
from pipeline.registry.loading import load_version
from pipeline.search.directory import SearchState, read_state
from pipeline.text import shown
from pipeline.tracking.replay import read_replay

N_EXAMPLE = 4


@dataclass(frozen=True, slots=True)
class Staged:
    """An exported file that agrees with its model, still in a folder that will go."""

    path: Path
    predictor: Predictor
    features: Features
    """The rows on which they agree."""
    difference: float
    outside: str
    """What is left to the caller."""

    def line(self, version: ModelVersion, output: Path) -> str:
        return (
            f"{version.name} v{version.version}: {output}, differs by at most {self.difference:.1g} on "
            f"{len(self.features)} rows; left to the caller: {self.outside}"
        )

    def value(self, version: ModelVersion, output: Path) -> dict[str, object]:
        return {
            "model": version.name,
            "version": version.version,
            "output": str(output),
            "rows": len(self.features),
            "largest_difference": self.difference,
            "outside": self.outside,
        }


def export_model(model: str, rows: str, output: Path, tracking_uri: str) -> Shown:
    """Write the file, and compare it with the model on every row of `rows`; it appears where the two agree.

    Raises:
        InputError: no such model or rows, or the ONNX libraries are not installed.
        PackageError: the file and the model differ.
    """
    check_onnx_output(output)
    registry = open_registry(find_workspace(), tracking_uri)
    version = find_version(registry, model)
    with tempfile.TemporaryDirectory(prefix="automl-export-") as scratch:
        staged = stage_onnx(registry, version, rows, Path(scratch))
        output.parent.mkdir(parents=True, exist_ok=True)
        output.write_bytes(staged.path.read_bytes())
    return lines(staged.value(version, output), staged.line(version, output))


def check_onnx_output(output: Path) -> None:
    """Raises InputError where the name is none of an ONNX file."""
    if output.suffix != ".onnx" or output.is_dir():
        raise InputError(f"the output must be an .onnx file, but got {shown(output.name)}", "rename it")


def stage_onnx(registry: ModelRegistry, version: ModelVersion, rows: str, scratch: Path) -> Staged:
    """Export a version into `scratch`, and compare it with the model on every row of `rows`.

    Raises:
        InputError: no such rows, the ONNX libraries are not installed, or the model is of a kind that is not exported.
        PackageError: the file and the model differ.
    """
    from pipeline.packaging.onnx_export import check_parity, export_onnx

    predictor = load_version(registry, version, scratch)
    features = read_features(rows, predictor.spec.kind)
    path = scratch / "model.onnx"
    metadata = export_onnx(predictor, features[:N_EXAMPLE], path)
    return Staged(path, predictor, features, check_parity(predictor, features, path), metadata["automl.outside"])


def export_script(model: str, trial: int | None, output: Path, tracking_uri: str) -> Shown:
    """Write a script that trains a model again without this package, and the rows of its parts beside it.

    Args:
        model: a registered model; with `trial` an experiment, whose latest search is meant.

    Raises:
        InputError: no such model or trial, its search or its data is not here any more, or a script cannot read it.
    """
    if output.suffix != ".py":
        raise InputError(f"a script must be a .py file, but got {shown(output.name)}", "rename it")
    check_writable(output)
    workspace = find_workspace()
    if trial is None:
        version = find_version(open_registry(workspace, tracking_uri), model)
        state, trial = find_origin(workspace, version)
    else:
        state = find_search(workspace, experiment_name(model), None)
    origin = find_trained(workspace, state, trial)
    record, evaluation = origin.record, read_evaluation(workspace.search(state.id))
    finalists = () if evaluation is None else evaluation.finalists
    read = next((str(f.test[record.metric]) for f in finalists if f.trial == trial), "not read")
    from pipeline.packaging.script.write import write_script

    script = write_script(output, record, origin.config, Path.cwd(), origin.prepared, recorded_test=read)
    value = {
        "search": state.id,
        "trial": trial,
        "output": str(script.path),
        "rows": str(script.rows),
        "largest_difference": script.difference,
    }
    return lines(
        value,
        f"{state.id} {record.label}: {script.path}, with {script.rows.name} beside it; it prepares the search's rows, "
        f"different by at most {script.difference:.1g}",
    )


@dataclass(frozen=True, slots=True)
class Origin:
    """A trial that completed, with what it was searched by and trained on."""

    state: SearchState
    config: ExperimentConfig
    record: TrialRecord
    prepared: Prepared


def find_trained(workspace: Workspace, state: SearchState, trial: int) -> Origin:
    """A completed trial of a search.

    Raises:
        InputError: it did not complete.
        DataError: its data is not here any more.
    """
    directory = workspace.search(state.id)
    record, replay = read_record(trial_directory(directory, trial)), read_replay(directory)
    if record is None or record.state != "COMPLETE" or replay is None:
        raise InputError(
            f"trial {trial} of {state.id} did not complete", f"see `automl leaderboard {state.experiment}`"
        )
    config = ExperimentConfig.model_validate(yaml.safe_load(state.config_yaml))
    return Origin(state, config, record, load_prepared(workspace.data / replay.prepared))


def find_origin(workspace: Workspace, version: ModelVersion) -> tuple[SearchState, int]:
    """The search and the trial that a registered model is.

    Raises:
        InputError: the search is not in this workspace.
    """
    state = read_state(workspace.search(version.tags.get("automl.search", "unknown")))
    if state is None:
        raise InputError(
            f"the search behind {version.name} v{version.version} is not under {workspace.searches}",
            "run this in the folder where it was made",
        )
    return state, int(version.tags["automl.trial"])
