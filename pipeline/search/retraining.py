"""Finalists are trained again with other seeds: how much of a score is the luck of one.

A finalist's folder ``finalists/<trial>/`` is laid out as a search's: its seed k has ``trials/<k>/`` with record and
weights. The trial itself is seed 0 and is not trained again. Nothing is pruned, and nobody but the evaluation is told.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from pipeline.records import TrialRecord, judged, read_record, trial_directory
from pipeline.search.controller import DRAIN_S, TICK_S, WORKER_DEATHS, put_on_record
from pipeline.search.pool import Died, Worker, WorkerPool
from pipeline.search.progress import StopRequest
from pipeline.training.checkpoint import discard_checkpoint
from pipeline.training.config import TrialConfig
from pipeline.training.measurement import Measurement, Outcome
from pipeline.training.messages import Answer, Ended, Report, Suspended
from pipeline.training.trainer import Job

FINALISTS = "finalists"
STRIDE = 1_000_003
"""Between the seeds of a finalist; those of a search's trials are one apart."""
SEEDS = 3
SHARE = 0.25
SECONDS = 60.0
"""Left alone, finalists are trained `SEEDS` times where that adds at most this share to the search's epochs, or so
long."""


def seeds_wanted(
    setting: int | Literal["auto"],
    finalists: Sequence[TrialRecord],
    trials: Iterable[TrialRecord],
    *,
    repeatable: bool,
) -> int:
    """How often each finalist is trained, its trial included.

    Args:
        repeatable: whether it must be the same in another run of the search: epochs repeat, seconds do not.
    """
    if setting != "auto":
        return setting
    more = (SEEDS - 1) * sum(len(finalist.curve) for finalist in finalists)
    searched = sum(len(trial.curve) for trial in trials if trial.duplicate_of is None)
    seconds = (SEEDS - 1) * sum(finalist.train_s for finalist in finalists)
    return SEEDS if more <= SHARE * searched or (seconds <= SECONDS and not repeatable) else 1


def seed_directory(search: Path, trial: int, k: int) -> Path:
    """Where a finalist's k-th seed keeps its files."""
    return trial_directory(search / FINALISTS / f"{trial:06d}", k)


def seed_records(search: Path, finalist: TrialRecord, n_seeds: int) -> dict[int, TrialRecord]:
    """What is on record of a finalist's further seeds, by k from 1 to `n_seeds` - 1."""
    found = {k: read_record(seed_directory(search, finalist.number, k)) for k in range(1, n_seeds)}
    return {k: record for k, record in found.items() if record is not None and record.config == _seeded(finalist, k)}


@dataclass(slots=True, eq=False)
class _Training:
    finalist: TrialRecord
    job: Job
    started: float = 0.0
    curve: list[Measurement] = field(default_factory=list)
    deaths: int = 0
    alone: bool = False


class Retraining:
    """One start of it; what an earlier start finished or checkpointed is gone on with.

    Args:
        search: the search's folder.
        together: whether so many trainings of a config had better be one computation.
        per_trial: seconds that a training may take; None for any.
        lockstep: workers wait for an answer to every report.
    """

    def __init__(
        self,
        search: Path,
        finalists: Sequence[TrialRecord],
        n_seeds: int,
        stop: StopRequest,
        *,
        together: Callable[[TrialConfig, int], bool],
        per_trial: float | None,
        lockstep: bool,
    ) -> None:
        self._stop, self._together = stop, together
        self._per_trial, self._lockstep = per_trial, lockstep
        self._trainings = _missing(search, finalists, n_seeds)
        self._waiting: deque[list[_Training]] = deque()
        self._drain_until: float | None = None
        for finalist in finalists:
            mine = [t for t in self._trainings.values() if t.finalist is finalist]
            grouped = len(mine) > 1 and together(mine[0].job.config, len(mine))
            self._waiting.extend([mine] if grouped else [[training] for training in mine])

    @property
    def needed(self) -> int:
        """Workers that have anything to do."""
        return len(self._waiting)

    def run(self, pool: WorkerPool) -> None:
        """Train what is missing; a stop that was asked for leaves the rest resumable."""
        while self._waiting or any(worker.jobs for worker in pool.workers):
            if self._stop.requested:
                self._suspend(pool)
            else:
                self._hand_out(pool)
            for worker, said in pool.wait(TICK_S):
                self._handle(pool, worker, said)
            self._enforce_deadlines(pool)

    def _hand_out(self, pool: WorkerPool) -> None:
        for worker in pool.workers:
            if worker.ready and self._waiting:
                group = self._waiting.popleft()
                for training in group:
                    training.started = time.time()
                    training.job.directory.mkdir(parents=True, exist_ok=True)
                jobs = [training.job for training in group]
                together = not group[0].alone and self._together(jobs[0].config, len(jobs))
                pool.train(worker, jobs, together=together)

    def _suspend(self, pool: WorkerPool) -> None:
        self._waiting.clear()
        if self._drain_until is None:
            self._drain_until = time.monotonic() + DRAIN_S
            for worker in pool.workers:
                pool.answer(worker, dict.fromkeys(worker.jobs, "suspend"))

    def _enforce_deadlines(self, pool: WorkerPool) -> None:
        now = time.monotonic()
        for worker in [worker for worker in pool.workers if worker.jobs]:
            overdue = self._per_trial is not None and now - worker.since > self._per_trial * len(worker.jobs)
            if self._drain_until is not None and (now >= self._drain_until or self._stop.now):
                pool.kill(worker)
            elif overdue:
                numbers = list(worker.jobs)
                pool.kill(worker)
                if len(numbers) == 1:
                    self._fail(numbers[0], f"timeout: trained longer than budget.per_trial, {self._per_trial:g} s")
                else:
                    self._one_by_one(numbers)

    def _handle(self, pool: WorkerPool, worker: Worker, said: Answer | Died) -> None:
        match said:
            case Report(measurements):
                for measurement in measurements:
                    curve = self._trainings[measurement.trial].curve
                    if not curve or measurement.epoch > curve[-1].epoch:
                        curve.append(measurement)
                if self._stop.requested:
                    pool.answer(worker, {m.trial: "suspend" for m in measurements})
                elif self._lockstep:
                    pool.answer(worker, {})
            case Ended(outcome):
                worker.jobs.pop(outcome.trial, None)
                self._finish(outcome)
            case Suspended(number):
                worker.jobs.pop(number)
            case Died(reason):
                for number in worker.jobs:
                    self._bury(self._trainings[number], reason)

    def _bury(self, training: _Training, reason: str) -> None:
        training.deaths += 1
        if training.alone and training.deaths >= WORKER_DEATHS:
            self._fail(training.job.trial, f"worker_died: {reason}, {training.deaths} times")
        else:
            self._one_by_one([training.job.trial])

    def _one_by_one(self, numbers: Sequence[int]) -> None:
        """So that the one which hangs or kills its worker is found."""
        for number in numbers:
            self._trainings[number].alone = True
            self._waiting.append([self._trainings[number]])

    def _fail(self, number: int, reason: str) -> None:
        curve = self._trainings[number].curve
        seconds = curve[-1].seconds if curve else 0.0
        self._finish(Outcome(trial=number, state="FAIL", seconds=seconds, error=reason))

    def _finish(self, outcome: Outcome) -> None:
        training = self._trainings[outcome.trial]
        finalist, directory = training.finalist, training.job.directory
        record = TrialRecord(
            search=finalist.search,
            number=finalist.number,
            config=training.job.config,
            params=finalist.params,
            started=training.started,
            **judged(outcome, training.curve, finalist.metric, directory),
        )
        put_on_record(directory, record)


def _seeded(finalist: TrialRecord, k: int) -> TrialConfig:
    return finalist.config.model_copy(update={"seed": (finalist.config.seed + k * STRIDE) % 2**63})


def _missing(search: Path, finalists: Sequence[TrialRecord], n_seeds: int) -> dict[int, _Training]:
    """Trainings that are not on record, by a number that is theirs among the workers."""
    missing: list[_Training] = []
    for finalist in finalists:
        there = seed_records(search, finalist, n_seeds)
        for k in there:
            discard_checkpoint(seed_directory(search, finalist.number, k))  # a kill may have come before it was
        for k in (k for k in range(1, n_seeds) if k not in there):
            directory = seed_directory(search, finalist.number, k).absolute()
            missing.append(_Training(finalist, Job(len(missing), _seeded(finalist, k), directory)))
    return {training.job.trial: training for training in missing}
