"""What a store missed is said again, and what nobody needs is removed; the rest stays, and stays consistent."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path
from unittest import mock

import pytest
from mlflow import MlflowClient

from pipeline.records import RECORD
from tests.flows.project import Project, tabular_project

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Project:
    project = tabular_project(tmp_path_factory.mktemp("finished"))
    project.run("--set", "tracking.models=top-2", "--set", "search.pruner=none")
    return project


@pytest.fixture
def project(finished: Project, tmp_path: Path) -> Project:
    """A copy of a search that has ended: the database names the copy's artifacts."""
    project = Project(shutil.copytree(finished.folder, tmp_path / "copy"))
    with closing(sqlite3.connect(project.state / "mlflow.db")) as database:
        for table, column in (
            ("experiments", "artifact_location"),
            ("runs", "artifact_uri"),
            ("model_versions", "source"),
        ):
            renamed = f"UPDATE {table} SET {column} = replace({column}, ?, ?)"
            database.execute(renamed, (str(finished.folder), str(project.folder)))
        database.commit()
    return project


def client(project: Project) -> MlflowClient:
    return MlflowClient(tracking_uri=project.uri, registry_uri=project.uri)


def test_a_store_that_missed_nothing_is_left_alone(project: Project) -> None:
    before = {run.info.run_id: run.info.end_time for run in project.runs("trial")}
    assert "in line" in project.here("sync").out
    assert {run.info.run_id: run.info.end_time for run in project.runs("trial")} == before


def test_sync_brings_both_stores_in_line_with_the_records(project: Project) -> None:
    runs = {int(run.data.tags["automl.trial"]): run for run in project.runs("trial")}
    store = client(project)
    store.delete_run(runs[0].info.run_id)
    store.update_run(runs[1].info.run_id, status="RUNNING")
    store.create_run(runs[2].info.experiment_id, tags=dict(runs[2].data.tags))
    journal = project.directory() / "optuna.journal"
    lines = journal.read_bytes().splitlines(keepends=True)
    ends = [i for i, line in enumerate(lines) if json.loads(line)["op_code"] == 6 and b'"state":' in line]
    journal.write_bytes(b"".join(lines[: ends[-1]]) + lines[ends[-1]][:20])  # the last `tell` was torn off
    assert "in line" not in project.here("sync", "small").out
    project.totals_agree(8)
    assert "in line" in project.here("sync", "small.yaml").out


def test_sync_of_an_unknown_experiment_is_refused(project: Project) -> None:
    assert "no searches of 'other'" in project.here("sync", "other", code=2).err


def test_a_dry_run_says_what_would_go_and_removes_nothing(project: Project) -> None:
    litter(project)
    before = files(project)
    said = project.here("gc", "--dry-run", "--json").json
    assert {item["what"].split(" of ")[0] for item in said["items"]} >= {"checkpoint", "model", "artifacts"}
    assert files(project) == before


def test_gc_removes_what_nobody_needs_and_nothing_else(project: Project) -> None:
    checkpoint, orphan = litter(project)
    project.here("gc")
    assert not checkpoint.exists()
    assert not orphan.exists()
    project.totals_agree(8)
    completed = [record for record in project.records() if record.state == "COMPLETE"]
    best = {r.number for r in sorted(completed, key=lambda r: -(r.objective or 0.0))[:2]}
    finalists = {int(run.data.tags["automl.trial"]) for run in project.runs("finalist")}
    for run in project.runs("trial"):
        number = int(run.data.tags["automl.trial"])
        folder = Path(run.info.artifact_uri.removeprefix("file://")) / "model"
        assert folder.exists() == ("automl.package" in run.data.tags), "a run that says it has a model has one"
        if folder.exists():
            assert number in best | finalists
    assert "loads and reproduces its predictions" in project.here("doctor").out
    assert "0 pieces" in project.here("gc").out, "all is gone, and gone once"
    assert "in line" in project.here("sync").out


def test_an_old_search_goes_whole_unless_a_registered_model_comes_from_it(project: Project) -> None:
    project.here("gc", "--older-than", "1s")
    assert len(project.searches()) == 1, "the champion comes from it"
    store = client(project)
    store.delete_registered_model("small")
    project.here("gc", "small", "--older-than", "1d")
    assert len(project.searches()) == 1, "it ended today"
    project.here("gc", "small", "--older-than", "1s")
    assert project.searches() == []
    assert store.search_runs([e.experiment_id for e in store.search_experiments()]) == []
    assert not list((project.state / "artifacts").rglob("model"))


def test_an_unfinished_search_is_never_touched(project: Project) -> None:
    checkpoint, _ = litter(project)
    state = project.directory() / "search.json"
    state.write_text(state.read_text().replace('"finished"', '"unfinished"'))
    project.here("gc", "small", "--older-than", "1s")
    assert checkpoint.exists()
    assert "--older-than must be a duration" in project.here("gc", "--older-than", "soon", code=2).err


def litter(project: Project) -> tuple[Path, Path]:
    """A checkpoint that a kill left behind, and artifacts whose run is gone for good."""
    (first, *_) = sorted(project.directory().glob(f"trials/*/{RECORD}"))
    checkpoint = first.with_name("checkpoint.safetensors")
    checkpoint.write_bytes(b"left behind")
    orphan = project.state / "artifacts" / "small" / ("ab" * 16)
    (orphan / "artifacts").mkdir(parents=True)
    (orphan / "artifacts" / "file").write_bytes(b"x" * 1000)
    os.utime(orphan, (0, 0))
    return checkpoint, orphan


def files(project: Project) -> set[str]:
    """Names of all files but the database's own and those of locks."""
    found = (str(path.relative_to(project.state)) for path in project.state.rglob("*") if path.is_file())
    return {name for name in found if not name.startswith("mlflow.db") and not name.endswith("lock")}


def test_doctor_finds_what_a_kill_left_and_fixes_what_is_safe(project: Project) -> None:
    assert project.here("doctor").out.endswith("0 problems\n")
    run = next(iter(project.runs("trial")))
    client(project).update_run(run.info.run_id, status="RUNNING")
    journal = project.directory() / "optuna.journal"
    with journal.open("ab") as file:
        file.write(b'{"op_code": 4, "torn')
    said = project.here("doctor", code=1).out
    assert "1 runs are RUNNING and nobody runs the search" in said
    assert "the journal's last entry is torn" in said
    assert said.count("`automl doctor --fix`") == 1, "the remedy"
    assert "fixed" in project.here("doctor", "--fix").out
    assert project.unfinished_runs() == 0
    assert project.here("doctor").out.endswith("0 problems\n")


def test_doctor_says_so_when_a_store_is_away(project: Project) -> None:
    uri = "http://127.0.0.1:9"
    with mock.patch("pipeline.tracking.store.PATIENCE_S", 0.0):
        said = project.here("doctor", "--tracking-uri", uri, code=1).out
    assert "PROBLEM tracking: MLflow could not" in said
    assert "start the server" in said
