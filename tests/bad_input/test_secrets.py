"""A secret in the environment, in addresses and in a trial's error: a search runs to its end, and no byte it leaves
behind or prints has it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.config import load_experiment
from pipeline.errors import StoreError
from pipeline.redaction import MASK, redacted
from pipeline.search.directory import differences
from tests.bad_input.cases import CANARY
from tests.flows.project import COMMAND, Done, Project, make_table
from tests.patience import PATIENCE_S

FOLDER = f"{CANARY}-folder"
ENVIRONMENT = {
    "API_TOKEN": CANARY,
    "DATABASE_URL": f"postgresql://user:{CANARY}-url@example.org/db",
    "SECRET_FOLDER": FOLDER,
}
EXPERIMENT = """
name: small
data: {source: "${SECRET_FOLDER}/train.csv", target: buys, split: {by: stratified}}
search: {budget: {trials: 5}, pruner: none}
train: {max_epochs: 2, patience: 2}
resources: {cohort: 1, devices: cpu, slots_per_device: 1}
"""
BROKEN = """
import os, sys
if "pipeline.training.fork_server" in sys.orig_argv:
    from pipeline.training.learner import SoloLearner
    train, seen = SoloLearner.train_epoch, []

    def train_epoch(self):
        seen.append(self)
        if len(seen) == 1:
            try:
                raise OSError("cannot log in with " + os.environ["API_TOKEN"])
            except OSError as error:
                raise RuntimeError("no answer from " + os.environ["DATABASE_URL"]) from error
        return train(self)

    SoloLearner.train_epoch = train_epoch
"""
"""A ``sitecustomize`` module that makes the first epoch of every worker fail, with the secrets in its error."""


def secretive(folder: Path) -> Project:
    """A project whose data lies in a folder with a secret name."""
    (folder / FOLDER).mkdir()
    make_table(folder / FOLDER)
    (folder / "site").mkdir()
    (folder / "site" / "sitecustomize.py").write_text(BROKEN)
    project = Project(folder)
    project.file.write_text(EXPERIMENT)
    return project


def run(project: Project, *arguments: str) -> Done:
    environment = project.environment() | ENVIRONMENT
    environment["PYTHONPATH"] = f"{project.folder / 'site'}{os.pathsep}{environment['PYTHONPATH']}"
    process = subprocess.run(
        [*COMMAND, *arguments], cwd=project.folder, env=environment, capture_output=True, text=True,
        timeout=PATIENCE_S, check=False,
    )  # fmt: skip
    return Done(process.returncode, process.stdout, process.stderr)


def files_with(secret: str, folder: Path) -> list[str]:
    """Every file under a folder that has the text in its name or its bytes."""
    found = [path for path in folder.rglob("*") if secret in path.name]
    found += [path for path in folder.rglob("*") if path.is_file() and secret.encode() in path.read_bytes()]
    return [str(path.relative_to(folder)) for path in found]


def assert_secret(project: Project, *outputs: Done) -> None:
    assert files_with(CANARY, project.state) == []
    for output in outputs:
        assert CANARY not in output.out + output.err


def test_a_search_with_a_failing_trial_leaves_no_secret_anywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = secretive(tmp_path)
    done = run(project, "run", "small.yaml", "--no-prefect")
    assert done.code == 0, done.err
    failed = [record for record in project.records() if record.state == "FAIL"]
    assert len(failed) == 1
    assert failed[0].error == f"RuntimeError: no answer from postgresql://{MASK}@example.org/db"
    assert failed[0].traceback is not None
    assert f"cannot log in with {MASK}" in failed[0].traceback
    project.totals_agree(5)
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    shown = [project.here("trial", "small", str(failed[0].number)), project.here("leaderboard", "small", "--csv")]
    assert MASK in shown[0].out
    assert_secret(project, done, *shown)
    assert differences(project.searches()[0].config_yaml, load_experiment(project.file).to_yaml()) == []
    for path in project.state.rglob("*"):
        assert path.stat().st_mode & 0o077 == 0, f"others can read {path}"


@pytest.mark.slow
def test_a_flow_run_that_fails_leaves_no_secret_in_prefects_database(tmp_path: Path) -> None:
    """A trial fails with a secret in its error, and none may."""
    project = secretive(tmp_path)
    project.file.write_text(EXPERIMENT.replace("trials: 5", "trials: 5, failures: 1"))
    done = run(project, "run", "small.yaml")
    assert done.code == 1
    assert f"RuntimeError: no answer from postgresql://{MASK}@example.org/db" in done.err
    assert (project.state / "prefect" / "prefect.db").exists()
    assert_secret(project, done)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (f"token {CANARY}!", f"token {MASK}!"),
        ("sqlite:///a.db", "sqlite:///a.db"),
        ("http://u:p@h/x and ftp://me@h", f"http://{MASK}@h/x and ftp://{MASK}@h"),
        ("password=hunter2 user=me", f"password={MASK} user=me"),
        ('{"api_key": "abc def", "x": 1}', f'{{"api_key": {MASK}, "x": 1}}'),
        ("https://h/?token=abc&x=1", f"https://h/?token={MASK}&x=1"),
        ("Authorization: Bearer abcdefghij", f"Authorization: Bearer {MASK}"),
        ("canary%2D4f1c9e%2Fb", f"{MASK}"),
        ("mlp.n_layers: 2, mail me@example.org", "mlp.n_layers: 2, mail me@example.org"),
    ],
)
def test_what_is_masked(monkeypatch: pytest.MonkeyPatch, text: str, expected: str) -> None:
    monkeypatch.setenv("API_TOKEN", CANARY)
    monkeypatch.setenv("SERVICE_PASSWORD", "canary%2D4f1c9e%2Fb")
    monkeypatch.setenv("SHORT_TOKEN", "mlp")
    assert redacted(text) == expected
    assert redacted(redacted(text)) == redacted(text)


def test_errors_and_logs_are_masked_as_they_are_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("API_TOKEN", CANARY)
    assert str(StoreError(f"no {CANARY}")) == f"no {MASK}"
    code = (
        "import logging; from pipeline.redaction import redact_logs, redact_tracebacks\n"
        "redact_logs(); redact_logs(); redact_tracebacks(); logging.basicConfig()\n"
        f"try: raise ValueError('{CANARY}')\n"
        f"except ValueError: logging.exception('with %s', '{CANARY}')\n"
        "logging.warning('%s')\n"
        f"raise KeyError('{CANARY}')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=PATIENCE_S, check=False)
    assert done.returncode == 1
    assert CANARY not in done.stderr
    assert done.stderr.count(MASK) == 3
