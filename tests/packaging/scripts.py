"""Trials trained here, written as scripts, and run where nothing of this package can be imported."""

from __future__ import annotations

import gzip
import json
import re
import subprocess
import sys
import sysconfig
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from sklearn.datasets import load_digits

from pipeline.config import ExperimentConfig
from pipeline.data.prepare import Prepared, prepare
from pipeline.data.preprocess import encode_target
from pipeline.data.sealed import unseal
from pipeline.evaluation.calibration import fit_temperature
from pipeline.models import FAMILIES
from pipeline.objective import objective_for
from pipeline.packaging import load_package, write_trial_package
from pipeline.packaging.script.write import Script, write_script
from pipeline.records import TrialRecord, judged, trial_directory
from pipeline.training.config import AugmentationConfig, OptimisationConfig, TrainSettings, TrialConfig
from pipeline.training.folded import build_learner
from pipeline.training.measurement import Measurement, Outcome
from pipeline.training.metrics import validation_metrics
from pipeline.training.trainer import Job, train_cohort
from tests.patience import PATIENCE_S

OURS = ("pipeline", "search_spaces", "flows", "benchmarks", "tests")
OTHERS = ("mlflow", "optuna", "prefect", "pydantic", "safetensors", "typer", "yaml")

RUN = """
import json, runpy, sys
site, commands, barred = json.loads(sys.argv[1])
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in barred:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Absent())
sys.path += site  # without -S: no .pth file is read, so that no editable install is found either
import torch
torch.set_num_threads(1)
for command in commands:
    print("==", *command)
    sys.argv = command
    try:
        runpy.run_path(command[0], run_name="__main__")
    except SystemExit as stopped:
        print("stopped", stopped.code)
found = sorted(name for name in sys.modules if name.split(".")[0] in barred)
assert not found, found
"""


@dataclass(slots=True)
class _Monitor:
    curve: list[Measurement] = field(default_factory=list)
    outcome: Outcome | None = None

    def report(self, measurements: Sequence[Measurement]) -> Mapping[int, None]:
        self.curve += measurements
        return {}

    def ended(self, outcome: Outcome) -> None:
        self.outcome = outcome

    def suspended(self, trial: int) -> None:
        raise AssertionError("nobody stops these trials")


@dataclass(frozen=True, slots=True)
class Trained:
    """A trial that was trained here."""

    record: TrialRecord
    config: ExperimentConfig
    root: Path
    prepared: Prepared
    test: float

    def script(self, path: Path) -> Script:
        return write_script(path, self.record, self.config, self.root, self.prepared, recorded_test=f"{self.test:.6f}")


def train_here(
    root: Path,
    settings: str,
    family: str,
    model: Mapping[str, object],
    optimisation: Mapping[str, object],
    augmentation: Mapping[str, object],
) -> Trained:
    """Prepare, train one trial of a family's default with some choices of its own, read its test."""
    import yaml

    config = ExperimentConfig.model_validate(yaml.safe_load(settings))
    prepared = prepare(config.data, root, root / "store")
    metric = objective_for(config.search.metric, prepared.spec.task).metric
    trial = TrialConfig(
        family=family,
        model=FAMILIES[family].default(prepared.spec).model_copy(update=model),
        optimisation=OptimisationConfig.model_validate({"lr": 3e-3, "batch_size": 32, **optimisation}),
        augmentation=AugmentationConfig.model_validate(augmentation),
        seed=11,
    )
    directory = trial_directory(root / "search", 3)
    directory.mkdir(parents=True)
    monitor = _Monitor()
    data = prepared.development()
    train_settings = TrainSettings(metric=metric, **config.train.model_dump())
    learner = build_learner([trial], data, train_settings, torch.device("cpu"), together=False)
    train_cohort([Job(3, trial, directory)], learner, data, train_settings, monitor)
    assert monitor.outcome is not None
    record = TrialRecord(
        search="small-1", number=3, config=trial, params={}, started=1.7e9,
        **judged(monitor.outcome, monitor.curve, metric, directory),
    )  # fmt: skip
    package = load_package(write_trial_package(directory / "package", record, directory, prepared))
    dataset, target = unseal(prepared.sealed, "a test of scripts", root / "readings.jsonl")
    encoded, outputs = encode_target(prepared.spec, target), package.outputs(dataset.features)
    if prepared.spec.task != "regression" and not prepared.spec.n_folds:
        outputs = outputs / fit_temperature(package.logits(data.validation.inputs), data.validation.target)
    test = float(validation_metrics(outputs[None], encoded, prepared.spec)[metric][0])
    return Trained(record, config, root, prepared, test)


def untrained(root: Path, settings: dict[str, object], family: str) -> Trained:
    """As `train_here`, for scripts that nobody runs: prepared data, and the record of a training that never was."""
    config = ExperimentConfig.model_validate({"name": "small", **settings})
    prepared = prepare(config.data, root, root / "store")
    model = FAMILIES[family].default(prepared.spec)
    loss = "mse" if prepared.spec.task == "regression" else "cross_entropy"
    trial = TrialConfig(family=family, model=model, optimisation=OptimisationConfig(loss=loss))
    curve = (Measurement(trial=0, epoch=1, train_loss=1.0, val_loss=1.0, metrics={}, seconds=1.0),)
    record = TrialRecord(
        search="small-1", number=0, state="COMPLETE", config=trial, params={}, metric="accuracy", objective=0.5,
        best_epoch=1, curve=curve, started=1.7e9, finished=1.7e9,
    )  # fmt: skip
    return Trained(record, config, root, prepared, 0.5)


def run_without_us(folder: Path, commands: Sequence[Sequence[str]]) -> list[str]:
    """What each script prints, in a process that finds neither this package nor what it is built on.

    Args:
        commands: scripts with their arguments.
    """
    site = [sysconfig.get_path("purelib"), sysconfig.get_path("platlib")]
    asked = json.dumps([site, commands, [*OURS, *OTHERS]])
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", RUN, asked], cwd=folder, capture_output=True, text=True,
        timeout=PATIENCE_S, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return re.split(r"^== .*\n", done.stdout, flags=re.MULTILINE)[1:]


def scores(said: str) -> tuple[float, float]:
    """Validation and test score that a script printed."""
    found = dict(re.findall(r"^(validation|test) \w+ ([-\d.]+)", said, flags=re.MULTILINE))
    return float(found["validation"]), float(found["test"])


def table(n: int, seed: int) -> pd.DataFrame:
    """Every type of column there is, with holes."""
    draw = np.random.default_rng(seed)
    wage, town = draw.lognormal(3, 1, n).round(2), draw.choice(["Bonn", "Lyon", "Porto", "Nice"], n)
    since = pd.Timestamp("2020-01-01") + pd.to_timedelta(draw.integers(0, 2000, n), unit="D")
    words = [" ".join(draw.choice(["red", "green", "blue", "small", "large", "old"], 5)) for _ in range(n)]
    frame = pd.DataFrame({"wage": wage, "age": draw.integers(18, 80, n).astype(float), "town": town, "note": words})
    frame["code"] = draw.integers(1, 5, n).astype(str)
    frame["member"] = draw.choice(["true", "false"], n)
    frame["since"] = since.strftime("%d.%m.%Y")
    goes = np.log(wage) - 3 + (town == "Lyon") + draw.normal(0, 0.5, n)
    frame["leaves"] = np.where(goes > 0.3, "yes", "no")
    for column in ("wage", "town", "since"):
        frame.loc[draw.random(n) < 0.06, column] = None
    return frame


def write_semicolons(folder: Path) -> None:
    """As a spreadsheet in Germany saves it, with a row that has no target."""
    frame = table(80, 4).drop(columns="note")
    frame.loc[5, "leaves"] = None
    text = frame.to_csv(sep=";", index=False, decimal=",").replace("Lyon", "Köln")
    (folder / "train.csv").write_bytes(text.encode("cp1252"))


def write_utf16(folder: Path) -> None:
    (folder / "train.tsv").write_bytes(table(80, 4).to_csv(sep="\t", index=False).encode("utf-16"))


def write_records(folder: Path) -> None:
    """Truth values, nulls and numbers as JSON has them."""
    records = json.loads(table(80, 4).assign(member=lambda frame: frame["member"] == "true").to_json(orient="records"))
    text = "\n".join(json.dumps(record) for record in records)
    (folder / "rows.jsonl.gz").write_bytes(gzip.compress(text.encode()))


def write_walks(folder: Path) -> None:
    draw = np.random.default_rng(5)
    walks = [draw.normal(size=(draw.integers(3, 9), 2)).cumsum(0).round(3).tolist() for _ in range(60)]
    walks[7][1][0] = None
    lines = [json.dumps({"steps": walk, "up": walk[-1][0] > walk[0][0]}) for walk in walks]
    (folder / "walks.jsonl").write_text("\n".join(lines))


def write_arrays(folder: Path) -> None:
    draw = np.random.default_rng(6)
    np.savez(folder / "flat.npz", x=draw.normal(size=(60, 3)), y=draw.integers(0, 2, 60))
    np.savez(folder / "steps.npz", features=draw.normal(size=(60, 5, 2)), mood=draw.normal(size=60))
    np.savez(
        folder / "colours.npz",
        images=draw.integers(0, 255, (60, 6, 6, 3), dtype=np.uint8),
        labels=draw.integers(0, 3, 60),
    )


def write_idx(folder: Path) -> None:
    digits = load_digits()
    images, labels = digits.images[:90].astype(np.uint8), digits.target[:90].astype(np.uint8)
    head = b"\x00\x00\x08\x03" + np.array(images.shape, ">i4").tobytes()
    (folder / "few-images-idx3-ubyte.gz").write_bytes(gzip.compress(head + images.tobytes()))
    (folder / "few-labels-idx1-ubyte.gz").write_bytes(
        gzip.compress(b"\x00\x00\x08\x01" + np.array([90], ">i4").tobytes() + labels.tobytes())
    )


def write_table(folder: Path) -> None:
    table(700, 0).to_csv(folder / "train.csv", sep=";", index=False)
    table(300, 1).to_csv(folder / "test.csv", sep=";", index=False)


def write_digits(folder: Path) -> None:
    digits = load_digits()
    np.savez(folder / "digits.npz", images=digits.images[:700].astype(np.uint8), labels=digits.target[:700])


def write_waves(folder: Path) -> None:
    """Sequences of unequal length whose frequency is their class; a value is missing here and there."""
    draw = np.random.default_rng(2)
    lines = ["@timestamps false", "@classLabel true a b c", "@data"]
    for row in range(180):
        steps = np.arange(draw.integers(6, 13))
        wave = np.sin(steps * (0.4 + 0.5 * (row % 3)) + draw.normal(0, 0.3))
        values = [f"{v:.4f}" if draw.random() > 0.02 else "?" for v in wave + draw.normal(0, 0.2, len(steps))]
        lines.append(f"{','.join(values)}:{'abc'[row % 3]}")
    (folder / "waves.ts").write_text("\n".join(lines) + "\n")


def write_prices(folder: Path) -> None:
    draw = np.random.default_rng(3)
    frame = pd.DataFrame(
        {"rooms": draw.integers(1, 9, 600), "area": draw.normal(90, 20, 600), "new": draw.random(600) < 0.3}
    )
    frame["price"] = frame["area"] * (3 + frame["new"]) + 10 * frame["rooms"] + draw.normal(0, 10, 600)
    frame.loc[:20, "area"] = np.nan
    frame.to_parquet(folder / "prices.parquet")
