"""What a user gets wrong costs one line and leaves nothing behind; help costs no imports."""

from __future__ import annotations

import json
import re
import resource
import subprocess
import sys
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import pytest

from flows import cli
from tests.flows.project import COMMAND, REPOSITORY, Project, make_table
from tests.patience import PATIENCE_S

GOOD = "name: small\ndata: {source: train.csv, target: buys}\n"
FILES = {
    "no target column": ("name: small\ndata: {source: train.csv, target: bought}\n", "bought"),
    "no data": ("name: small\ndata: {source: trian.csv, target: buys}\n", "did you mean train.csv?"),
    "unknown key": (GOOD + "serach: {}\n", "did you mean `search`?"),
    "unknown family": (GOOD + "search: {families: [tree]}\n", "'tree'; use mlp"),
    "family that does not fit": (GOOD + "search: {families: [lstm]}\n", "'lstm'; use mlp"),
    "metric of another task": (GOOD + "search: {metric: rmse}\n", "rmse"),
    "unknown parameter": (GOOD + "search: {space: {mlp.n_layer: 3}}\n", "did you mean mlp.n_layers?"),
    "value out of range": (GOOD + "search: {space: {optimizer.lr: 1000}}\n", "optimizer.lr"),
    "unknown device": (GOOD + "resources: {devices: [tpu]}\n", "'tpu'"),
    "too many slots": (GOOD + "resources: {devices: cpu, slots_per_device: 200}\n", "cores"),
    "unknown store": (GOOD + "tracking: {uri: 'ftp://example.org'}\n", "'ftp'"),
    "name with a path": ("name: ../up\ndata: {source: train.csv, target: buys}\n", "a name must match"),
    "gate on no column": (
        GOOD + "promotion: {gates: [{slice: twon, metric: accuracy, min: 0.5}]}\n",
        "'twon'; did you mean town?",
    ),
    "gate on the slices of a cost": (
        GOOD + "promotion: {gates: [{slice: town, metric: size_mb, max: 1}]}\n",
        "must have one of accuracy",
    ),
    "conformal sets in folds": (GOOD + "evaluate: {conformal: 0.9}\n", "in 5 folds every row is"),
    "a share that is none": (GOOD + "evaluate: {conformal: 90}\n", "evaluate.conformal"),
    "gate on no metric": (GOOD + "promotion: {gates: [{metric: rmse, max: 1}]}\n", "promotion.gates"),
}
ARGUMENTS = {
    "no file": (["run", "smal.yaml"], "did you mean small.yaml?"),
    "a folder": (["run", "."], "regular file"),
    "zero trials": (["run", "small.yaml", "--trials", "0"], "search.budget.trials"),
    "a time without a number": (["run", "small.yaml", "--timeout", "soon"], "duration"),
    "an unknown override": (["run", "small.yaml", "--set", "search.sede=1"], "did you mean `seed`?"),
    "an experiment without searches": (["leaderboard", "small"], "automl run"),
    "a trial of no search": (["trial", "small", "0"], "automl run"),
    "a model before the first run": (["predict", "small", "train.csv", "-o", "out.csv"], "no registered models"),
    "a wrong output": (["predict", "small", "train.csv", "-o", "out.xlsx"], ".csv or .parquet"),
    "a model to show before the first run": (["models", "small"], "no registered models"),
    "a script before the first run": (["export", "small", "--script", "out.py"], "no registered models"),
    "a script of a trial of no search": (["export", "small", "--script", "out.py", "--trial", "0"], "automl run"),
    "a script that is none": (["export", "small", "--script", "out.txt"], "must be a .py file"),
    "a script where nothing can be": (["export", "small", "--script", "train.csv/out.py"], "cannot be written"),
    "a variant before the first run": (
        ["export", "s", "--check", "i", "-o", "m.onnx", "--int8"],
        "no registered models",
    ),
    "a variant that is none": (["export", "s", "--check", "i", "-o", "m.pt", "--int8"], "must be an .onnx file"),
    "a variant of a script": (["export", "small", "--script", "out.py", "--int8"], "export writes one thing"),
    "an export of nothing": (["export", "small"], "--script FILE.py"),
    "an export of two things": (["export", "small", "--script", "out.py", "-o", "out.onnx"], "export writes one thing"),
    "a rollback before the first run": (["rollback", "small"], "no registered models"),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("user")
    make_table(folder)
    (folder / "small.yaml").write_text(GOOD)
    (folder / "home").mkdir()
    return folder


@dataclass(frozen=True, slots=True)
class User:
    """Somebody at a prompt in `folder`. Commands run in this process, which spares each the imports."""

    folder: Path
    capsys: pytest.CaptureFixture[str]
    monkeypatch: pytest.MonkeyPatch

    def gets_one_line(self, *arguments: str) -> str:
        """The error that a command ends with: one line, exit code 2, and the folder as it was."""
        before = sorted(self.folder.rglob("*"))
        self.monkeypatch.setattr(sys, "argv", ["automl", *arguments])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        out, err = self.capsys.readouterr()
        assert ended.value.code == 2
        assert is_one_line(err), err
        assert out == ""
        assert sorted(self.folder.rglob("*")) == before
        return err


@pytest.fixture
def user(folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> User:
    monkeypatch.chdir(folder)
    monkeypatch.setenv("PREFECT_HOME", str(folder / "mlruns" / "prefect"))
    monkeypatch.delenv("AUTOML_STATE", raising=False)
    return User(folder, capsys, monkeypatch)


def is_one_line(text: str) -> bool:
    return text.startswith("error: ") and text.count("\n") == 1 and text.endswith("\n") and "Traceback" not in text


@pytest.mark.parametrize("verb", ["check", "run"])
@pytest.mark.parametrize(("text", "expected"), FILES.values(), ids=FILES.keys())
def test_a_wrong_file_is_one_line_and_creates_nothing(user: User, text: str, expected: str, verb: str) -> None:
    (user.folder / "wrong.yaml").write_text(text)
    assert expected in user.gets_one_line(verb, "wrong.yaml")


@pytest.mark.parametrize(("arguments", "expected"), ARGUMENTS.values(), ids=ARGUMENTS.keys())
def test_a_wrong_argument_is_one_line_and_creates_nothing(user: User, arguments: list[str], expected: str) -> None:
    assert expected in user.gets_one_line(*arguments)


def test_in_a_process_of_its_own_and_under_prefect_too(folder: Path) -> None:
    (folder / "wrong.yaml").write_text(FILES["no target column"][0])
    done = Project(folder).automl("run", "wrong.yaml", code=2)
    assert is_one_line(done.err), done.err
    assert not (folder / "mlruns").exists()


def test_help_names_every_verb_and_takes_under_half_a_second(folder: Path) -> None:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    shown = Project(folder).automl("--help").out
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    verbs = {command.name or command.callback.__name__ for command in cli.app.registered_commands if command.callback}
    assert verbs > {"run", "schedule", "serve", "up", "stop", "sync", "gc"}
    for verb in verbs:
        assert re.search(rf"^  {verb} ", shown, re.MULTILINE), verb
    # CPU seconds: other processes of a busy machine do not count. It takes about 0.15.
    assert (after.ru_utime + after.ru_stime) - (before.ru_utime + before.ru_stime) < 0.5


def test_the_version_comes_with_those_of_the_libraries(folder: Path) -> None:
    shown = Project(folder).automl("--version").out
    assert shown.startswith(f"automl-pipeline {version('automl-pipeline')}, torch {version('torch')}, optuna ")
    assert len(shown.splitlines()) == 1


@pytest.mark.parametrize("verb", ["run", "models", "predict", "schedule"])
def test_help_imports_no_large_library(folder: Path, verb: str) -> None:
    code = (
        "import json, sys; sys.argv = ['automl', *sys.argv[1:]]\n"
        "from flows import cli\n"
        "try: cli.main()\n"
        "except SystemExit: pass\n"
        "print(json.dumps(sorted({name.split('.')[0] for name in sys.modules})), file=sys.stderr)"
    )
    process = subprocess.run(
        [sys.executable, "-c", code, verb, "--help"], cwd=folder, env=Project(folder).environment(),
        capture_output=True, text=True, timeout=PATIENCE_S, check=True,
    )  # fmt: skip
    loaded = set(json.loads(process.stderr.splitlines()[-1]))
    assert "typer" in loaded
    assert not loaded & {"torch", "mlflow", "prefect", "optuna", "pandas", "sklearn", "numpy"}


def test_there_are_no_models_in_an_empty_folder_and_asking_makes_none(tmp_path: Path) -> None:
    assert Project(tmp_path).here("models", "--json").json == {}
    assert not (tmp_path / "mlruns").exists()


def test_doctor_says_of_an_empty_folder_that_all_is_well(tmp_path: Path) -> None:
    shown = Project(tmp_path).here("doctor", "--json").json
    assert shown["problems"] == 0
    assert {"torch", "optuna", "mlflow", "prefect", "devices", "disk"} <= {f["subject"] for f in shown["findings"]}
    assert not (tmp_path / "mlruns").exists()


def test_the_command_under_test_is_this_checkouts(folder: Path) -> None:
    code = "import flows; print(flows.__file__)"
    process = subprocess.run(
        [COMMAND[0], "-c", code], cwd=folder, env=Project(folder).environment(), capture_output=True, text=True,
        check=True, timeout=PATIENCE_S,
    )  # fmt: skip
    assert Path(process.stdout.strip()).is_relative_to(REPOSITORY)
