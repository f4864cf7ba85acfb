"""Scheduled searches, with a real Prefect server and worker on loopback: ticks, skips, new data, cancels and kills."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import psutil
import pytest

from pipeline.files import holder_of
from pipeline.records import RECORD
from tests.flows.project import TABULAR, Project, make_table
from tests.flows.served import Refused, Served, serving, wait_for

pytestmark = pytest.mark.slow

TOLD = """
notify: {command: [sh, -c, 'echo "$AUTOML_EVENT $(cat)" >> told.txt'], on: [promoted, failed, interrupted]}
"""
LONG = """
name: long
data: {source: train.csv, target: buys}
search: {pruner: none, sampler: random, space: {train.batch_size: 16, mlp.width: 64}, budget: {trials: 10}}
train: {max_epochs: 25, patience: 25}
resources: {cohort: 1}
"""
TRIALS = 10


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """Two experiments in a folder: one of seconds, and one that is long enough to be cancelled in the middle."""
    project = Project(tmp_path_factory.mktemp("scheduled"))
    make_table(project.folder, n=800)
    project.file.write_text(TABULAR + TOLD)
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
    """A run of the long experiment with a record on disk and trials in flight."""
    records = len(list(served.project.state.glob(f"searches/long-*/trials/*/{RECORD}")))
    run = served.start("long")
    wait_for(lambda: len(list(served.project.state.glob(f"searches/long-*/trials/*/{RECORD}"))) > records)
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
    assert served.end(run) == ("FAILED", "Failed", f"failed: {error.removeprefix('error: ').strip()}")


def test_ticks_search_new_data_once_and_say_why_they_skip(served: Served) -> None:
    project = served.project
    project.here("schedule", "small.yaml", "--interval", "15s")
    wait_for(lambda: any(name == "Skipped" for name, _ in served.runs("small")))
    wait_for(lambda: any(name == "Promoted" for name, _ in served.runs("small")))
    first = project.searches()
    assert len(first) == 1, "one search, however often it ticked"
    said = [message for name, message in served.runs("small") if name == "Skipped"]
    assert all(m.startswith("skipped: ") and ("unchanged since" in m or "is running" in m) for m in said), said

    make_table(project.folder, n=400, seed=1)  # other rows
    wait_for(lambda: len(project.searches()) == 2 and project.searches()[-1].status == "finished")
    project.here("schedule", "small", "--pause")
    assert "small: every 15 s, paused" in project.here("schedule", "--list").out
    wait_for(lambda: holder_of(project.state / "locks" / "small.lock") is None)

    ended = {message for name, message in served.runs("small") if name in {"Promoted", "Completed"}}
    assert sum(m.startswith("promoted v1: ") for m in ended) == 1
    [second] = ended - {m for m in ended if m.startswith("promoted v1: ")}
    assert "difference" in second
    assert second.startswith("promoted v2: ") == (project.champion() == 2), "promoted by the gate or not at all"
    told = (project.folder / "told.txt").read_text().splitlines()
    assert any(line.startswith("promoted promoted v1: ") for line in told)
    assert any(line.startswith("failed failed: ") for line in told)


def test_a_parameter_that_was_changed_in_the_ui_reaches_the_run(served: Served) -> None:
    deployment = served.deployment("small")
    parameters = deployment["parameters"] | {"trials": 9, "promote": False}
    served.api(f"deployments/{deployment['id']}", {"parameters": parameters}, method="PATCH")
    _, _, message = served.end(served.start("small"))
    assert "unchanged" in message
    assert len(served.project.records()) == 9


def test_a_cancelled_run_leaves_no_process_and_true_states_and_the_next_one_goes_on(served: Served) -> None:
    project = long(served.project)
    run = in_the_middle(served)
    trainers = served.trainers()
    served.api(f"flow_runs/{run}/set_state", {"state": {"type": "CANCELLING"}})
    nothing_is_left(trainers, project)
    assert served.end(run)[0] == "CANCELLED"

    run = in_the_middle(served)
    overlap = served.start("long")
    assert "is running" in served.end(overlap)[2]
    trainers = served.trainers()
    assert "its next run goes on" in project.here("stop", "long").out
    nothing_is_left(trainers, project)
    kind, _, message = served.end(run)
    assert kind == "CANCELLED"
    assert "interrupted" in message


def test_a_killed_runner_ends_everything_and_the_next_serve_finishes_the_search(served: Served) -> None:
    project = long(served.project)
    run = in_the_middle(served)
    trainers = served.trainers()
    served.child("prefect worker").send_signal(signal.SIGKILL)
    nothing_is_left(trainers, project)
    _, err = served.process.communicate(timeout=60)
    assert served.process.returncode == 1
    assert "worker ended: killed by signal 9 (SIGKILL)" in err
    with serving(served.project) as again:
        assert again.end(run)[0] == "CANCELLED"
        assert again.end(again.start("long"))[1] == "Promoted"
        project.totals_agree(TRIALS)
        assert len(project.searches()) == 1
        assert again.stop() == 0
