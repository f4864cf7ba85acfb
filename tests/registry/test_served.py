"""The champion behind ``mlflow models serve`` answers raw rows with what ``automl predict`` writes for them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from pipeline.data.spec import Kind, Label, Task
from pipeline.registry.mlflow import MLflowRegistry
from pipeline.tracking.mlflow import MLflowTracker
from tests.chaos.server import free_port
from tests.flows.project import Project
from tests.packaging.cases import make_case
from tests.patience import PATIENCE_S
from tests.tracking.records import record, search_info
from tests.tracking.stores import copy_database

JSON = {"Content-Type": "application/json"}
CASES: dict[Kind, tuple[str, Task, tuple[Label, ...]]] = {
    "tabular": ("mlp", "binary", ("no", "yes")),
    "image": ("cnn", "multiclass", (0, 1, 2)),
    "sequence": ("lstm", "regression", ()),
    "forecast": ("lstm", "forecast", ()),
    "text": ("mlp", "multiclass", ("bad", "good", "so so")),
}
ALL = list(CASES)


def serving(kind: Kind, folder: Path, database: Path) -> tuple[Project, Path, list[dict[str, Any]]]:
    """A project whose champion has this kind of data, a file of raw rows, and the same rows as JSON records."""
    project = Project(folder, "served")
    family, task, labels = CASES[kind]
    case = make_case(folder / "case", kind, family, task, labels)
    copy_database(database, project.state)
    tracker = MLflowTracker(project.uri, project.state / "artifacts")
    tracker.start_search(search_info())
    run = tracker.finish_trial(record(0), case.write(folder / "package"))
    registry = MLflowRegistry(project.uri, project.state / "registry")
    registry.move_champion("served", registry.register("served", run, "key", {}).version, None)
    if isinstance(case.features, pd.DataFrame) and kind == "forecast":
        case.features.to_csv(folder / "rows.csv", index=False)
        return project, folder / "rows.csv", json.loads(case.features.to_json(orient="records"))
    if kind == "text":
        assert isinstance(case.features, pd.DataFrame)
        case.features.to_csv(folder / "rows.csv", index=False)
        return project, folder / "rows.csv", case.features.to_dict("records")
    if isinstance(case.features, pd.DataFrame):
        table = case.features.astype({"age": "Float64"})
        table.loc[0, "age"], table.loc[1, "town"] = None, None  # rows as they come
        table.to_csv(folder / "rows.csv", index=False)
        return project, folder / "rows.csv", json.loads(table.to_json(orient="records"))
    if isinstance(case.features, np.ndarray):
        np.savez(folder / "rows.npz", images=case.features[:, 0])
        return project, folder / "rows.npz", [{"image": image.tolist()} for image in case.features[:, 0]]
    head = "@problemName rows\n@timeStamps false\n@equalLength false\n@classLabel false\n@data\n"
    lines = [":".join(",".join(map(repr, map(float, d))) for d in series.T) for series in case.features]
    (folder / "rows.ts").write_text(head + "\n".join(lines) + "\n")
    return project, folder / "rows.ts", [{"sequence": series.tolist()} for series in case.features]


@contextmanager
def models_serve(project: Project) -> Iterator[str]:
    """The command of the README, until it answers."""
    port = free_port()
    command = ["mlflow", "models", "serve", "-m", "models:/served@champion", "--env-manager", "local"]
    environment = project.environment() | {"MLFLOW_TRACKING_URI": project.uri}
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environment['PATH']}"
    with (project.folder / "serve.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", *command, "--port", str(port)], cwd=project.folder, env=environment, stdout=log,
            stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
    try:
        until = time.monotonic() + PATIENCE_S
        while True:
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/ping", timeout=2).close()
                break
            except OSError:
                assert process.poll() is None, (project.folder / "serve.log").read_text()[-3000:]
                assert time.monotonic() < until, f"it does not answer within {PATIENCE_S:g} s"
                time.sleep(0.2)
        yield f"http://127.0.0.1:{port}/invocations"
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def same(answer: bytes, predicted: Path) -> None:
    """What was answered is what the file says."""
    got = pd.DataFrame(json.loads(answer)["predictions"])
    pd.testing.assert_frame_equal(got, pd.read_csv(predicted), rtol=1e-5, check_dtype=False)


@pytest.mark.parametrize(
    "kind", ["tabular", *(pytest.param(kind, marks=pytest.mark.chaos) for kind in ("image", "sequence"))]
)
def test_a_served_champion_answers_what_predict_writes(kind: Kind, tmp_path: Path, database: Path) -> None:
    project, source, rows = serving(kind, tmp_path, database)
    project.here("predict", "served", source.name, "-o", "out.csv")
    with models_serve(project) as url:
        body = json.dumps({"dataframe_records": rows}).encode()
        request = urllib.request.Request(url, body, JSON)
        with urllib.request.urlopen(request, timeout=PATIENCE_S) as answer:
            same(answer.read(), tmp_path / "out.csv")
        wrong = urllib.request.Request(url, b'{"dataframe_records": [{"nothing": 1}]}', JSON)
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(wrong, timeout=PATIENCE_S)
        refused.value.close()  # it is the answer, with its socket
    assert refused.value.code == 400


@pytest.mark.parametrize("kind", ALL)
def test_the_scoring_server_reads_every_kind_of_raw_rows(kind: Kind, tmp_path: Path, database: Path) -> None:
    project, source, rows = serving(kind, tmp_path, database)
    project.here("predict", "served", source.name, "-o", "out.csv")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # MLflow's own, while it is imported
        import mlflow
        from mlflow.pyfunc import scoring_server
    mlflow.set_tracking_uri(project.uri)
    model = mlflow.pyfunc.load_model("models:/served@champion")
    body = json.dumps({"dataframe_records": rows})
    answer = scoring_server.invocations(body, "application/json", model, model.metadata.get_input_schema())
    assert answer.status == 200
    same(answer.response.encode(), tmp_path / "out.csv")
