"""Worker processes, one a slot: forked fresh, spoken to over a socket pair, killed as a group when they must go."""

from __future__ import annotations

import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from pathlib import Path

from pipeline.errors import SearchError
from pipeline.search.forks import Process, fork, thread_limits
from pipeline.training.calibration import CostClass
from pipeline.training.config import TrainSettings, TrialConfig
from pipeline.training.devices import Slot
from pipeline.training.messages import Answer, Calibrate, Idle, Message, Setup, Train, Verdicts
from pipeline.training.trainer import Job, Verdict

START_FAILURES = 3
"""A slot whose worker ends so often before it was ever ready has a wrong set-up, not bad luck."""
START_KILLS = 9
"""As `START_FAILURES`, for workers that a signal ended: somebody outside did it, and may stop doing it."""
EXIT_S = 10.0
"""How long a worker that hung up may take to end: Python's own shutdown takes seconds on a busy machine."""


@dataclass(frozen=True, slots=True)
class Died:
    """A worker's process ended by itself or by somebody's signal."""

    reason: str
    """``killed by signal 9 (SIGKILL)`` or ``exit code 1``."""


@dataclass(slots=True, eq=False)
class Worker:
    """One slot's process and what it is doing."""

    slot: Slot
    process: Process
    connection: Connection
    ready: bool = False
    """It said `Idle` and has had no jobs since."""
    jobs: dict[int, Job] = field(default_factory=dict)
    """Jobs it was given and that have not ended, by trial."""
    since: float = 0.0
    """Monotonic time at which it was given its jobs."""
    timing: CostClass | None = None
    """What it times cohorts of."""


class WorkerPool:
    """The workers of one search. Use as a context manager: nothing it started outlives it."""

    def __init__(self, slots: Sequence[Slot], development: Path, settings: TrainSettings, logs: Path) -> None:
        self._slots = slots
        self._development = development.absolute()
        self._settings = settings
        self._logs = logs
        self._start_failures: dict[int, int] = {}
        self.workers: list[Worker] = []

    def __enter__(self) -> WorkerPool:
        self._logs.mkdir(parents=True, exist_ok=True)
        try:
            self.workers = [self._start(slot) for slot in self._slots]
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def wait(self, timeout: float) -> Iterator[tuple[Worker, Answer | Died]]:
        """What workers said within `timeout` seconds, in each worker's order. One that died is replaced at once."""
        by_connection = {worker.connection: worker for worker in self.workers}
        for connection in wait(list(by_connection), timeout):
            assert isinstance(connection, Connection)
            worker = by_connection[connection]
            try:
                while connection.poll():
                    answer: Answer = connection.recv()
                    if isinstance(answer, Idle):
                        worker.ready, worker.timing = True, None
                        self._start_failures[worker.slot.index] = 0
                    yield worker, answer
                    if worker not in self.workers:  # the caller killed it while handling the answer
                        break
            except (EOFError, ConnectionResetError, OSError):
                if worker in self.workers:
                    yield worker, Died(self._replace(worker, EXIT_S))

    def train(self, worker: Worker, jobs: Sequence[Job], *, together: bool) -> None:
        """Give a ready worker its jobs. A worker that just died is noticed by the next `wait`."""
        worker.ready = False
        worker.jobs = {job.trial: job for job in jobs}
        worker.since = time.monotonic()
        self._send(worker, Train(tuple(jobs), together))

    def calibrate(self, worker: Worker, config: TrialConfig, timed: CostClass) -> None:
        """Have a ready worker time cohorts of a trial's class."""
        worker.ready, worker.timing = False, timed
        self._send(worker, Calibrate(config, timed))

    def answer(self, worker: Worker, verdicts: Mapping[int, Verdict]) -> None:
        """Tell a worker which of its trials are to end."""
        self._send(worker, Verdicts(dict(verdicts)))

    def kill(self, worker: Worker) -> None:
        """End a worker and everything it started, now, and put a fresh one in its slot."""
        self._replace(worker, 0.0)

    def close(self) -> None:
        """End all workers: those that wait exit by themselves, the others are killed."""
        for worker in self.workers:
            worker.connection.close()
        for worker in self.workers:
            if worker.ready:
                with suppress(subprocess.TimeoutExpired):
                    worker.process.wait(timeout=2)
            worker.process.kill_group()
        self.workers = []

    def _send(self, worker: Worker, message: Message) -> None:
        with suppress(BrokenPipeError, ConnectionResetError):  # it died; `wait` sees the end of file and says so
            worker.connection.send(message)

    def _replace(self, worker: Worker, patience: float) -> str:
        """Kill what is left of a worker and start another in its slot; how the old one ended.

        Args:
            patience: seconds in which a worker that is ending may end by itself: its exit code tells more than our
            kill.
        """
        with suppress(subprocess.TimeoutExpired):
            worker.process.wait(timeout=patience)
        by_itself = worker.process.returncode is not None
        code = worker.process.kill_group()
        worker.connection.close()  # not before: it would end by itself
        if not by_itself:
            reason = "hung up without ending"
        elif code < 0:
            reason = f"killed by signal {-code} ({signal.Signals(-code).name})"
        else:
            reason = f"exit code {code}"
        if not worker.ready and not worker.jobs:
            failures = self._start_failures.get(worker.slot.index, 0) + 1
            self._start_failures[worker.slot.index] = failures
            if failures >= (START_KILLS if code < 0 and by_itself else START_FAILURES):
                tail = self._log(worker.slot).read_text(errors="replace").strip().splitlines()[-1:]
                raise SearchError(
                    f"the worker of slot {worker.slot.name} ended {failures} times before it was ready ({reason}): "
                    f"{' '.join(tail) or 'it printed nothing'}; see {self._log(worker.slot)}"
                )
        self.workers[self.workers.index(worker)] = self._start(worker.slot)
        return reason

    def _log(self, slot: Slot) -> Path:
        return self._logs / f"worker-{slot.index}.log"

    def _start(self, slot: Slot) -> Worker:
        ours, theirs = socket.socketpair()
        environment = thread_limits(slot.threads)
        if self._settings.deterministic:
            environment["CUBLAS_WORKSPACE_CONFIG"] = ":4096:8"
        with theirs:
            process = fork(theirs, self._log(slot), environment)
        worker = Worker(slot, process, Connection(ours.detach()))
        self._send(worker, Setup(self._development, self._settings, slot.device, slot.threads))
        return worker
