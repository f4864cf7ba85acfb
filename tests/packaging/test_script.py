"""A trial as a script: what a user takes away trains the same model where nothing of this package is."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from pydantic import BaseModel

from pipeline.config import ExperimentConfig, TrainConfig
from pipeline.data.prepare import prepare
from pipeline.data.preprocess import TabularPreprocessor
from pipeline.errors import InputError
from pipeline.models.config import ModelConfig
from pipeline.objective import METRICS
from pipeline.packaging.script.scoring import MINIMISED, score
from pipeline.packaging.script.write import TRAINS_WITH
from pipeline.training.config import AugmentationConfig, OptimisationConfig, TrialConfig
from pipeline.training.metrics import validation_metrics
from tests.conftest import REPOSITORY, make_development
from tests.packaging.scripts import (
    Trained,
    run_without_us,
    scores,
    train_here,
    untrained,
    write_arrays,
    write_digits,
    write_idx,
    write_prices,
    write_records,
    write_semicolons,
    write_table,
    write_utf16,
    write_walks,
    write_waves,
)

CASES: dict[str, tuple[Callable[[Path], None], str, str, dict[str, object], dict[str, object], dict[str, object]]] = {
    "mlp, a table of all types": (
        write_table,
        "{name: t, data: {source: train.csv, test: test.csv, target: leaves, types: {code: categorical}, "
        "split: {by: stratified}}, search: {metric: log_loss}, train: {max_epochs: 8, patience: 2}}",
        "mlp",
        {"scaling": "robust"},
        {"optimizer": "adam", "schedule": "one_cycle", "class_weight_power": 0.5, "label_smoothing": 0.05, "l1": 1e-5},
        {},
    ),
    "mlp, a quantity in parquet": (
        write_prices,
        "{name: t, data: {source: prices.parquet, target: price, split: {by: random}}, "
        "train: {max_epochs: 6, patience: 3}}",
        "mlp",
        {},
        {"loss": "huber", "optimizer": "sgd", "lr": 0.02, "clip_norm": 1.0, "schedule": "step"},
        {},
    ),
    "cnn, images": (
        write_digits,
        "{name: t, data: {source: digits.npz, split: {by: stratified}}, train: {max_epochs: 4, patience: 4}}",
        "cnn",
        {},
        {"loss": "focal", "schedule": "cosine", "warmup": 0.1},
        {"flip": "horizontal", "shift": 1, "cutout": 2, "mixup": 0.2},
    ),
    "lstm, sequences in folds": (
        write_waves,
        "{name: t, data: {source: waves.ts, split: {by: kfold, folds: 3}}, train: {max_epochs: 5, patience: 3}}",
        "lstm",
        {},
        {"optimizer": "rmsprop"},
        {},
    ),
}


@dataclass(frozen=True, slots=True)
class Written:
    """The trials of all cases, their scripts, and what those print."""

    trained: dict[str, Trained]
    scripts: dict[str, Path]
    said: dict[str, str]
    of_other_data: str
    """What the script of images prints when it is given others."""


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Written:
    folder = tmp_path_factory.mktemp("scripts")
    trained: dict[str, Trained] = {}
    scripts: dict[str, Path] = {}
    for number, (case, (write, settings, family, *choices)) in enumerate(CASES.items()):
        root = folder / str(number)
        root.mkdir()
        write(root)
        trained[case] = train_here(root, settings, family, *choices)
        scripts[case] = trained[case].script(folder / f"retrain_{number}.py").path
        for file in root.iterdir():
            if file.is_file():
                shutil.copy(file, folder)
    np.savez(folder / "others.npz", images=np.zeros((700, 8, 8), dtype=np.uint8), labels=np.arange(700) % 10)
    commands = [[str(script)] for script in scripts.values()]
    *said, refusal = run_without_us(folder, [*commands, [str(scripts["cnn, images"]), "--data", "others.npz"]])
    return Written(trained, scripts, dict(zip(CASES, said, strict=True)), refusal)


@pytest.mark.parametrize("case", CASES)
def test_a_script_trains_the_same_model_without_this_package(case: str, written: Written) -> None:
    """Seed, rows, order, masks and kernels are the same, so the scores are equal up to rounding: not within the noise
    of seeds, in which no chance would be left to tell a wrong script from a lucky one."""
    validation, test = scores(written.said[case])
    assert validation == pytest.approx(written.trained[case].record.objective, rel=1e-4, abs=1e-6)
    assert test == pytest.approx(written.trained[case].test, rel=1e-4, abs=1e-6)


@pytest.mark.parametrize("case", CASES)
def test_a_script_is_formatted_and_linted_as_this_package_is(case: str, written: Written) -> None:
    ruff = Path(sys.executable).with_name("ruff")
    if not ruff.exists():
        pytest.skip("the linter is not installed")
    settings = ["--no-cache", "--config", str(REPOSITORY / "pyproject.toml"), str(written.scripts[case])]
    for verb in (["check"], ["format", "--diff"]):
        done = subprocess.run([ruff, *verb, *settings], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout


def test_a_script_leaves_other_data_alone(written: Written) -> None:
    said = "error: others.npz: this is not the file that the search trained on; rows would be other rows"
    assert written.of_other_data == f"stopped {said}\n"


SOURCES: dict[str, tuple[Callable[[Path], None], dict[str, object], str]] = {
    "csv, semicolons, decimal commas, Windows-1252": (
        write_semicolons,
        {"source": "train.csv", "target": "leaves"},
        "mlp",
    ),
    "tsv, UTF-16": (write_utf16, {"source": "train.tsv", "target": "leaves"}, "mlp"),
    "records": (write_records, {"source": "rows.jsonl.gz", "target": "leaves"}, "mlp"),
    "records, a quantity, by group": (
        write_records,
        {"source": "rows.jsonl.gz", "target": "age", "split": {"by": "group", "column": "code"}},
        "mlp",
    ),
    "records, by time": (
        write_records,
        {"source": "rows.jsonl.gz", "target": "leaves", "split": {"by": "time", "column": "age"}},
        "mlp",
    ),
    "records of steps": (write_walks, {"source": "walks.jsonl", "target": "up"}, "lstm"),
    "arrays, a table": (write_arrays, {"source": "flat.npz"}, "mlp"),
    "arrays, sequences": (write_arrays, {"source": "steps.npz", "target": "mood", "split": {"by": "random"}}, "cnn"),
    "arrays, images in colour": (write_arrays, {"source": "colours.npz"}, "cnn"),
    "idx": (write_idx, {"source": "few-images-idx3-ubyte.gz"}, "lstm"),
    "scikit-learn's table": (write_idx, {"source": "sklearn:wine"}, "mlp"),
    "scikit-learn's images": (write_idx, {"source": "sklearn:digits"}, "mlp"),
}


@pytest.mark.parametrize("case", SOURCES)
def test_a_script_reads_and_prepares_every_source_as_the_search_did(case: str, tmp_path: Path) -> None:
    write, data, family = SOURCES[case]
    write(tmp_path)
    script = untrained(tmp_path, {"data": data}, family).script(tmp_path / "retrain.py")
    assert script.difference < 1e-6


@pytest.mark.parametrize("metric", [name for name, known in METRICS.items() if known.tasks != {"forecast"}])
def test_a_scripts_metrics_are_the_searchs(metric: str) -> None:
    task = next(task for task in ("binary", "multiclass", "regression") if task in METRICS[metric].tasks)
    development = make_development(task)
    spec = development.spec.model_copy(update={"target_mean": 3.0, "target_scale": 7.0})
    outputs = torch.randn(60, spec.n_outputs, generator=torch.Generator().manual_seed(0))
    target = development.validation.target
    expected = validation_metrics(outputs[None], target, spec)[metric]
    assert score(metric, outputs, target, spec) == pytest.approx(float(expected), rel=1e-6)
    assert (metric in MINIMISED) == (METRICS[metric].direction == "minimize")


@pytest.mark.parametrize("settings", TRAINS_WITH)
def test_a_script_trains_with_every_choice_there_is(settings: type[BaseModel]) -> None:
    """A choice that is added is to be added to the script's training, or left out here so that it is refused."""
    assert TRAINS_WITH[settings] == set(settings.model_fields)


def test_all_that_decides_a_trial_is_looked_at() -> None:
    """A script is given the family, the model's config as a whole, and the seed."""
    groups = {name: entry.annotation for name, entry in TrialConfig.model_fields.items()}
    assert {groups.pop(name) for name in ("family", "model", "seed")} == {str, ModelConfig, int}
    assert {*groups.values(), TrainConfig} == set(TRAINS_WITH)


def test_a_choice_that_the_scripts_training_does_not_know_gets_no_script(
    written: Written, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(TRAINS_WITH, OptimisationConfig, TRAINS_WITH[OptimisationConfig] - {"clip_norm"})
    monkeypatch.setitem(TRAINS_WITH, AugmentationConfig, TRAINS_WITH[AugmentationConfig] - {"mixup"})
    refused(written.trained["mlp, a quantity in parquet"], tmp_path, "cannot train with clip_norm: 1.0")
    refused(written.trained["cnn, images"], tmp_path, "cannot train with mixup: 0.2")
    plain = written.trained["mlp, a table of all types"]
    assert plain.script(tmp_path / "retrain.py").path.exists(), "it neither clips nor mixes"


def refused(trained: Trained, folder: Path, match: str) -> None:
    with pytest.raises(InputError, match=match):
        trained.script(folder / "never.py")
    assert not list(folder.glob("*never*"))


def test_data_that_has_changed_gets_no_script(written: Written, tmp_path: Path) -> None:
    trained = written.trained["mlp, a quantity in parquet"]
    write_prices(tmp_path)
    pd.read_parquet(tmp_path / "prices.parquet")[:-1].to_parquet(tmp_path / "prices.parquet")
    refused(replace(trained, root=tmp_path), tmp_path, "not what the search divided")


def test_rows_that_would_be_prepared_otherwise_get_no_script_and_the_column_is_named(
    written: Written, tmp_path: Path
) -> None:
    trained = written.trained["mlp, a quantity in parquet"]
    fitted = trained.prepared.preprocessor
    assert isinstance(fitted, TabularPreprocessor)
    renamed = fitted.model_copy(update={"numeric": fitted.numeric[::-1]})
    other = replace(trained.prepared, preprocessor=renamed)
    refused(replace(trained, prepared=other), tmp_path, "the column '(area|rooms)' differs by .* of the training part")


@pytest.mark.parametrize("field", ["scales", "bins", "target_scale", "cardinalities", "n_train"])
def test_a_script_that_would_tell_the_model_other_things_of_the_data_is_not_written(
    field: str, written: Written, tmp_path: Path
) -> None:
    """Equal tensors are not enough: a model is also built from what its `DataSpec` says."""
    trained = written.trained["mlp, a quantity in parquet"]
    value = getattr(trained.prepared.spec, field)
    value = value[::-1] if field in ("scales", "bins") else (*value, 3) if field == "cardinalities" else value + 1
    other = replace(trained.prepared, spec=trained.prepared.spec.model_copy(update={field: value}))
    refused(replace(trained, prepared=other), tmp_path, f"other {field} of the data")


def test_image_files_get_no_script(written: Written, tmp_path: Path) -> None:
    for label in ("cat", "dog"):
        (tmp_path / "pets" / label).mkdir(parents=True)
        for n in range(6):
            Image.new("L", (4, 4), n).save(tmp_path / "pets" / label / f"{n}.png")
    settings = ExperimentConfig.model_validate({"name": "t", "data": {"source": "pets", "split": {"by": "random"}}})
    prepared = prepare(settings.data, tmp_path, tmp_path / "store")
    trained = replace(written.trained["cnn, images"], config=settings, root=tmp_path, prepared=prepared)
    refused(trained, tmp_path, "cannot read pets: image files need Pillow")
