"""A user's folder: the command line in processes of their own, and what a search left in its stores."""

from __future__ import annotations

import contextlib
import io
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest import mock

import numpy as np
import optuna
import pandas as pd
import pytest
from mlflow import MlflowClient
from mlflow.entities import Run
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

from flows import cli
from pipeline.records import TrialRecord, read_records
from pipeline.registry.ledger import Move, history
from pipeline.search.directory import SearchState, states_of
from tests.patience import PATIENCE_S

REPOSITORY = Path(__file__).parents[2]
COMMAND = [sys.executable, "-m", "flows.cli"]


@dataclass(frozen=True, slots=True)
class Done:
    """A command that ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


@dataclass(frozen=True, slots=True)
class Project:
    """A folder with one experiment, as a user has it."""

    folder: Path
    name: str = "small"
    tracked: str = ""
    """Another tracking store than the folder's own."""

    @property
    def file(self) -> Path:
        return self.folder / f"{self.name}.yaml"

    @property
    def state(self) -> Path:
        return self.folder / "mlruns"

    @property
    def uri(self) -> str:
        return self.tracked or f"sqlite:///{self.state}/mlflow.db"

    def automl(self, *arguments: str, code: int = 0) -> Done:
        """Run a command to its end; its exit code must be `code`."""
        process = subprocess.run(
            [*COMMAND, *arguments], cwd=self.folder, env=self.environment(), capture_output=True, text=True,
            timeout=PATIENCE_S, check=False,
        )  # fmt: skip
        done = Done(process.returncode, process.stdout, process.stderr)
        assert done.code == code, f"exit code {done.code}\n{done.out}\n{done.err}"
        return done

    def here(self, *arguments: str, code: int = 0) -> Done:
        """As `automl`, for a command that only reads: in this process, which spares the imports."""
        out, err, environment = io.StringIO(), io.StringIO(), {"PREFECT_HOME": str(self.state / "prefect")}
        with (
            contextlib.chdir(self.folder),
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(err),
            mock.patch.dict(os.environ, environment),
            mock.patch.object(sys, "argv", ["automl", *arguments]),
            pytest.raises(SystemExit) as ended,
        ):
            cli.main()
        assert ended.value.code == code, out.getvalue() + err.getvalue()
        return Done(code, out.getvalue(), err.getvalue())

    def run(self, *arguments: str, code: int = 0) -> Done:
        """``automl run`` without Prefect."""
        return self.automl("run", self.file.name, "--no-prefect", *arguments, code=code)

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """``automl run`` without Prefect, and do not wait."""
        return subprocess.Popen(
            [*COMMAND, "run", self.file.name, "--no-prefect", *arguments],
            cwd=self.folder, env=self.environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip

    def environment(self) -> dict[str, str]:
        """Nothing of the test's own settings, and a home that must stay empty."""
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("PREFECT_", "MLFLOW_", "AUTOML_"))}
        home = self.folder / "home"
        home.mkdir(exist_ok=True)
        return kept | {"PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1", "HOME": str(home)}

    def python(self, code: str, *arguments: str) -> Any:
        """The JSON that a fresh Python process prints."""
        process = subprocess.run(
            [sys.executable, "-c", code, *arguments], cwd=self.folder, env=self.environment(), capture_output=True,
            text=True, timeout=PATIENCE_S, check=False,
        )  # fmt: skip
        assert process.returncode == 0, process.stderr
        return json.loads(process.stdout)

    def searches(self) -> list[SearchState]:
        return states_of(self.state, self.name)

    def directory(self) -> Path:
        """Of the latest search."""
        return self.state / "searches" / self.searches()[-1].id

    def records(self) -> list[TrialRecord]:
        """Of the latest search, by number."""
        return list(read_records(self.directory()))

    def optuna_states(self) -> dict[int, str]:
        """Trial number to state, through Optuna's own storage."""
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        storage = JournalStorage(JournalFileBackend(str(self.directory() / "optuna.journal")))
        study = optuna.load_study(study_name=self.searches()[-1].id, storage=storage)
        return {trial.number: trial.state.name for trial in study.trials}

    def runs(self, role: str) -> list[Run]:
        """MLflow runs of the latest search with this role."""
        client = MlflowClient(tracking_uri=self.uri)
        experiments = [e.experiment_id for e in client.search_experiments()]
        query = f"tags.`automl.role` = '{role}' and tags.`automl.search` = '{self.searches()[-1].id}'"
        return list(client.search_runs(experiments, query, max_results=1000))

    def mlflow_states(self) -> dict[int, str]:
        """Trial number to state, as MLflow has them; one entry a child run."""
        states: dict[int, str] = {}
        for run in self.runs("trial"):
            number = int(run.data.tags["automl.trial"])
            assert number not in states, f"two runs claim trial {number}"
            states[number] = run.data.tags["automl.state"]
        return states

    def unfinished_runs(self) -> int:
        """Runs of any kind that MLflow shows as RUNNING."""
        return sum(run.info.status == "RUNNING" for role in ("search", "trial", "finalist") for run in self.runs(role))

    def readings(self) -> list[dict[str, Any]]:
        """The ledger of sealed-test readings."""
        path = self.state / "sealed-readings.jsonl"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def moves(self) -> list[Move]:
        """The ledger of the champion alias."""
        return history(self.state / "registry" / "ledger.jsonl", self.name)

    def champion(self) -> int | None:
        """Version behind the alias, as MLflow has it."""
        aliases = MlflowClient(tracking_uri=self.uri, registry_uri=self.uri).get_registered_model(self.name).aliases
        return int(aliases["champion"]) if "champion" in aliases else None

    def totals_agree(self, n_trials: int) -> None:
        """Records, Optuna and MLflow have the same trials in the same final states, and nothing runs."""
        states = {record.number: record.state for record in self.records()}
        assert sorted(states) == list(range(n_trials))
        assert self.optuna_states() == states
        assert self.mlflow_states() == states
        assert self.unfinished_runs() == 0


def make_table(folder: Path, n: int = 500, seed: int = 0) -> None:
    """``train.csv`` and ``test.csv``: who buys, from age, income and town, with holes in all of them."""
    generator = np.random.default_rng(seed)
    age, income = generator.normal(45, 12, n).round(1), generator.lognormal(10, 0.5, n).round()
    town = generator.choice(["Berlin", "Lyon", "Porto", "São Paulo"], n)
    score = (age - 45) / 12 + np.log(income) - 10 + (town == "Lyon") + generator.normal(0, 0.4, n)
    table = pd.DataFrame({"age": age, "income": income, "town": town, "buys": np.where(score > 0.3, "yes", "no")})
    for column in ("age", "income", "town"):
        table.loc[generator.random(n) < 0.05, column] = None
    table[: n * 3 // 4].to_csv(folder / "train.csv", index=False)
    table[n * 3 // 4 :].to_csv(folder / "test.csv", index=False)


def append_rows(folder: Path, n: int, seed: int) -> None:
    """More rows at the end of ``train.csv``; the file is whole at every moment."""
    with TemporaryDirectory(dir=folder) as scratch:
        make_table(Path(scratch), n * 4 // 3, seed)
        grown = pd.concat([pd.read_csv(path) for path in (folder / "train.csv", Path(scratch) / "train.csv")])
        grown.to_csv(Path(scratch) / "grown.csv", index=False)
        os.replace(Path(scratch) / "grown.csv", folder / "train.csv")


TABULAR = """
name: small
data: {source: train.csv, test: test.csv, target: buys, split: {by: stratified}}
search: {budget: {trials: 8}}
train: {max_epochs: 4, patience: 4}
"""


def tabular_project(folder: Path) -> Project:
    """A binary problem of 500 rows that an MLP learns in a second."""
    project = Project(folder)
    make_table(folder)
    project.file.write_text(TABULAR)
    return project
