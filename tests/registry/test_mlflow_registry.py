"""What only the real registry can get wrong: who else moves the alias, what its users load, and damaged artifacts."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from mlflow import MlflowClient

from pipeline.errors import GateError, PackageError, StoreError
from pipeline.packaging import load_package, package_digest
from pipeline.registry.mlflow import MLflowRegistry
from pipeline.tracking.mlflow import MLflowTracker
from tests.packaging.cases import Case
from tests.patience import PATIENCE_S
from tests.tracking.records import SEARCH, record, search_info
from tests.tracking.stores import copy_database


@pytest.fixture
def uri(database: Path, tmp_path: Path) -> str:
    return copy_database(database, tmp_path)


@pytest.fixture
def runs(uri: str, tmp_path: Path, package: Path) -> list[str]:
    tracker = MLflowTracker(uri, tmp_path / "artifacts")
    tracker.start_search(search_info())
    return [tracker.finish_trial(record(number), package) for number in range(4)]


@pytest.fixture
def registry(uri: str, tmp_path: Path) -> MLflowRegistry:
    return MLflowRegistry(uri, tmp_path / "registry")


def test_a_version_carries_the_digest_of_its_package(registry: MLflowRegistry, runs: list[str], package: Path) -> None:
    assert registry.register("digits", runs[0], "key", {}).tags["automl.package"] == package_digest(package)


PREDICT = """
import sys
import mlflow
import pandas as pd
mlflow.set_tracking_uri(sys.argv[1])
rows = pd.read_csv(sys.argv[2])
for number, model_uri in enumerate(sys.argv[4:]):
    mlflow.pyfunc.load_model(model_uri).predict(rows).to_csv(f"{sys.argv[3]}/{number}.csv", index=False)
"""


def test_a_fresh_process_loads_the_model_by_alias_version_and_run_and_predicts_raw_rows(
    registry: MLflowRegistry, uri: str, runs: list[str], case: Case, package: Path, tmp_path: Path
) -> None:
    registry.move_champion("digits", registry.register("digits", runs[0], "key", {}).version, None)
    assert isinstance(case.features, pd.DataFrame)
    case.features.to_csv(tmp_path / "in.csv", index=False)
    names = ["models:/digits@champion", "models:/digits/1", f"runs:/{runs[0]}/model"]
    arguments = [uri, str(tmp_path / "in.csv"), str(tmp_path), *names]
    result = subprocess.run(
        [sys.executable, "-c", PREDICT, *arguments], capture_output=True, text=True, timeout=PATIENCE_S
    )
    assert result.returncode == 0, result.stderr
    expected = load_package(package).predict(case.features)
    for number in range(len(names)):
        pd.testing.assert_frame_equal(pd.read_csv(tmp_path / f"{number}.csv"), expected, rtol=1e-6, check_dtype=False)
    # MLflow leaves a note in the model folder; the package inside stays what it was.
    load_package(registry.download("digits", 1, tmp_path / "again"), package_digest(package))


def test_of_many_who_compared_with_the_same_champion_one_moves_it(
    registry: MLflowRegistry, uri: str, runs: list[str], tmp_path: Path
) -> None:
    versions = [registry.register("digits", run, f"key-{run}", {}).version for run in runs]
    registry.move_champion("digits", versions[0], None)
    outcomes: list[int | str] = []

    def move(to: int) -> None:
        own = MLflowRegistry(uri, tmp_path / "registry")
        try:
            own.move_champion("digits", to, versions[0])
            outcomes.append(to)
        except GateError:
            outcomes.append("refused")

    threads = [threading.Thread(target=move, args=(version,)) for version in versions[1:]]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    winners = [outcome for outcome in outcomes if outcome != "refused"]
    champion = registry.champion("digits")
    assert champion is not None
    assert winners == [champion.version]
    assert outcomes.count("refused") == 2


def test_many_who_register_one_trial_get_one_version(
    registry: MLflowRegistry, uri: str, runs: list[str], tmp_path: Path
) -> None:
    versions: list[int] = []

    def register() -> None:
        own = MLflowRegistry(uri, tmp_path / "registry")
        versions.append(own.register("digits", runs[0], f"{SEARCH}/0", {}).version)

    threads = [threading.Thread(target=register) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert versions == [1, 1, 1, 1]
    assert len(registry.versions("digits")) == 1


def test_an_alias_that_reads_back_otherwise_is_an_error(
    registry: MLflowRegistry, runs: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    version = registry.register("digits", runs[0], "key", {}).version

    def nothing(*_args: Any, **_kwargs: Any) -> None:
        return None

    monkeypatch.setattr(MlflowClient, "set_registered_model_alias", nothing)
    with pytest.raises(StoreError, match="reads as None"):
        registry.move_champion("digits", version, None)


def test_damage_in_the_artifact_store_is_seen_after_download(
    registry: MLflowRegistry, runs: list[str], tmp_path: Path
) -> None:
    version = registry.register("digits", runs[0], "key", {}).version
    (weights,) = (tmp_path / "artifacts").glob(f"digits/{runs[0]}/**/weights.safetensors")
    content = bytearray(weights.read_bytes())
    weights.unlink()  # it is a link to the trial's own
    content[-1] ^= 1
    weights.write_bytes(content)
    with pytest.raises(PackageError, match="does not match its hash"):
        load_package(registry.download("digits", version, tmp_path / "here"))


def test_artifacts_that_are_gone_are_a_store_error(registry: MLflowRegistry, runs: list[str], tmp_path: Path) -> None:
    version = registry.register("digits", runs[0], "key", {}).version
    (tmp_path / "artifacts" / "digits" / runs[0]).rename(tmp_path / "moved away")
    with pytest.raises(StoreError, match="could not download"):
        registry.download("digits", version, tmp_path / "here")


def test_a_link_in_the_artifact_store_is_refused_and_not_followed(
    registry: MLflowRegistry, runs: list[str], tmp_path: Path
) -> None:
    version = registry.register("digits", runs[0], "key", {}).version
    (weights,) = (tmp_path / "artifacts").glob(f"digits/{runs[0]}/**/weights.safetensors")
    weights.rename(tmp_path / "weights")
    weights.symlink_to(tmp_path / "weights")
    with pytest.raises(PackageError, match="plain file"):
        load_package(registry.download("digits", version, tmp_path / "here"))
