"""Scheduled searches, with a real Prefect server and worker on loopback: ticks, skips, new data, cancels and kills."""

from __future__ import annotations

import datetime
import shutil
import signal
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing

import psutil
import pytest

from pipeline.records import RECORD
from tests.flows.project import Project, append_rows, make_table
from tests.flows.served import Refused, Served, serving, wait_for
from tests.patience import PATIENCE_S

pytestmark = pytest.mark.slow

SMALL = """
name: small
data: {source: train.csv, target: buys, split: {by: stratified}}
search: {budget: {trials: 4}}
train: {max_epochs: 3}
resources: {cohort: 1}
evaluate: {finalists: 1, bootstrap: 200}
notify: {command: [sh, -c, 'echo "$AUTOML_EVENT $(cat)" >> told.txt'], on: [promoted, failed, interrupted]}
"""
LONG = """
name: long
data: {source: other.csv, target: buys, split: {by: stratified}}
search: {pruner: none, sampler: random, space: {train.batch_size: 16, mlp.n_layers: 3}, budget: {trials: 10}}
train: {max_epochs: 30, patience: 30}
resources: {cohort: 1}
evaluate: {finalists: 1, bootstrap: 200}
"""
TRIALS = 10


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """Two experiments in a folder: one of seconds, and one that is long enough to be cancelled in the middle."""
    project = Project(tmp_path_factory.mktemp("scheduled"))
    make_table(project.folder, n=800)
    shutil.copy(project.folder / "train.csv", project.folder / "other.csv")
    project.file.write_text(SMALL)
    long(project).file.write_text(LONG)
    return project


def long(project: Project) -> Project:
    return Project(project.folder, "long")


@pytest.fixture(scope="module")
def served(small: Project) -> Iterator[Served]:
    with serving(small) as served:
        small.here("schedule", "small.yaml", "--interval", "30d")
        small.here("schedule", "long.yaml", "--cron", "0 3 1 1 *", "--timezone", "Europe/Berlin")
        yield served


def in_the_middle(served: Served) -> str:
    """A run of the long experiment with a record on disk and a trial in flight."""
    pattern = f"searches/long-*/trials/*/{RECORD}"
    records = len(list(served.project.state.glob(pattern)))
    run = served.start("long")
    wait_for(lambda: len(list(served.project.state.glob(pattern))) > records)
    return run


def nothing_is_left(trainers: list[psutil.Process], project: Project) -> None:
    """After ten seconds no trainer lives; the search is resumable and no MLflow run claims to be running."""
    assert trainers, "it was hit in the middle"
    assert not psutil.wait_procs(trainers, timeout=10)[1]
    wait_for(lambda: project.unfinished_runs() == 0, 15)
    assert project.searches()[-1].status == "unfinished"
    assert len(project.records()) < TRIALS


def test_a_wrong_parameter_is_refused_with_the_line_of_the_command_line(served: Served) -> None:
    with pytest.raises(Refused, match=r"trials.*ten"):
        served.start("small", trials="ten")
    run = served.start("small", trials=0)
    error = served.project.here("run", "small.yaml", "--trials", "0", code=2).err
    line = f"failed: {error.removeprefix('error: ').strip()}"
    assert served.end(run) == ("FAILED", "Failed", line)
    assert (served.project.folder / "told.txt").read_text() == f"failed {line}\n"


def test_ticks_search_new_data_once_and_promote_by_the_gate_only(served: Served) -> None:
    project = served.project

    def said(*names: str) -> list[str]:
        return [line for name, line in served.runs("small") if name in names]

    def until(condition: Callable[[], object]) -> None:
        """Tick until then, and let what has begun end."""
        wait_for(condition)
        project.here("schedule", "small", "--pause")
        wait_for(lambda: not served.unfinished("small"))

    project.here("schedule", "small.yaml", "--interval", "6s")
    until(lambda: said("promoted") or said("skipped"))
    assert "small: every 6 s, paused" in project.here("schedule", "--list").out
    [first] = project.searches()
    project.here("schedule", "small", "--resume")
    until(lambda: any("unchanged since" in line for line in said("skipped")))
    assert len(project.records()) == 4, "one search of four trials, however often it ticked"

    append_rows(project.folder, 200, seed=1)
    served.change_parameters("small", trials=5)  # as in Prefect's UI
    project.here("schedule", "small", "--resume")
    until(lambda: len(project.searches()) == 2)

    searches = project.searches()
    assert [search.id for search in searches][:1] == [first.id]
    assert [search.status for search in searches] == ["finished"] * 2, "one for each data"
    assert len(project.records()) == 5, "what was changed in the UI reached the run"
    skipped = said("skipped")
    assert all(
        line.startswith("skipped: ") and any(why in line for why in ("unchanged", "is running", "paused"))
        for line in skipped
    )
    one, two = said("promoted", "finished")
    assert one.startswith("promoted v1: ")
    assert two.startswith("promoted v2: " if project.champion() == 2 else "champion v1 unchanged: ")
    assert "difference" in two
    assert [move.after for move in project.moves()] == [1, 2][: len(said("promoted"))]
    told = (project.folder / "told.txt").read_text().splitlines()
    assert told[1:] == [f"promoted {line}" for line in said("promoted")]


def test_a_cancelled_and_a_stopped_run_leave_no_process_and_true_states(served: Served) -> None:
    project = long(served.project)
    run = in_the_middle(served)
    trainers = served.trainers()
    served.api(f"flow_runs/{run}/set_state", {"state": {"type": "CANCELLING"}})
    nothing_is_left(trainers, project)
    assert served.end(run)[0] == "CANCELLED"

    run = in_the_middle(served)
    trainers = served.trainers()
    assert "its next run goes on" in project.here("stop", "long").out
    nothing_is_left(trainers, project)
    kind, _, line = served.end(run)
    assert kind == "CANCELLED"
    assert "interrupted" in line


def test_of_missed_ticks_one_is_caught_up_with_and_a_run_without_a_process_is_cancelled(served: Served) -> None:
    """What `automl serve` does first, here with a worker that is told to wait."""
    served.api("work_pools/automl", {"is_paused": True}, method="PATCH")
    now = datetime.datetime.now(datetime.UTC)
    missed = [served.schedule_at("long", now - datetime.timedelta(days=days)) for days in (3, 2, 1)]
    orphan = served.schedule_at("long", now)
    served.api(f"flow_runs/{orphan}/set_state", {"state": {"type": "RUNNING"}, "force": True})
    done = served.tidy(now)
    assert any("2 missed ticks skipped, one is caught up with" in line for line in done)
    assert [served.state(run)[0] for run in missed] == ["CANCELLED", "CANCELLED", "SCHEDULED"]
    assert served.state(missed[0])[2].startswith("skipped: nobody served at")
    assert served.state(orphan)[0] == "CANCELLED"
    served.api(f"flow_runs/{missed[-1]}/set_state", {"state": {"type": "CANCELLED"}, "force": True})

    served.project.here("schedule", "small", "--resume")
    wait_for(lambda: served.late("small"))
    served.project.here("schedule", "small", "--pause")
    assert not served.late("small"), "a pause starts nothing that is late either"
    served.api("work_pools/automl", {"is_paused": False}, method="PATCH")


def test_a_killed_runner_ends_everything_and_the_search_can_be_finished(served: Served) -> None:
    project = long(served.project)
    run = in_the_middle(served)
    trainers = served.trainers()
    served.child("prefect worker").send_signal(signal.SIGKILL)
    nothing_is_left(trainers, project)
    _, err = served.process.communicate(timeout=PATIENCE_S)
    assert served.process.returncode == 1
    assert "worker ended: killed by signal 9 (SIGKILL)" in err
    with closing(sqlite3.connect(project.state / "prefect" / "prefect.db")) as database:
        query = "SELECT state_type, state_name FROM flow_run WHERE id = ?"
        assert database.execute(query, [run]).fetchall() == [("CANCELLED", "Cancelled")]
    project.run()
    project.totals_agree(TRIALS)
    assert len(project.searches()) == 1
