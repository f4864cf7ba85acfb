"""From a finished trial's folder to its package."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from pipeline.data.config import DataConfig
from pipeline.data.prepare import Prepared, prepare
from pipeline.errors import PackageError
from pipeline.models import FAMILIES
from pipeline.packaging import load_package, write_trial_package
from pipeline.records import WEIGHTS, TrialRecord, trial_directory
from pipeline.training.config import OptimisationConfig, TrialConfig


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    root = tmp_path_factory.mktemp("data")
    return prepare(DataConfig(source="sklearn:iris"), root, root / "store")


def finished_trial(search: Path, number: int, prepared: Prepared) -> tuple[Path, TrialRecord]:
    config = TrialConfig(
        family="mlp", model=FAMILIES["mlp"].default(prepared.spec), optimisation=OptimisationConfig(), seed=number
    )
    directory = trial_directory(search, number)
    directory.mkdir(parents=True)
    torch.manual_seed(number)
    save_file(FAMILIES["mlp"].build(config.model, prepared.spec).state_dict(), directory / WEIGHTS)
    record = TrialRecord(
        search="iris-1", number=number, state="COMPLETE", config=config, params={}, metric="accuracy", objective=0.9,
        best_epoch=1, curve=(), started=1.7e9, finished=1.7e9 + 1,
        weights_sha256=hashlib.sha256((directory / WEIGHTS).read_bytes()).hexdigest(),
    )  # fmt: skip
    return directory, record


def test_a_trials_package_says_where_it_comes_from_and_predicts_raw_rows(tmp_path: Path, prepared: Prepared) -> None:
    directory, record = finished_trial(tmp_path / "search", 3, prepared)
    predictor = load_package(write_trial_package(directory / "package", record, directory, prepared))
    source = predictor.provenance
    assert (source.search, source.trial, source.metric, source.objective) == ("iris-1", 3, "accuracy", 0.9)
    assert source.data_fingerprint == prepared.fingerprint
    assert source.versions["torch"] == torch.__version__
    assert predictor.spec == prepared.spec


def test_the_trials_of_a_search_share_one_data_description(tmp_path: Path, prepared: Prepared) -> None:
    packages = []
    for number in (0, 1):
        directory, record = finished_trial(tmp_path / "search", number, prepared)
        packages.append(write_trial_package(directory / "package", record, directory, prepared))
    assert (packages[0] / "data.json").samefile(packages[1] / "data.json")


def test_a_package_that_is_there_is_kept(tmp_path: Path, prepared: Prepared) -> None:
    directory, record = finished_trial(tmp_path / "search", 0, prepared)
    package = write_trial_package(directory / "package", record, directory, prepared)
    before = (package / "manifest.json").stat().st_mtime_ns
    assert write_trial_package(directory / "package", record, directory, prepared) == package
    assert (package / "manifest.json").stat().st_mtime_ns == before


def test_weights_that_changed_since_training_are_not_packaged(tmp_path: Path, prepared: Prepared) -> None:
    directory, record = finished_trial(tmp_path / "search", 0, prepared)
    other, _ = finished_trial(tmp_path / "search", 1, prepared)
    shutil.copyfile(other / WEIGHTS, directory / WEIGHTS)
    with pytest.raises(PackageError, match="not those that training saved"):
        write_trial_package(directory / "package", record, directory, prepared)
