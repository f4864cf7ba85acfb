"""EDGE mlflow: a package as a folder that MLflow loads, serves and registers, for the price of a few small files.

``mlflow.pyfunc.log_model`` costs 120 ms of CPU a model; this costs 1 ms, because all trials of a search share all of it
but three words of ``MLmodel`` and the package. ``MLmodel`` names a loader in our installed package, so that
``mlflow.pyfunc.load_model`` runs nothing that lies in the folder.
"""

from __future__ import annotations

import json
import platform
import shutil
import uuid
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Final

from mlflow.models import Model, ModelSignature
from mlflow.types import ColSpec, DataType, Schema, TensorSpec
from mlflow.types.schema import AnyType, Array

from pipeline.data.preprocess import ForecastPreprocessor
from pipeline.files import link_or_copy
from pipeline.packaging.contents import DATA, MANIFEST, MODEL, DataDescription, Manifest, ModelDescription
from pipeline.packaging.package import LIBRARIES
from pipeline.tracking.projection import MODEL_PATH

LOADER: Final = "pipeline.tracking.pyfunc"
PACKAGE_PATH: Final = "data/package"
"""Where the package lies inside the model folder."""
HISTORY_TAG: Final = "mlflow.log-model.history"

RUN_ID: Final = "0" * 32
MODEL_ID: Final = "1" * 32
CREATED: Final = "2000-01-01 00:00:00.000000"


@dataclass(frozen=True, slots=True)
class ModelFolder:
    """What is put around the packages of one search: file name to text, with placeholders in ``MLmodel``."""

    texts: dict[str, str]

    def fill(self, target: Path, package: Path, run_id: str, at: float) -> None:
        """Write the model folder of one run into the existing folder `target`.

        Args:
            at: Unix seconds, as the time of the model's creation.
        """
        words = {RUN_ID: run_id, MODEL_ID: uuid.uuid4().hex, CREATED: _utc(at)}
        for name, text in self.texts.items():
            if name == "MLmodel":
                for placeholder, word in words.items():
                    text = text.replace(placeholder, word)
            (target / name).write_text(text, encoding="utf-8")
        shutil.copytree(package, target / PACKAGE_PATH, copy_function=link_or_copy)


class ModelFolders:
    """Model folders by data description and by whether predictions have intervals or sets: all trials of a search share
    one, or two."""

    def __init__(self) -> None:
        self._made: dict[tuple[str, bool], ModelFolder] = {}

    def of(self, package: Path) -> ModelFolder:
        """The folder for this package, made at the first package of its search."""
        manifest = Manifest.model_validate_json((package / MANIFEST).read_bytes())
        key = manifest.files[DATA].sha256
        conformal = ModelDescription.model_validate_json((package / MODEL).read_bytes()).conformal is not None
        if (key, conformal) not in self._made:
            data = DataDescription.model_validate_json((package / DATA).read_bytes())
            self._made[key, conformal] = make_model_folder(data, conformal=conformal)
        return self._made[key, conformal]


def make_model_folder(data: DataDescription, *, conformal: bool = False) -> ModelFolder:
    """What MLflow wants to find around a package of this data.

    Args:
        conformal: whether its predictions have intervals or sets.
    """
    model = Model(
        artifact_path=MODEL_PATH,
        run_id=RUN_ID,
        model_uuid=MODEL_ID,
        utc_time_created=CREATED,
        signature=_signature(data, conformal=conformal),
    )
    model.add_flavor(
        "python_function",
        loader_module=LOADER,
        data=PACKAGE_PATH,
        env={"conda": "conda.yaml", "virtualenv": "python_env.yaml"},
        python_version=platform.python_version(),
    )
    needed = requirements()
    # JSON is YAML.
    python_env = {"python": platform.python_version(), "dependencies": ["-r requirements.txt"]}
    conda = {
        "name": "mlflow-env",
        "channels": ["conda-forge"],
        "dependencies": [f"python={platform.python_version()}", "pip", {"pip": needed}],
    }
    return ModelFolder(
        {
            "MLmodel": model.to_yaml(),
            "requirements.txt": "".join(f"{line}\n" for line in needed),
            "python_env.yaml": json.dumps(python_env, indent=1),
            "conda.yaml": json.dumps(conda, indent=1),
        }
    )


def history_tag(run_id: str, at: float) -> dict[str, str]:
    """The tag by which MLflow's run table knows that a run has a model."""
    entry = {
        "run_id": run_id,
        "artifact_path": MODEL_PATH,
        "utc_time_created": _utc(at),
        "flavors": {"python_function": {"loader_module": LOADER, "data": PACKAGE_PATH}},
    }
    return {HISTORY_TAG: json.dumps([entry])}


def requirements() -> list[str]:
    """What a process needs to load our models. Given, because MLflow's inference takes 40 s a model."""
    # Without a local part: `2.13.0+cpu` is a build of 2.13.0 that the package index does not have.
    return [f"{name}=={version(name).partition('+')[0]}" for name in ("mlflow", *LIBRARIES)] + _own_requirement()


def _own_requirement() -> list[str]:
    try:
        return [f"automl-pipeline=={version('automl-pipeline')}"]
    except PackageNotFoundError:
        return []  # runs from a checkout that is not installed: there is no version to name


def _signature(data: DataDescription, *, conformal: bool) -> ModelSignature:
    """Columns by name. Their types are not enforced: MLflow would refuse integers where it has seen floats, while our
    preprocessing reads both and names a missing column itself. Images and sequences have no input schema."""
    inputs, anything = None, AnyType()  # type: ignore[no-untyped-call]
    if data.spec.kind in ("tabular", "forecast"):
        inputs = Schema([ColSpec(anything, name, required=False) for name in data.preprocessor.schema_of_features])
    if isinstance(data.preprocessor, ForecastPreprocessor):
        series = [ColSpec(DataType.string, "series")] if data.preprocessor.layout.series is not None else []
        step, when = ColSpec(DataType.long, "step"), ColSpec(anything, "time")
        return ModelSignature(inputs, Schema([*series, step, when, ColSpec(DataType.double, "prediction")]))
    if data.spec.task == "regression":
        names = ("prediction", "lower", "upper") if conformal else ("prediction",)
        return ModelSignature(inputs, Schema([ColSpec(DataType.double, name) for name in names]))
    kinds = {bool: DataType.boolean, int: DataType.long, float: DataType.double, str: DataType.string}
    label = kinds[type(data.spec.labels[0])]
    columns: list[ColSpec | TensorSpec] = [ColSpec(label, "prediction")]
    columns += [ColSpec(DataType.double, f"probability_{label}") for label in data.spec.labels]
    columns += [ColSpec(Array(label), "set")] if conformal else []
    return ModelSignature(inputs, Schema(columns))


def _utc(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M:%S.%f")
