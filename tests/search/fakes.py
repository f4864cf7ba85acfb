"""A pool without processes: trials follow a script, and everything the controller says is kept."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field

from pipeline.records import TrialRecord
from pipeline.search.pool import Died
from pipeline.training.calibration import CostClass
from pipeline.training.checkpoint import CHECKPOINT
from pipeline.training.config import TrialConfig
from pipeline.training.devices import Slot
from pipeline.training.measurement import Measurement, Outcome
from pipeline.training.messages import Answer, Calibrated, Ended, Idle, Report, Suspended
from pipeline.training.trainer import WEIGHTS, Job, Verdict


@dataclass(frozen=True, slots=True)
class Script:
    """How a trial goes: its validation score epoch by epoch, and what happens then."""

    scores: tuple[float, ...] = (0.5, 0.6, 0.7)
    then: str = "complete"
    """``complete``, ``fail``, ``die`` (the worker is killed), ``hang``."""


@dataclass(slots=True, eq=False)
class FakeWorker:
    slot: Slot
    ready: bool = False
    jobs: dict[int, Job] = field(default_factory=dict)
    since: float = 0.0
    epoch: int = 0
    timing: CostClass | None = None


class FakePool:
    """Answers as `WorkerPool` does.

    Args:
        script: of a trial by number and by how often it was begun before.
        deaf_epochs: for how many epochs after a verdict a trial goes on, as a busy worker does.
        gains: what calibrating says.
        pace: seconds that an epoch is said to take.
    """

    def __init__(
        self,
        script: Callable[[int, int], Script],
        n_workers: int = 2,
        deaf_epochs: int = 0,
        gains: Mapping[int, float] | None = None,
        pace: float = 1.0,
    ) -> None:
        self._script, self._deaf_epochs, self._gains = script, deaf_epochs, gains
        self._pace = pace
        self.workers = [FakeWorker(Slot(index, "cpu", 1)) for index in range(n_workers)]
        self.begun: list[tuple[int, ...]] = []
        """Trials of every `train`, in order."""
        self.timed: list[tuple[int, CostClass]] = []
        """Slot and class of every `calibrate`, in order."""
        self.verdicts: list[tuple[int, Verdict]] = []
        self._heard: dict[int, tuple[Verdict, int]] = {}

    def wait(self, timeout: float) -> Iterator[tuple[FakeWorker, Answer | Died]]:
        time.sleep(min(timeout, 0.001))
        for worker in list(self.workers):
            for answer in self._step(worker):
                if isinstance(answer, Idle):
                    worker.ready, worker.timing = True, None
                yield worker, answer
                if worker not in self.workers:
                    break

    def train(self, worker: FakeWorker, jobs: Sequence[Job], *, together: bool) -> None:
        assert worker.ready, "only a ready worker takes jobs"
        assert together or len(jobs) == 1
        worker.ready, worker.epoch, worker.since = False, 0, time.monotonic()
        worker.jobs = {job.trial: job for job in jobs}
        self.begun.append(tuple(worker.jobs))
        for job in jobs:
            job.directory.mkdir(parents=True, exist_ok=True)
            (job.directory / CHECKPOINT).write_bytes(b"checkpoint")

    def calibrate(self, worker: FakeWorker, config: TrialConfig, timed: CostClass) -> None:
        worker.ready, worker.timing = False, timed
        self.timed.append((worker.slot.index, timed))

    def answer(self, worker: FakeWorker, verdicts: Mapping[int, Verdict]) -> None:
        for number, verdict in verdicts.items():
            self.verdicts.append((number, verdict))
            self._heard.setdefault(number, (verdict, worker.epoch + self._deaf_epochs))

    def kill(self, worker: FakeWorker) -> None:
        for number in worker.jobs:
            self._heard.pop(number, None)
        self.workers[self.workers.index(worker)] = FakeWorker(worker.slot)

    def _step(self, worker: FakeWorker) -> Iterator[Answer | Died]:
        if worker.timing is not None:
            assert self._gains is not None
            yield Calibrated(worker.timing, self._gains)
            yield Idle()
        elif worker.jobs:
            yield from self._epoch(worker)
        elif not worker.ready:
            yield Idle()

    def _epoch(self, worker: FakeWorker) -> Iterator[Answer | Died]:
        scripts = {number: self._script(number, self._times(number) - 1) for number in worker.jobs}
        going = [n for n in worker.jobs if worker.epoch < len(scripts[n].scores)]
        worker.epoch += 1
        if going:
            yield Report(
                tuple(measurement(n, worker.epoch, scripts[n].scores[worker.epoch - 1], self._pace) for n in going)
            )
        ended = suspended = 0
        for number in list(worker.jobs):
            verdict, since = self._heard.get(number, (None, 0))
            over = worker.epoch >= len(scripts[number].scores)
            if verdict is not None and worker.epoch > since:
                if verdict == "suspend":
                    suspended += 1
                    del self._heard[number]
                    yield Suspended(number)
                    continue
                yield self._end(worker.jobs[number], "PRUNED" if verdict == "prune" else "COMPLETE")
                ended += 1
            elif over and scripts[number].then == "die":
                self.kill(worker)
                yield Died("killed by signal 9 (SIGKILL)")
                return
            elif over and scripts[number].then != "hang":
                yield self._end(worker.jobs[number], "COMPLETE" if scripts[number].then == "complete" else "FAIL")
                ended += 1
        if (ended or suspended) and not worker.jobs:
            yield Idle()

    def _times(self, number: int) -> int:
        return sum(number in begun for begun in self.begun)

    def _end(self, job: Job, state: str) -> Ended:
        if state == "COMPLETE":
            (job.directory / WEIGHTS).write_bytes(b"weights")
        error = f"ValueError: trial {job.trial} cannot learn" if state == "FAIL" else None
        assert (job.directory / CHECKPOINT).exists(), "kept until the end is on record"
        return Ended(Outcome.model_validate({"trial": job.trial, "state": state, "n_params": 10, "error": error}))


def measurement(trial: int, epoch: int, score: float, pace: float) -> Measurement:
    return Measurement(
        trial=trial, epoch=epoch, train_loss=1.0, val_loss=1.0, metrics={"accuracy": score}, seconds=pace * epoch
    )


class MemorySink:
    """Implements `TrialSink`."""

    def __init__(self) -> None:
        self.begun: list[int] = []
        self.finished: list[TrialRecord] = []

    def begin(self, number: int, family: str, params: Mapping[str, object]) -> Future[str]:
        self.begun.append(number)
        created: Future[str] = Future()
        created.set_result(f"run-{number}")
        return created

    def finish(self, record: TrialRecord) -> None:
        self.finished.append(record)
