"""85 to 92: models whose files would run code, lead elsewhere or lie. Whatever loads a model, the mark stays absent."""

from __future__ import annotations

import json
import os
import pickle
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import mlflow
import pandas as pd
import pytest
import yaml
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from pipeline.errors import AutoMLError, PackageError
from pipeline.packaging import package_digest
from pipeline.registry.loading import load_version
from pipeline.registry.mlflow import MLflowRegistry
from pipeline.tracking.artifacts import local_folder
from pipeline.tracking.mlflow import MLflowTracker
from tests.bad_input.cases import Case, User, at_a_prompt, elsewhere, table
from tests.packaging.cases import make_case
from tests.packaging.test_tampering import Marker, forge
from tests.tracking.records import record, search_info
from tests.tracking.stores import make_template

MARK = "it-ran"
TAMPERING = "tests/packaging/test_tampering.py"

CASES = (
    elsewhere(85, "a pickle in place of a file of ours", f"{TAMPERING}::test_a_pickle_in_place_of_a_file_is_never_opened_as_one"),
    elsewhere(86, "a loader and code of its own", "tests/bad_input/test_models.py::test_85_to_89_nothing_that_lies_in_a_models_folder_runs"),
    elsewhere(87, "a pickle module of its own", "tests/bad_input/test_models.py::test_85_to_89_nothing_that_lies_in_a_models_folder_runs"),
    elsewhere(88, "data outside of the model's folder", "tests/bad_input/test_models.py::test_85_to_89_nothing_that_lies_in_a_models_folder_runs"),
    elsewhere(89, "a file that does not match its hash", f"{TAMPERING}::test_one_flipped_bit_anywhere_is_seen"),
    elsewhere(89, "a package exchanged as a whole", "tests/bad_input/test_models.py::test_85_to_89_nothing_that_lies_in_a_models_folder_runs"),
    elsewhere(90, "weights of other shapes, types or values", f"{TAMPERING}::test_weights_that_are_not_the_models_are_refused"),
    elsewhere(90, "missing and unknown tensors", f"{TAMPERING}::test_a_tensor_more_or_less_is_refused"),
    elsewhere(91, "a width of 1e9", f"{TAMPERING}::test_a_description_out_of_bounds_is_refused"),
    elsewhere(91, "a module of a gigabyte", f"{TAMPERING}::test_a_huge_module_is_refused_without_its_memory"),
    elsewhere(92, "a version whose files are missing, or lie elsewhere", "tests/bad_input/test_models.py::test_92_a_version_without_its_files"),
)  # fmt: skip


@table(CASES)
def test_models(user: User, case: Case) -> None:
    user.meets(case)


@dataclass(frozen=True, slots=True)
class Made:
    """A folder with a registered model of two versions, and what its artifacts were."""

    folder: Path
    pristine: Path
    registry: MLflowRegistry
    client: MlflowClient
    models: tuple[Path, Path]


@dataclass(frozen=True, slots=True)
class Store:
    """A user's folder with a registered model of two versions, the second of them champion."""

    user: User
    registry: MLflowRegistry
    client: MlflowClient
    folders: tuple[Path, Path]

    @property
    def mark(self) -> Path:
        return self.user.folder / MARK

    def every_loading_path(self) -> dict[str, tuple[int, str]]:
        """Load the champion in every way the product does; exit code and error, by way."""
        ways = {
            "predict": ("predict", "bad", "rows.csv", "-o", "out.csv"),
            "rollback": ("rollback", "bad"),
            "doctor": ("doctor", "--json"),
        }
        seen = {way: self.user.runs(*command) for way, command in ways.items()}
        champion = self.registry.champion("bad")
        assert champion is not None
        try:
            load_version(self.registry, champion, self.user.folder / "fetched")  # evaluation's and promotion's way
        except AutoMLError as error:
            seen["load_version"] = (error.exit_code, "", f"error: {error}\n")
        else:
            seen["load_version"] = (0, "", "")
        return {way: (code, err) for way, (code, _, err) in seen.items()}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """Made once, because opening MLflow's database takes a second; what a test damages is put back."""
    folder = tmp_path_factory.mktemp("models")
    packaged = make_case(folder / "case", "tabular", "mlp")
    state, package = folder / "user" / "mlruns", packaged.write(folder / "package")
    state.mkdir(parents=True)
    uri = f"sqlite:///{make_template(state)}"
    tracker, registry, client = (
        MLflowTracker(uri, state / "artifacts"),
        MLflowRegistry(uri, state / "registry"),
        MlflowClient(uri, uri),
    )
    tracker.start_search(search_info())
    models = []
    for number in (0, 1):
        run = tracker.finish_trial(record(number), package)
        registry.move_champion("bad", registry.register("bad", run, f"key-{number}", {}).version, number or None)
        artifacts = local_folder(client.get_run(run).info.artifact_uri)
        assert artifacts is not None
        models.append(artifacts / "model")
        shutil.copytree(artifacts, folder / "pristine" / str(number))
    assert isinstance(packaged.features, pd.DataFrame)
    packaged.features.to_csv(folder / "user" / "rows.csv", index=False)
    return Made(folder / "user", folder / "pristine", registry, client, (models[0], models[1]))


@pytest.fixture
def store(made: Made, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Store:
    for number, model in enumerate(made.models):
        shutil.rmtree(model.parent)
        shutil.copytree(made.pristine / str(number), model.parent)  # files of its own, so that damage stays in it
        made.client.set_registered_model_alias("bad", ("previous", "champion")[number], str(number + 1))
    for name in (MARK, "out.csv"):
        (made.folder / name).unlink(missing_ok=True)
    return Store(at_a_prompt(made.folder, capsys, monkeypatch), made.registry, made.client, made.models)


def evil_code(model: Path, mark: Path, name: str) -> None:
    """A module beside the model that leaves a mark when it is imported."""
    (model / "code").mkdir()
    (model / "code" / f"{name}.py").write_text(
        f"from pathlib import Path\nPath({str(mark)!r}).touch()\n\n\ndef _load_pyfunc(path):\n    return None\n"
    )


def edit_mlmodel(model: Path, edit: Callable[[dict[str, dict[str, dict[str, object]]]], object]) -> None:
    described = yaml.safe_load((model / "MLmodel").read_text())
    edit(described)
    (model / "MLmodel").write_text(yaml.safe_dump(described))


def own_loader(model: Path, mark: Path) -> None:
    evil_code(model, mark, "evil_loader")
    edit_mlmodel(model, lambda m: m["flavors"]["python_function"].update(loader_module="evil_loader", code="code"))


def own_pickle_module(model: Path, mark: Path) -> None:
    evil_code(model, mark, "evil_pickle")
    (model / "data" / "pickle_module_info.txt").write_text("evil_pickle")
    (model / "data" / "model.pth").write_bytes(pickle.dumps(Marker(mark)))
    flavor = {"model_data": "data", "pytorch_version": "2.13.0", "code": "code"}
    edit_mlmodel(model, lambda m: m["flavors"].update(pytorch=flavor))
    edit_mlmodel(
        model,
        lambda m: m["flavors"]["python_function"].update(loader_module="mlflow.pytorch", data="data", code="code"),
    )


def python_model(model: Path, mark: Path) -> None:
    (model / "python_model.pkl").write_bytes(pickle.dumps(Marker(mark)))
    edit_mlmodel(
        model,
        lambda m: m["flavors"]["python_function"].update(
            loader_module="mlflow.pyfunc.model", python_model="python_model.pkl", cloudpickle_version="3.0.0"
        ),
    )


def gadget_in_the_package(model: Path, mark: Path) -> None:
    (model / "data" / "package" / "extra.pkl").write_bytes(pickle.dumps(Marker(mark)))


def gadget_for_weights(model: Path, mark: Path) -> None:
    (model / "data" / "package" / "weights.safetensors").write_bytes(pickle.dumps(Marker(mark)))
    forge(model / "data" / "package")


def another_package(model: Path, mark: Path) -> None:
    """The same weights as another trial's, with a manifest that fits."""
    path = model / "data" / "package" / "model.json"
    described = json.loads(path.read_text())
    described["provenance"]["trial"] = 99
    path.write_text(json.dumps(described))
    forge(model / "data" / "package")


def outside(model: Path, mark: Path) -> None:
    """``data: ../outside``, and a link that leads there."""
    target = model.parent / "outside"
    shutil.move(model / "data" / "package", target)
    (model / "data" / "package").symlink_to(target)
    edit_mlmodel(model, lambda m: m["flavors"]["python_function"].update(data="../outside"))


UNTOUCHED = (own_loader, own_pickle_module, python_model)
"""What lies around our package is never looked at."""
REFUSED = {
    gadget_in_the_package: "and nothing else",
    gadget_for_weights: "another package than the one that was stored",
    another_package: "another package than the one that was stored",
    outside: "must be a folder, not a link",
}


@pytest.mark.parametrize("tamper", [*UNTOUCHED, *REFUSED], ids=lambda tamper: str(tamper.__name__))
def test_85_to_89_nothing_that_lies_in_a_models_folder_runs(store: Store, tamper: Callable[[Path, Path], None]) -> None:
    for model in store.folders:
        tamper(model, store.mark)
    for way, (code, err) in store.every_loading_path().items():
        assert not store.mark.exists(), way
        assert "Traceback" not in err
        if tamper in UNTOUCHED:
            assert (code, err) == (0, ""), way
        elif way != "doctor":  # which says so in its list
            assert code == 1, way
            assert err.count("\n") == 1
            assert REFUSED[tamper] in err, way
        else:
            assert code == 1


@pytest.mark.filterwarnings("ignore:.*Any type hint")
@pytest.mark.parametrize("tamper", [own_loader])
def test_the_mark_appears_where_models_are_trusted(store: Store, tamper: Callable[[Path, Path], None]) -> None:
    """The payload works: with MLflow's own loader it runs, unpickling switched off or not."""
    tamper(store.folders[1], store.mark)
    with pytest.raises(MlflowException, match="required predict method"):
        mlflow.pyfunc.load_model(str(store.folders[1]))
    assert store.mark.exists()


def no_files(store: Store) -> str:
    shutil.rmtree(store.folders[1])
    return "MLflow could not download bad version 2"


def files_elsewhere(store: Store) -> str:
    version = store.client.create_model_version("bad", source="file:///etc", run_id=None).version
    store.client.set_registered_model_alias("bad", "champion", version)
    return f"MLflow could not download bad version {version}"


def run_of_nobody(store: Store) -> str:
    version = store.client.create_model_version("bad", source="runs:/deadbeef/model", run_id=None).version
    store.client.set_registered_model_alias("bad", "champion", version)
    return f"MLflow could not download bad version {version}"


def a_pipe_for_a_file(store: Store) -> str:
    (store.folders[1] / "data" / "package" / "weights.safetensors").unlink()
    os.mkfifo(store.folders[1] / "data" / "package" / "weights.safetensors")
    return "bad version 2"


@pytest.mark.parametrize("damage", [no_files, files_elsewhere, run_of_nobody, a_pipe_for_a_file])
def test_92_a_version_without_its_files(store: Store, damage: Callable[[Store], str]) -> None:
    expected = damage(store)
    code, out, err = store.user.runs("predict", "bad", "rows.csv", "-o", "out.csv")
    assert code == 1, out
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert expected in err
    assert not (store.user.folder / "out.csv").exists()


def test_a_version_remembers_the_package_that_was_registered(store: Store) -> None:
    champion = store.registry.champion("bad")
    assert champion is not None
    assert champion.tags["automl.package"] == package_digest(store.folders[1] / "data" / "package")
    another_package(store.folders[1], store.mark)
    with pytest.raises(PackageError, match="another package"):
        load_version(store.registry, champion, store.user.folder / "fetched")
