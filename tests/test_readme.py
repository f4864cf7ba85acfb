"""The README is true: its commands run, its files validate, its make targets exist."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.config import load_experiment

REPOSITORY = Path(__file__).parents[1]
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```", (REPOSITORY / "README.md").read_text(), re.MULTILINE | re.DOTALL)


def blocks(language: str) -> list[str]:
    return [body for name, body in BLOCKS if name == language]


def test_there_is_something_to_test() -> None:
    assert all(blocks(language) for language in ("make", "yaml", "bash", "python"))


@pytest.mark.slow
def test_the_commands_and_the_python_run_one_after_the_other(tmp_path: Path) -> None:
    shutil.copytree(REPOSITORY / "examples", tmp_path / "examples")
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "PREFECT_HOME": str(tmp_path / "prefect")}
    for script in blocks("bash"):
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", script], cwd=tmp_path, env=environment, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr + done.stdout
    for script in blocks("python"):
        done = subprocess.run(
            [sys.executable, "-c", script], cwd=tmp_path, env=environment, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
    assert len((tmp_path / "predictions.csv").read_text().splitlines()) == 1 + 1797


@pytest.mark.parametrize("body", blocks("yaml"))
def test_every_experiment_file_validates(tmp_path: Path, body: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AUTOML_DATA", "/data")
    (tmp_path / "experiment.yaml").write_text(body)
    load_experiment(tmp_path / "experiment.yaml")


@pytest.mark.parametrize("path", sorted((REPOSITORY / "examples").glob("*.yaml")), ids=lambda path: path.name)
def test_every_example_validates(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AUTOML_DATA", "/data")
    load_experiment(path)


def test_every_make_target_that_it_names_exists() -> None:
    makefile = (REPOSITORY / "Makefile").read_text()
    for line in "".join(blocks("make")).splitlines():
        assert f"\n{line.removeprefix('make ')}:" in makefile


def test_every_file_that_it_names_exists() -> None:
    text = (REPOSITORY / "README.md").read_text()
    named = re.findall(r"`((?:pipeline|tests|flows|search_spaces|examples|benchmarks|docs)/[\w./]*\w)/?`", text)
    assert named
    for path in named:
        assert (REPOSITORY / path).exists(), path
