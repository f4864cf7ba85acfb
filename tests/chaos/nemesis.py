"""SIGKILL at random: of workers and of the controller, until the search has ended, and what must hold after it."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
from collections import defaultdict
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import psutil

from pipeline.records import RECORD, read_record
from pipeline.search.retraining import FINALISTS
from tests.flows.project import COMMAND, Project
from tests.helpers import workers_of
from tests.patience import PATIENCE_S

TRIALS = 8
SMALL = f"""
name: small
data: {{source: "sklearn:digits"}}
search:
  families: [mlp]
  pruner: median
  sampler: random
  space: {{train.batch_size: 16, mlp.width: 64}}
  budget: {{trials: {TRIALS}}}
train: {{max_epochs: 25, patience: 25}}
resources: {{cohort: 1, slots_per_device: 2}}
"""
WITNESS = Path(__file__).parent / "witness"
START_S = (2.0, 12.0)
"""When the controller is killed, counted from its start: from before it has imported MLflow to after its last trial."""
WORKER_EVERY_S = 3.5
WORKERS_A_START = 5
"""So many workers are killed in one start: on a busy machine more would die before they are ready, which ends it."""
CHECKPOINT_EVERY_S = 1.0
"""`TrainSettings.checkpoint_every`."""
SLACK_S = 3.0
"""A busy machine may stretch the pause between two checkpoints by so much."""


@dataclass
class Round:
    """One search under fire.

    Args:
        seed: decides when whom to kill.
    """

    project: Project
    seed: int
    most_controller_kills: int = 4
    """After so many a start is left alone, so that a round ends."""
    controller_kills: int = 0
    worker_kills: int = 0
    starts: int = 0
    kept: dict[str, bytes] = field(default_factory=dict)
    """Every record that was ever seen, by its path."""

    def __post_init__(self) -> None:
        self._random = random.Random(self.seed)
        self.project.file.write_text(SMALL)

    @property
    def witness(self) -> Path:
        return self.project.folder / "witness.log"

    def play(self) -> None:
        """Start, kill, start again, until a start ends by itself."""
        ended = False
        while not ended:
            ended = self._one_start()
            self._keep_records()

    def _one_start(self) -> bool:
        """Whether the search ended before somebody killed its controller."""
        self.starts += 1
        process = self._start()
        now = time.monotonic()
        most_workers = self.worker_kills + WORKERS_A_START
        spared = self.controller_kills >= self.most_controller_kills
        end = now + (PATIENCE_S if spared else self._random.uniform(*START_S))
        next_worker = now + self._random.expovariate(1 / WORKER_EVERY_S)
        try:
            while process.poll() is None and time.monotonic() < end:
                if time.monotonic() >= next_worker and self.worker_kills < most_workers:
                    self._kill_a_worker(process)
                    next_worker = time.monotonic() + self._random.expovariate(1 / WORKER_EVERY_S)
                self._keep_records()
                time.sleep(0.02)
            if process.poll() is not None:
                assert process.returncode == 0, f"exit code {process.returncode}: {self._log.read_text()}"
                return True
            assert not spared, f"not finished within {PATIENCE_S:g} s: {self._log.read_text()}"
            self._kill_the_controller(process)
            return False
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()

    @property
    def _log(self) -> Path:
        return self.project.folder / f"start-{self.starts}.log"

    def _start(self) -> subprocess.Popen[bytes]:
        environment = self.project.environment()
        environment["PYTHONPATH"] = os.pathsep.join([str(WITNESS), environment["PYTHONPATH"]])
        environment["CHAOS_WITNESS"] = str(self.witness)
        command = [*COMMAND, "run", self.project.file.name, "--no-prefect"]
        with self._log.open("wb") as log:
            return subprocess.Popen(
                command, cwd=self.project.folder, env=environment, stdout=log, stderr=subprocess.STDOUT
            )

    def _kill_a_worker(self, process: subprocess.Popen[bytes]) -> None:
        workers = workers_of(process.pid)
        if workers:
            self._random.choice(workers).kill()
            self.worker_kills += 1

    def _kill_the_controller(self, process: subprocess.Popen[bytes]) -> None:
        workers = workers_of(process.pid)
        process.send_signal(signal.SIGKILL)
        process.wait()
        self.controller_kills += 1
        alive = psutil.wait_procs(workers, timeout=10)[1]
        assert not alive, f"workers outlive their controller: {alive}"

    def _keep_records(self) -> None:
        """What is on record stays as it is, byte for byte, and there is never more than the budget."""
        seen = {str(path): path.read_bytes() for path in self.project.state.glob(f"searches/*/trials/*/{RECORD}")}
        for path, content in self.kept.items():
            assert seen.get(path) == content, f"{path} is lost, or was written again"
        self.kept = seen
        assert len(seen) <= TRIALS, "more trials than the budget"

    # What must hold afterwards.

    def check(self) -> None:
        """Everything that the search promises, once it has ended."""
        assert len(self.project.searches()) == 1
        assert self.project.searches()[-1].status == "finished"
        self.project.totals_agree(TRIALS)
        assert len(self.kept) == TRIALS
        failed = [record for record in self.project.records() if record.state == "FAIL"]
        assert all((record.error or "").startswith("worker_died: ") for record in failed), failed
        assert len(failed) <= self.worker_kills // 3, "three deaths of its worker fail a trial, no fewer"
        seeds = [read_record(path.parent) for path in self.project.directory().glob(f"{FINALISTS}/*/trials/*/{RECORD}")]
        for record in (*self.project.records(), *seeds):
            assert record is not None
            assert [m.epoch for m in record.curve] == list(range(1, len(record.curve) + 1)), record.label
        self._nothing_but_the_last_moment_was_repeated()
        assert self.project.champion() == 1, "one version, and it is the champion"

    def _nothing_but_the_last_moment_was_repeated(self) -> None:
        """A trial goes on from its last checkpoint, and checkpoints are a second and an epoch apart at most."""
        for training, stints in self._stints().items():
            for before, after in pairwise(stints):
                assert after.first == before.saved + 1 or after.first == before.last_end + 1, (
                    f"{training} had a checkpoint of epoch {before.saved} and began again with {after.first}"
                )
                lost = before.last_time - before.times.get(after.first - 1, before.began)
                allowed = CHECKPOINT_EVERY_S + before.longest + SLACK_S
                assert lost <= allowed, f"{training} repeats {lost:.2f} s of training, more than {allowed:.2f} s"

    def _stints(self) -> dict[str, list[Stint]]:
        """By the folder of a trial, or of a finalist's seed: what each worker process that had it did with it, in
        order."""
        stints: dict[str, list[Stint]] = defaultdict(list)
        lines = self.witness.read_text().splitlines() if self.witness.exists() else []
        for what, pid, training, epoch, at in (line.split() for line in lines):
            mine = stints[training]
            if not mine or mine[-1].pid != int(pid):
                saved = mine[-1].saved if mine else 0
                mine.append(Stint(int(pid), int(epoch), float(at), saved))
            mine[-1].note(what, int(epoch), float(at))
        return stints


@dataclass
class Stint:
    """One worker process with one trial. Times are seconds."""

    pid: int
    first: int
    """Epoch it began with."""
    began: float
    saved: int
    """Epoch of the last checkpoint."""
    times: dict[int, float] = field(default_factory=dict)
    """When each epoch ended."""

    @property
    def last_end(self) -> int:
        """Last epoch that ended; the kill may have come between a checkpoint's rename and the witness's line."""
        return max(self.times, default=self.first - 1)

    @property
    def last_time(self) -> float:
        return max(self.times.values(), default=self.began)

    @property
    def longest(self) -> float:
        """Seconds of the longest epoch."""
        ends = [self.began, *self.times.values()]
        return max((late - early for early, late in pairwise(ends)), default=0.0)

    def note(self, what: str, epoch: int, at: float) -> None:
        if what == "end":
            self.times[epoch] = at
        elif what == "saved":
            self.saved = epoch
