"""MLflow stopped in the middle, or losing what it is told: training goes on, and in the end it has everything once."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from mlflow import MlflowClient

from pipeline.records import RECORD
from tests.chaos.server import Fault, LossyProxy, Server
from tests.flows.project import Project
from tests.patience import PATIENCE_S

TRIALS = 8
FILE = """
name: {name}
data: {{source: "sklearn:digits"}}
search:
  families: [mlp]
  sampler: random
  pruner: median
  space: {{train.batch_size: 16, mlp.width: 64}}
  budget: {{trials: {trials}}}
train: {{max_epochs: {epochs}, patience: {epochs}}}
resources: {{cohort: 1}}
tracking: {{uri: {uri}}}
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("server"))
    server.start()
    yield server
    server.stop()


def project(folder: Path, name: str, uri: str, epochs: int = 10, trials: int = TRIALS) -> Project:
    made = Project(folder, name, tracked=uri)
    made.file.write_text(FILE.format(name=name, uri=uri, epochs=epochs, trials=trials))
    return made


def n_records(project: Project) -> int:
    return sum(1 for _ in project.state.glob(f"searches/*/trials/*/{RECORD}"))


def wait_for_records(project: Project, process: subprocess.Popen[str], n: int) -> float:
    """Seconds until there are so many."""
    began = time.monotonic()
    while n_records(project) < n:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < began + PATIENCE_S
        time.sleep(0.02)
    return time.monotonic() - began


def everything_is_there_once(project: Project, n_trials: int = TRIALS) -> None:
    project.totals_agree(n_trials)
    assert len(project.runs("search")) == 1
    finalists = [run.data.tags["automl.trial"] for run in project.runs("finalist")]
    assert len(finalists) == len(set(finalists)) > 0
    client = MlflowClient(tracking_uri=project.uri, registry_uri=project.uri)
    assert len(client.search_model_versions(f"name = '{project.name}'")) == 1
    assert project.champion() == 1
    for run in project.runs("trial"):
        record = next(r for r in project.records() if r.number == int(run.data.tags["automl.trial"]))
        history = client.get_metric_history(run.info.run_id, "val/loss")
        assert [m.step for m in history] == [m.epoch for m in record.curve], "each epoch once"


@pytest.mark.parametrize(
    "seconds", [pytest.param(0, marks=pytest.mark.chaos), 5, pytest.param(60, marks=pytest.mark.chaos)]
)
@pytest.mark.slow
def test_a_server_that_is_away_for_a_while_costs_the_search_nothing(
    tmp_path: Path, server: Server, seconds: float
) -> None:
    made = project(tmp_path, f"away-{seconds}", server.uri)
    process = made.start()
    wait_for_records(made, process, 2)
    server.stop()
    away = time.monotonic()
    # Training goes on meanwhile: with nobody to tell, all trials end. Each slot waits for a run once, for 5 s.
    waited = wait_for_records(made, process, TRIALS) if seconds >= 5 else 0.0
    assert waited < 45, "training does not wait for the store"
    time.sleep(max(0.0, seconds - (time.monotonic() - away)))
    server.start()
    out, err = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 0, out + err
    everything_is_there_once(made)


FAULTS: dict[str, dict[str, Fault]] = {
    "create-drop": {"runs/create": "drop", "experiments/create": "drop"},
    "registry-drop": {"registered-models/(create|alias)|model-versions/create": "drop"},
    "write-drop": {"runs/(log-batch|update|log-inputs|outputs)|mlflow-artifacts": "drop"},
    "all-500": {"POST|PUT": "500"},
    "all-drop": {"POST|PUT": "drop"},
    "delay": {"runs/": "delay"},
}


@pytest.mark.parametrize(
    "name", ["all-drop", *(pytest.param(n, marks=pytest.mark.chaos) for n in FAULTS if n != "all-drop")]
)
@pytest.mark.slow
def test_lost_answers_and_errors_double_nothing(tmp_path: Path, server: Server, name: str) -> None:
    with LossyProxy(server, FAULTS[name]) as proxy:
        made = project(tmp_path, name, proxy.uri, epochs=3, trials=4)
        done = made.run("--json")
        assert all(proxy.suffered.values()), proxy.suffered
    assert done.json["promotion"]["promoted"] is True
    everything_is_there_once(project(tmp_path, name, server.uri), 4)
