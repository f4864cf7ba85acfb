"""`automl init` looks at data and writes a file that `automl check` accepts as it stands."""

from __future__ import annotations

from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from rich.console import Console

from flows.commands.init import find_parts, init_experiment, name_of
from flows.stages import check_against_data
from pipeline.config import load_experiment
from pipeline.data.prepare import prepare
from pipeline.errors import DataError, InputError
from tests.bad_input.cases import at_a_prompt, is_one_line
from tests.flows.project import make_table
from tests.helpers import umask

SETS = {
    # data set: target, then the kind, task, metric and split that are inferred
    "air_passengers": ("Passengers", "forecast", "forecast", "mae", "time"),
    "cifar10_png_folder": (None, "image", "multiclass", "accuracy", "stratified"),
    "credit_g": ("credit_risk", "tabular", "binary", "roc_auc", "kfold"),
    "italy_power_demand": (None, "sequence", "binary", "roc_auc", "kfold"),
    "japanese_vowels": (None, "sequence", "multiclass", "accuracy", "kfold"),
    "letter": ("lettr", "tabular", "multiclass", "accuracy", "stratified"),
    "sms_spam": ("label", "text", "binary", "roc_auc", "stratified"),
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def written(data: str, target: str | None = None) -> dict[str, Any]:
    """What `init` writes about the data, after what `check` does with it."""
    init_experiment(data, target, Path("experiment.yaml"), force=True)
    config = load_experiment(Path("experiment.yaml"))
    check_against_data(config, prepare(config.data, Path.cwd(), Path.cwd() / "store"))
    result: dict[str, Any] = yaml.safe_load(Path("experiment.yaml").read_text(encoding="utf-8"))
    return result


@pytest.mark.parametrize("name", SETS)
def test_real_data_needs_no_editing(real_data: Path, folder: Path, name: str) -> None:
    target, *expected = SETS[name]
    file = written(str(real_data / name), target)
    data = file["data"]
    assert [data["kind"], data["task"], file["search"]["metric"], data["split"]["by"]] == expected


@pytest.mark.parametrize(("source", "bound"), [("sklearn:diabetes", "max"), ("sklearn:wine", "min")])
def test_the_gate_that_it_shows_bounds_the_metric_from_its_bad_side(folder: Path, source: str, bound: str) -> None:
    metric = written(source)["search"]["metric"]
    assert f"{{metric: {metric}, {bound}: 0." in Path("experiment.yaml").read_text(encoding="utf-8")


def test_the_test_that_lies_beside_is_used(folder: Path) -> None:
    make_table(folder)
    assert written("train.csv", "buys")["data"]["test"] == "test.csv"


def test_a_test_that_does_not_fit_is_left_out_and_why_is_said(folder: Path) -> None:
    make_table(folder)
    pd.read_csv("test.csv").drop(columns="age").to_csv("test.csv", index=False)
    assert "test" not in written("train.csv", "buys")["data"]
    assert "cannot be the test: it lacks the column 'age'" in Path("experiment.yaml").read_text()


def test_rare_classes_get_a_metric_that_counts_them(folder: Path) -> None:
    levels = ["a"] * 1500 + ["b"] * 120 + ["c"] * 60
    pd.DataFrame({"x": np.random.default_rng(0).normal(size=1680), "y": levels}).to_csv("rare.csv", index=False)
    assert written("rare.csv", "y")["search"]["metric"] == "balanced_accuracy"


def test_rows_in_the_order_of_their_dates_are_split_by_time(folder: Path) -> None:
    days = pd.date_range("2024-01-01", periods=100).strftime("%d.%m.%Y")
    pd.DataFrame({"day": days, "x": np.arange(100) % 7, "y": np.arange(100) * 1.5}).to_csv("sold.csv", index=False)
    data = written("sold.csv", "y")["data"]
    assert data["split"] == {"by": "time", "validation": 0.2, "test": 0.2, "column": "day", "seed": 0}


def test_series_are_forecast_where_nothing_stands_beside_their_times_or_where_it_is_asked_for(folder: Path) -> None:
    when = pd.date_range("2024-01-01", periods=200, freq="h").strftime("%Y-%m-%d %H:%M")
    alone = pd.DataFrame({"hour": [*when, *when], "y": np.arange(400) % 7, "site": ["a"] * 200 + ["b"] * 200})
    alone.to_csv("alone.csv", index=False)
    data = written("alone.csv", "y")["data"]
    assert (data["kind"], data["task"]) == ("forecast", "forecast")
    assert data["forecast"] == {
        "time": "hour", "series": "site", "horizon": 24, "context": 48, "season": 1, "covariates": "auto",
    }  # fmt: skip
    alone.assign(wind=np.random.default_rng(0).normal(size=400)).to_csv("beside.csv", index=False)
    assert written("beside.csv", "y")["data"]["kind"] == "tabular"
    assert "with --kind forecast" in Path("experiment.yaml").read_text()
    console = Console(file=StringIO(), width=200)
    init_experiment("beside.csv", "y", Path("experiment.yaml"), force=True).text(console)
    assert "add --kind forecast to predict it from its past" in console.file.getvalue()  # type: ignore[attr-defined]
    init_experiment("beside.csv", "y", Path("experiment.yaml"), force=True, kind="forecast")
    assert load_experiment(Path("experiment.yaml")).data.kind == "forecast"
    with pytest.raises(InputError, match="--kind must be one of tabular, image"):
        init_experiment("beside.csv", "y", Path("experiment.yaml"), force=True, kind="series")


def test_names_that_yaml_could_misread_survive(folder: Path) -> None:
    table = pd.DataFrame({"no": range(60), "a: b # c\nd": [i * 7 % 11 for i in range(60)], "2020": [0, 1] * 30})
    table.to_csv("odd, names.csv", index=False)
    file = written("odd, names.csv", "2020")
    assert (file["name"], file["data"]["source"]) == ("odd-names", "odd, names.csv")
    assert load_experiment(Path("experiment.yaml")).data.target == "2020"


def test_a_file_is_only_replaced_by_force(folder: Path) -> None:
    make_table(folder)
    Path("experiment.yaml").write_text("mine")
    with pytest.raises(InputError, match="exists already; name another with -o, or use --force"):
        init_experiment("train.csv", "buys", Path("experiment.yaml"), force=False)
    assert Path("experiment.yaml").read_text() == "mine"
    with umask(0o022):
        init_experiment("train.csv", "buys", Path("experiment.yaml"), force=True)
    assert Path("experiment.yaml").stat().st_mode & 0o777 == 0o644


@pytest.mark.parametrize(
    ("data", "target", "message"),
    [
        ("train.csv", None, "needs `data.target`"),
        ("train.csv", "bys", "did you mean 'buys'"),
        ("nix.csv", "y", "no such"),
    ],
)  # fmt: skip
def test_nothing_is_written_about_data_that_is_wrong(folder: Path, data: str, target: str | None, message: str) -> None:
    make_table(folder)
    with pytest.raises(DataError, match=message):
        init_experiment(data, target, Path("experiment.yaml"), force=False)
    assert not Path("experiment.yaml").exists()


def test_the_command_says_what_it_saw_and_errs_in_one_line(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    make_table(folder)
    user = at_a_prompt(folder, capsys, monkeypatch)
    code, out, _ = user.runs("init", "train.csv", "--target", "buys", "-o", "small.yaml")
    assert code == 0
    assert "tabular data, binary, 375 rows" in out
    code, _, err = user.runs("init", "train.csv", "--target", "buys", "-o", "small.yaml")
    assert code == 2
    assert is_one_line(err)


@pytest.mark.parametrize(
    ("files", "data", "found"),
    [
        (["a/train.csv", "a/test.csv", "a/README.md"], "a", ("a/train.csv", "a/test.csv")),
        (["a/train/x/0.png", "a/test/x/0.png"], "a", ("a/train", "a/test")),
        (["a/x/0.png", "a/y/0.png"], "a", ("a", None)),
        (["a/one.csv"], "a", ("a/one.csv", None)),
        (["m/train-images-idx3-ubyte.gz", "m/t10k-images-idx3-ubyte.gz"], "m/train-images-idx3-ubyte.gz",
         ("m/train-images-idx3-ubyte.gz", "m/t10k-images-idx3-ubyte.gz")),
        ([], "sklearn:digits", ("sklearn:digits", None)),
    ],
)  # fmt: skip
def test_a_folder_stands_for_the_parts_in_it(
    folder: Path, files: list[str], data: str, found: tuple[str, str | None]
) -> None:
    for file in files:
        Path(file).parent.mkdir(parents=True, exist_ok=True)
        Path(file).touch()
    assert find_parts(data) == found


@pytest.mark.parametrize(
    ("source", "name"),
    [("a/churn.csv.gz", "churn"), ("adult/train.csv", "adult"), ("x/JapaneseVowels_TRAIN.ts", "JapaneseVowels"),
     ("m/mnist/train-images-idx3-ubyte.gz", "mnist"), ("sklearn:digits", "digits"), ("ü.csv", "experiment")],
)  # fmt: skip
def test_an_experiment_is_named_after_its_data(source: str, name: str) -> None:
    assert name_of(source) == name
