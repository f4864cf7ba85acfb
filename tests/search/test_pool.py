"""Worker processes: replaced when they die, gone when the pool closes or its process ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
import torch
from safetensors.torch import load_file

from pipeline.data.development import save_development
from pipeline.data.tensors import Development
from pipeline.errors import SearchError
from pipeline.models import FAMILIES
from pipeline.search import forks
from pipeline.search.pool import Died, Worker, WorkerPool
from pipeline.training.calibration import cost_class
from pipeline.training.config import OptimisationConfig, TrainSettings, TrialConfig
from pipeline.training.devices import Slot
from pipeline.training.messages import Answer, Calibrated, Ended, Idle, Report
from pipeline.training.trainer import WEIGHTS, Job

SETTINGS = TrainSettings(metric="accuracy", max_epochs=3)
CONFIG = TrialConfig(family="mlp", model=FAMILIES["mlp"].config(), optimisation=OptimisationConfig())
SLOT = Slot(0, "cpu", 1)

CONTROLLER = """
import sys, time
from pathlib import Path
from typing import Any
from pipeline.search.pool import WorkerPool
from pipeline.training.config import TrainSettings
from pipeline.training.devices import Slot
with WorkerPool([Slot(0, "cpu", 1)], Path(sys.argv[1]), TrainSettings(metric="accuracy"), Path(sys.argv[2])) as pool:
    while not pool.workers[0].ready:
        list(pool.wait(0.1))
    print(pool.workers[0].process.pid, flush=True)
    time.sleep(60)
"""


@pytest.fixture
def pool(prepared: Path, tmp_path: Path) -> Iterator[WorkerPool]:
    with WorkerPool([SLOT], prepared, SETTINGS, tmp_path / "logs") as pool:
        yield pool


def hear(pool: WorkerPool, kind: type[Answer | Died], seconds: float = 60.0) -> list[tuple[Worker, Answer | Died]]:
    """Everything that is said until something of this kind is, which comes last."""
    heard: list[tuple[Worker, Answer | Died]] = []
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        for said in pool.wait(0.1):
            heard.append(said)
            if isinstance(said[1], kind):
                return heard
    raise AssertionError(f"no {kind.__name__} within {seconds:g} s, but {heard}")


def job(tmp_path: Path, trial: int = 0) -> Job:
    return Job(trial, CONFIG.model_copy(update={"seed": trial}), tmp_path / f"trial-{trial}")


def test_a_worker_trains_reports_every_epoch_and_is_idle_again(pool: WorkerPool, tmp_path: Path) -> None:
    ((worker, _),) = hear(pool, Idle)
    assert worker.ready
    pool.train(worker, [job(tmp_path)], together=False)
    assert not worker.ready
    said = [answer for _, answer in hear(pool, Idle)]
    assert [type(answer) for answer in said] == [Report, Report, Report, Ended, Idle]
    ended = said[3]
    assert isinstance(ended, Ended)
    assert ended.outcome.state == "COMPLETE"
    assert (tmp_path / "trial-0" / WEIGHTS).is_file()
    assert worker.ready


def test_a_worker_trains_a_cohort_and_times_its_class(
    pool: WorkerPool, development: Development, tmp_path: Path
) -> None:
    ((worker, _),) = hear(pool, Idle)
    pool.train(worker, [job(tmp_path, n) for n in range(3)], together=True)
    ended = [answer.outcome.trial for _, answer in hear(pool, Idle) if isinstance(answer, Ended)]
    assert sorted(ended) == [0, 1, 2]
    timed = cost_class(CONFIG, development.spec, "cpu", 4)
    pool.calibrate(worker, CONFIG, timed)
    assert worker.timing == timed
    (answer,) = [answer for _, answer in hear(pool, Idle) if isinstance(answer, Calibrated)]
    assert answer.gains[1] == 1.0
    assert worker.timing is None


@pytest.mark.parametrize("n_trials", [1, 2])
def test_what_fades_in_training_ends_at_zero_and_not_in_numbers_that_are_slow(
    development: Development, tmp_path: Path, n_trials: int
) -> None:
    """Weights of inputs that are always 0 halve with every step: after 135 steps they would be about 1e-42."""
    part = development.train.take(slice(0, 135))
    zeros = replace(part, inputs=part.inputs._replace(x=torch.zeros_like(part.inputs.x)))
    validation = zeros.take(torch.arange(20))
    save_development(tmp_path, replace(development, train=zeros, validation=validation))
    halving = OptimisationConfig(optimizer="sgd", lr=0.5, weight_decay=1.0, momentum=0.0, batch_size=1)
    jobs = [
        Job(n, CONFIG.model_copy(update={"seed": n, "optimisation": halving}), tmp_path / f"trial-{n}")
        for n in range(n_trials)
    ]
    settings = SETTINGS.model_copy(update={"max_epochs": 1})
    with WorkerPool([SLOT], tmp_path, settings, tmp_path / "logs") as pool:
        ((worker, _),) = hear(pool, Idle)
        pool.train(worker, jobs, together=n_trials > 1)
        assert {a.outcome.state for _, a in hear(pool, Idle) if isinstance(a, Ended)} == {"COMPLETE"}
    for given in jobs:
        weights = load_file(given.directory / WEIGHTS)["blocks.0.linear.weight"]
        assert torch.count_nonzero(weights) == 0


def test_a_killed_worker_is_noticed_and_replaced(pool: WorkerPool) -> None:
    ((victim, _),) = hear(pool, Idle)
    os.kill(victim.process.pid, signal.SIGKILL)
    worker, died = hear(pool, Died)[-1]
    assert worker is victim
    assert died == Died("killed by signal 9 (SIGKILL)")
    (fresh,) = pool.workers
    assert fresh is not victim
    assert hear(pool, Idle)[-1][0] is fresh


def test_jobs_for_a_worker_that_just_died_are_not_lost(pool: WorkerPool, tmp_path: Path) -> None:
    ((worker, _),) = hear(pool, Idle)
    os.kill(worker.process.pid, signal.SIGKILL)
    worker.process.wait()
    pool.train(worker, [job(tmp_path)], together=False)
    buried, _ = hear(pool, Died)[-1]
    assert list(buried.jobs) == [0], "the controller can hand them out again"


def test_killing_a_worker_puts_a_fresh_one_in_its_slot(pool: WorkerPool, monkeypatch: pytest.MonkeyPatch) -> None:
    kill = os.killpg

    def late(group: int, number: int) -> None:
        time.sleep(0.5)  # in which a worker ends that is hung up on
        kill(group, number)

    ((worker, _),) = hear(pool, Idle)
    monkeypatch.setattr(os, "killpg", late)
    pool.kill(worker)
    assert worker.process.returncode == -signal.SIGKILL
    assert hear(pool, Idle)[-1][0].slot == SLOT


def test_a_closed_pool_leaves_no_process(prepared: Path, tmp_path: Path) -> None:
    with WorkerPool([SLOT, Slot(1, "cpu", 1)], prepared, SETTINGS, tmp_path / "logs") as pool:
        processes = [worker.process for worker in pool.workers]
        assert all(psutil.pid_exists(process.pid) for process in processes)
    assert all(process.poll() is not None for process in processes)


@pytest.mark.parametrize("listening", [True, False], ids=["waiting", "computing"])
def test_a_worker_dies_with_its_controller(prepared: Path, tmp_path: Path, listening: bool) -> None:
    command = [sys.executable, "-c", CONTROLLER, str(prepared), str(tmp_path / "logs")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as controller:
        assert controller.stdout is not None
        worker = psutil.Process(int(controller.stdout.readline()))
        if not listening:
            worker.suspend()  # it will not see that its controller hung up
        controller.kill()
    try:
        assert not psutil.wait_procs([worker], timeout=10)[1]
    finally:
        with suppress(psutil.NoSuchProcess):
            worker.kill()


def test_a_worker_that_cannot_start_ends_the_search_with_its_last_words(tmp_path: Path) -> None:
    said = r"slot cpu/0 ended 3 times before it was ready \(exit code 1\): .*nowhere"
    with (
        WorkerPool([SLOT], tmp_path / "nowhere", SETTINGS, tmp_path / "logs") as pool,
        pytest.raises(SearchError, match=said),
    ):
        hear(pool, Idle)


def test_workers_see_no_credentials(
    prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fresh_server: None
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "secret")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    with WorkerPool([SLOT], prepared, SETTINGS, tmp_path / "logs") as pool:
        worker = psutil.Process(pool.workers[0].process.pid)
        while not (environment := worker.environ()):  # for a moment a new program has none
            time.sleep(0.01)
    assert "secret" not in environment.values()
    assert environment["OMP_NUM_THREADS"] == "1"


STUBBORN = """
import os, signal, subprocess, sys, time
from pipeline.training import fork_server, worker
for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
    signal.signal(number, signal.SIG_IGN)
def hang(jobs, *_):
    child = subprocess.Popen([sys.executable, "-c", "import signal, time; signal.signal(15, 1); time.sleep(300)"])
    if os.fork() == 0:
        while True: pass
    jobs[0].directory.mkdir(parents=True)
    (jobs[0].directory / "child").write_text(str(child.pid))
    while True: pass
worker._train = hang
fork_server.main(int(sys.argv[1]), int(sys.argv[2]))
"""


def test_a_worker_that_spins_forks_and_ignores_sigterm_is_gone_with_its_children(
    prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fresh_server: None
) -> None:
    monkeypatch.setattr(forks, "COMMAND", (sys.executable, "-c", STUBBORN))
    with WorkerPool([SLOT], prepared, SETTINGS, tmp_path / "logs") as pool:
        ((worker, _),) = hear(pool, Idle)
        pool.train(worker, [job(tmp_path)], together=False)
        child = tmp_path / "trial-0" / "child"
        until = time.monotonic() + 30
        while not child.exists() and time.monotonic() < until:
            time.sleep(0.05)
        family = psutil.Process(worker.process.pid).children(recursive=True)
        assert len(family) == 2
        os.kill(family[0].ppid(), signal.SIGTERM)
        time.sleep(0.2)
        assert worker.process.poll() is None, "it does ignore SIGTERM"
        began = time.monotonic()
        pool.kill(worker)
        assert time.monotonic() - began < 5.0
        assert worker.process.returncode == -signal.SIGKILL
        assert not psutil.wait_procs(family, timeout=5)[1]
