"""Kill anything at any time: the same command finishes the search with the same totals."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from pipeline.records import RECORD
from pipeline.search.directory import search_lock
from tests.flows.project import Project, make_table
from tests.helpers import workers_of
from tests.patience import PATIENCE_S

pytestmark = pytest.mark.slow

TRIALS = 8
SLOW = """
name: small
data: {source: train.csv, target: buys, split: {by: stratified}}
search: {pruner: none, sampler: random, space: {train.batch_size: 16, mlp.width: 64}, budget: {trials: 8}}
train: {max_epochs: 15, patience: 15}
evaluate: {seeds: 1}
resources: {cohort: 1}
"""


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """Eight trials of about half a second: a search that is long enough to be hit in the middle."""
    project = Project(tmp_path)
    make_table(tmp_path, n=1500)
    project.file.write_text(SLOW)
    return project


@pytest.fixture
def running(project: Project) -> Iterator[subprocess.Popen[str]]:
    """The search with at least two records on disk and trials in flight."""
    process = project.start()
    try:
        wait_for(lambda: process.poll() is not None or len(records_on_disk(project)) >= 2)
        assert process.poll() is None, f"the search ended too early: {process.communicate()}"
        yield process
    finally:
        for worker in workers_of(process.pid):
            worker.kill()
        process.kill()
        process.communicate()


def records_on_disk(project: Project) -> dict[str, bytes]:
    """Trial folder to the record's bytes."""
    return {path.parent.name: path.read_bytes() for path in project.state.glob(f"searches/*/trials/*/{RECORD}")}


def wait_for(condition: Callable[[], bool], seconds: float = PATIENCE_S) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, f"not within {seconds:g} s"
        time.sleep(0.02)


def finished_with_the_same_totals(project: Project, kept: dict[str, bytes]) -> None:
    """After another start: all trials once, and what had ended before was not touched."""
    result = project.run("--json").json
    assert sum(result["trials"].values()) == TRIALS
    project.totals_agree(TRIALS)
    after = records_on_disk(project)
    assert {name: after[name] for name in kept} == kept
    assert len(project.searches()) == 1
    assert len(project.readings()) == 1


def test_a_killed_controller_takes_its_workers_along_and_is_resumed(
    project: Project, running: subprocess.Popen[str]
) -> None:
    workers = workers_of(running.pid)
    assert workers
    running.send_signal(signal.SIGKILL)
    running.wait(timeout=PATIENCE_S)
    gone, alive = psutil.wait_procs(workers, timeout=10)
    assert not alive
    assert gone
    kept = records_on_disk(project)
    assert 2 <= len(kept) < TRIALS, "killed in the middle"
    finished_with_the_same_totals(project, kept)
    for record in project.records():
        assert [m.epoch for m in record.curve] == list(range(1, len(record.curve) + 1)), "no epoch twice, none missing"


@pytest.mark.parametrize("whom", ["one worker", "the server that all are forked from"])
def test_a_killed_worker_costs_nothing_but_its_epoch(
    project: Project, running: subprocess.Popen[str], whom: str
) -> None:
    worker = workers_of(running.pid)[0]
    victim = worker if whom == "one worker" else worker.parent()
    assert victim is not None
    victim.send_signal(signal.SIGKILL)
    out, err = running.communicate(timeout=PATIENCE_S)
    assert running.returncode == 0, out + err
    project.totals_agree(TRIALS)
    assert {record.state for record in project.records()} == {"COMPLETE"}, "pruning is off, and no trial failed"


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)], ids=["Ctrl-C", "SIGTERM"])
def test_a_stopped_search_says_so_and_goes_on_with_the_same_command(
    project: Project, running: subprocess.Popen[str], number: signal.Signals, code: int
) -> None:
    workers = workers_of(running.pid)
    running.send_signal(number)
    _, err = running.communicate(timeout=PATIENCE_S)
    assert running.returncode == code
    assert "the same command goes on with it" in err
    assert "Traceback" not in err
    assert not psutil.wait_procs(workers, timeout=10)[1]
    assert project.searches()[-1].status == "unfinished"
    assert project.unfinished_runs() == 0, "nothing stays RUNNING without an owner"
    kept = records_on_disk(project)
    assert len(kept) < TRIALS, "stopped in the middle"
    if number == signal.SIGINT:  # from here on both are the same
        finished_with_the_same_totals(project, kept)


def test_an_unfinished_search_is_gone_on_with_by_nobody_else_and_with_nothing_else(
    project: Project, running: subprocess.Popen[str]
) -> None:
    running.kill()
    running.wait(timeout=PATIENCE_S)
    assert "unfinished, and nobody is running it" in project.here("doctor", code=1).out
    with search_lock(project.directory()):  # as another controller holds it
        refused = project.run(code=1)
    assert refused.err.startswith("error: search small-")
    assert f"pid {os.getpid()} " in refused.err
    assert refused.err.count("\n") == 1
    refused = project.here("run", "small.yaml", "--set", "search.seed=1", code=2)
    assert "search.seed: 0 -> 1" in refused.err
    assert "--new" in refused.err
    data = project.folder / "train.csv"
    data.write_text(f"{data.read_text()}33.0,20000,Lyon,yes\n")
    n_rows = len(data.read_text().splitlines()) - 1
    refused = project.here("run", "small.yaml", code=2)
    assert f"the data itself: {n_rows - 1} rows then, {n_rows} now" in refused.err
