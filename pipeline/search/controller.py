"""The controller: the only writer to a search's study and tracker. It asks, hands trials to workers, prunes and tells.

A trial's way: asked (journal) -> run created (tracker) -> handed to a worker -> measured epoch by epoch -> record on
disk -> told (journal) -> run finished (tracker). After a kill at any point the next start takes it up where it was.
"""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Protocol

from optuna.trial import TrialState

from pipeline.errors import SearchError, SearchPausedError
from pipeline.files import FULL, link_or_copy
from pipeline.objective import METRICS
from pipeline.records import TrialRecord, judged, read_record, trial_directory, write_record
from pipeline.search.asking import Asker, SearchPlan
from pipeline.search.live import LiveTrial
from pipeline.search.pool import Died, Worker, WorkerPool
from pipeline.search.progress import Progress, StopRequest
from pipeline.search.relief import Relief
from pipeline.search.study import N_STARTUP, Study
from pipeline.training.calibration import CostClass
from pipeline.training.checkpoint import discard_checkpoint
from pipeline.training.measurement import Measurement, Outcome
from pipeline.training.messages import Answer, Calibrated, Ended, Idle, Report, Suspended
from pipeline.training.trainer import WEIGHTS, Job, Verdict

TICK_S = 0.25
WORKER_DEATHS = 3
"""A trial whose worker dies so often is taken to be the reason."""
HOPELESS = 5
"""So many failures and nothing else: a setting is wrong, and the search stops."""
MANY_FAILURES = 20
"""So many failures that are more than half of all trials stop it too, unless `budget.failures` says otherwise."""
AHEAD_S = 0.5
"""Asking for a cohort and creating its runs takes about so long; nothing is asked for earlier, because each result
that comes in before improves the suggestion."""
DISK_LOOK_S = 2.0
"""How often the free disk is looked at."""
DRAIN_S = 60.0
"""How long running trials have to reach the end of their epoch when the search must stop."""


class TrialSink(Protocol):
    """What the controller needs of a tracker."""

    def begin(self, number: int, family: str, params: Mapping[str, object]) -> Future[str]:
        """Create the trial's run; done when it exists."""
        ...

    def finish(self, record: TrialRecord) -> None:
        """Deliver a trial that is on record."""
        ...


class Controller:
    """One run of a search's budget. `run` returns when it is used up, or when a stop was asked for."""

    def __init__(
        self,
        plan: SearchPlan,
        study: Study,
        pool: WorkerPool,
        sink: TrialSink,
        stop: StopRequest,
        on_progress: Callable[[Progress], None],
        elapsed_before: float = 0.0,
    ) -> None:
        self._plan, self._study, self._pool, self._sink, self._stop = plan, study, pool, sink, stop
        self._on_progress = on_progress
        self._objective = METRICS[plan.metric]
        self._started = time.monotonic() - elapsed_before
        self._running: dict[int, LiveTrial] = {}
        self._draining: Verdict | None = None
        self._drain_until = 0.0
        self._paused: str | None = None
        self._disk_looked = -math.inf
        self.progress = Progress(metric=plan.metric, budget=plan.budget)
        self._asker = Asker(plan, study, sink.begin, self.progress)
        self._relief = Relief()

    @property
    def elapsed(self) -> float:
        """Seconds of searching, earlier starts included."""
        return time.monotonic() - self._started

    def run(self) -> str:
        """Search until the budget is used up; why it ended, in a few words.

        Raises:
            SearchPausedError: the disk is full, or nearly; the search is resumable.
            SearchError: too many trials fail.
        """
        try:
            return self._search()
        except OSError as error:
            if error.errno not in FULL:
                raise
            raise SearchPausedError(
                _paused(self._plan, f"{error.strerror}: {error.filename or 'the journal'}")
            ) from error

    def _search(self) -> str:
        self._recover()
        while True:
            reason = self._reason_to_end()
            if reason is not None and not self._running:
                if self._paused is not None:
                    self._study.commit()
                    raise SearchPausedError(self._paused)
                if not self._stop.requested:
                    self._dismiss_waiting(reason)
                break
            more = False
            if self._draining is None:
                more = self._asker.ask(self._n_wanting(), len(self._pool.workers), self._timing())
                self._repeat_results()
                self._hand_out()
                self._relieve()
            for worker, said in self._pool.wait(self._wait_s(more)):
                self._handle(worker, said)
            self._enforce_deadlines()
            self._tick()
        self._study.commit()
        return reason

    # What ends a search.

    def _reason_to_end(self) -> str | None:
        budget = self._plan.budget
        if self._stop.requested:
            self._drain("suspend")
            return "interrupted"
        if self._disk_is_low():
            self._drain("suspend")
            return "disk nearly full"
        if budget.time is not None and self.elapsed >= budget.time:
            self._drain("finish")
            return "time budget used up"
        if budget.trials is not None and self.progress.ended >= budget.trials and not self._asker.waiting:
            return "trial budget used up"
        return None

    def _disk_is_low(self) -> bool:
        """Once it was, the search pauses: what trains meanwhile may go on filling the disk."""
        now = time.monotonic()
        if self._paused is None and now - self._disk_looked >= DISK_LOOK_S:
            self._disk_looked = now
            free = shutil.disk_usage(self._plan.directory).free
            if free < self._plan.disk_floor:
                floor = self._plan.disk_floor / 2**30
                self._paused = _paused(
                    self._plan, f"{free / 2**30:.1f} GiB are free, fewer than resources.min_free_disk_gb, {floor:g}"
                )
        return self._paused is not None

    def _drain(self, verdict: Verdict) -> None:
        """Ask every running trial to end at its epoch's end."""
        if self._draining == verdict:
            return
        self._draining = verdict
        self._drain_until = time.monotonic() + DRAIN_S
        for worker in self._pool.workers:
            self._answer(worker, dict.fromkeys(worker.jobs, verdict))

    def _enforce_deadlines(self) -> None:
        now = time.monotonic()
        limit = self._plan.budget.per_trial
        for worker in list(self._pool.workers):
            if not worker.jobs:
                continue
            if self._draining and (now >= self._drain_until or self._stop.now):
                self._cut(worker)
            elif limit is not None and now - worker.since > limit * len(worker.jobs):
                self._overdue(worker, limit)

    def _overdue(self, worker: Worker, limit: float) -> None:
        """A trial alone fails; the members of a cohort go on one by one, and the one that hangs fails alone."""
        self._pool.kill(worker)
        numbers = list(worker.jobs)
        if len(numbers) == 1:
            self._finish(self._failed(numbers[0], f"timeout: trained longer than budget.per_trial, {limit:g} s"))
        else:
            for number in numbers:
                self._asker.go_on(self._relief.gone(number))
            self._asker.again([self._running.pop(number) for number in numbers])

    def _cut(self, worker: Worker) -> None:
        """Drain time is over: kill. A suspended trial stays resumable; one that was to finish ends as pruned."""
        self._pool.kill(worker)
        for number in list(worker.jobs):
            if self._draining == "suspend":
                self._running.pop(number)
            else:
                seconds = self._running[number].curve[-1].seconds if self._running[number].curve else 0.0
                self._finish(Outcome(trial=number, state="PRUNED", seconds=seconds))

    def _dismiss_waiting(self, reason: str) -> None:
        """End trials that were asked for ahead and never trained."""
        waiting = self._asker.twins.leave()
        while self._asker.waiting:
            waiting += self._asker.waiting.popleft().trials
        for trial in waiting:
            self._running[trial.number] = trial
            error = None if trial.curve else f"not started: {reason}"
            self._finish(Outcome(trial=trial.number, state="PRUNED", error=error))

    def _n_wanting(self) -> int:
        """Slots that are idle, or will be by the time that a cohort has been asked for; where trials may end at any
        epoch, a cohort for one slot is always ready.

        Idle slots only as long as the sampler draws at random: its first results are worth more than a slot's moment.
        """
        workers = self._pool.workers
        idle = sum(worker.ready for worker in workers)
        if self._plan.lockstep or self.progress.ended < N_STARTUP:
            return idle
        soon = sum(bool(worker.jobs) and self._left_s(worker) < AHEAD_S for worker in workers)
        return idle + soon if self._plan.foreseeable else max(idle + soon, 1)

    def _timing(self) -> set[CostClass]:
        """Classes that workers time now."""
        return {worker.timing for worker in self._pool.workers if worker.timing is not None}

    def _left_s(self, worker: Worker) -> float:
        """Seconds that a worker trains at most, at its cohort's pace."""
        return sum(self._running[number].left_s(self._plan.max_epochs) for number in worker.jobs)

    def _hand_out(self) -> None:
        """Give idle workers a cohort each, or a class to time."""
        for worker in self._pool.workers:
            if not worker.ready:
                continue
            cohort = self._asker.take()
            if cohort is None:
                untimed = self._asker.untimed(self._timing())
                if untimed is None:
                    return
                self._pool.calibrate(worker, *untimed)
                continue
            jobs = []
            for trial in cohort.trials:
                trial.slot, trial.cohort, trial.verdict = worker.slot.name, cohort.name(), None
                self._running[trial.number] = trial
                directory = trial_directory(self._plan.directory, trial.number)
                jobs.append(Job(trial.number, trial.config, directory.absolute()))
            self._pool.train(worker, jobs, together=self._asker.together(cohort))

    def _relieve(self) -> None:
        """Where a slot would idle to the end, let it take half of another's cohort."""
        if not self._asker.through:
            return
        chosen = self._relief.choose(self._pool.workers, self._running, self._asker.apart_pays)
        if chosen is not None:
            worker, leaving = chosen
            self._pool.answer(worker, dict.fromkeys(leaving, "suspend"))

    def _wait_s(self, more: bool) -> float:
        """Not at all while there is more to ask for; not long while a run is being created for a worker that waits."""
        if more:
            return 0.0
        starving = self._asker.waiting and any(worker.ready for worker in self._pool.workers)
        return 0.002 if starving else TICK_S

    # What workers say.

    def _handle(self, worker: Worker, said: Answer | Died) -> None:
        match said:
            case Report(measurements):
                self._measured(worker, measurements)
            case Ended(outcome):
                worker.jobs.pop(outcome.trial, None)
                self._finish(outcome)
            case Suspended(number):
                worker.jobs.pop(number)
                trial = self._running.pop(number)
                self._asker.go_on(self._relief.gone(number, trial))
            case Calibrated(measured, gains):
                self._asker.timed(measured, gains)
            case Idle():
                pass
            case Died(reason):
                self._bury(worker, reason)

    def _measured(self, worker: Worker, measurements: Sequence[Measurement]) -> None:
        started = time.monotonic()
        verdicts: dict[int, Verdict] = {}
        for measurement in measurements:
            trial = self._running.get(measurement.trial)
            if trial is None or (trial.curve and measurement.epoch <= trial.curve[-1].epoch):
                continue  # reported again after a restart
            trial.curve.append(measurement)
            self.progress.measured(measurement)
            if measurement.epoch > trial.reported:
                trial.live.report(measurement.metrics[self._plan.metric], measurement.epoch)
                trial.reported = measurement.epoch
            if trial.verdict is None and trial.live.should_prune():
                trial.verdict = verdicts[trial.number] = "prune"
        if self._draining:
            verdicts = {measurement.trial: self._draining for measurement in measurements}
        self.progress.optuna_s += time.monotonic() - started
        self._answer(worker, verdicts)

    def _answer(self, worker: Worker, verdicts: Mapping[int, Verdict]) -> None:
        if verdicts or self._plan.lockstep:
            self._pool.answer(worker, verdicts)

    def _bury(self, worker: Worker, reason: str) -> None:
        """A worker died: its trials go on from their checkpoints, unless they seem to be what kills workers."""
        for number in worker.jobs:
            trial = self._running[number]
            self._asker.go_on(self._relief.gone(number))
            trial.deaths += 1
            if trial.deaths >= WORKER_DEATHS and len(worker.jobs) == 1:
                hint = "; out of memory is the usual cause" if "SIGKILL" in reason else ""
                self._finish(self._failed(number, f"worker_died: {reason}, {trial.deaths} times{hint}"))
            else:
                self._asker.again([self._running.pop(number)])

    # The end of a trial.

    def _failed(self, number: int, reason: str) -> Outcome:
        trial = self._running[number]
        return Outcome(
            trial=number, state="FAIL", seconds=trial.curve[-1].seconds if trial.curve else 0.0, error=reason
        )

    def _finish(self, outcome: Outcome) -> None:
        """Record on disk first; then the study; then the tracker."""
        trial = self._running.pop(outcome.trial)
        self._asker.go_on(self._relief.gone(trial.number))
        directory = trial_directory(self._plan.directory, trial.number)
        record = TrialRecord(
            search=self._plan.search,
            number=trial.number,
            config=trial.config,
            params=trial.live.params,
            cohort=trial.cohort,
            started=trial.asked,
            worker=trial.slot,
            **judged(outcome, trial.curve, self._plan.metric, directory),
        )
        self._conclude(record)

    def _conclude(self, record: TrialRecord) -> None:
        put_on_record(trial_directory(self._plan.directory, record.number), record)
        for trial in self._asker.twins.ended(record):
            if not self._asker.twins.claim(trial):
                self._asker.again([trial])
        self._tell(record)
        self._sink.finish(record)

    def _repeat_results(self) -> None:
        """Trials that repeat an earlier one's configuration end with its result: the same curve, the same weights."""
        for trial, number in self._asker.twins.ready():
            source = trial_directory(self._plan.directory, number)
            first = read_record(source)
            assert first is not None, f"trial {number} has ended"
            directory = trial_directory(self._plan.directory, trial.number)
            directory.mkdir(parents=True, exist_ok=True)
            if first.weights_sha256 is not None and not (directory / WEIGHTS).exists():
                link_or_copy(source / WEIGHTS, directory / WEIGHTS)
            for measurement in first.curve[trial.reported :]:
                trial.live.report(measurement.metrics[self._plan.metric], measurement.epoch)
            own = {"number": trial.number, "params": trial.live.params, "duplicate_of": number, "train_s": 0.0}
            own |= {"started": trial.asked, "finished": time.time(), "cohort": None, "worker": ""}
            self._conclude(first.model_copy(update=own))

    def _tell(self, record: TrialRecord) -> None:
        started = time.monotonic()
        self._study.tell(record)
        self._study.commit()
        self.progress.optuna_s += time.monotonic() - started
        self.progress.ended_one(record, self._objective)
        if record.state == "FAIL":
            self._give_up_if_hopeless(record)

    def _give_up_if_hopeless(self, last: TrialRecord) -> None:
        failed, ended, allowed = self.progress.failed, self.progress.ended, self._plan.budget.failures
        many = failed >= MANY_FAILURES and failed > ended / 2
        if allowed is not None and failed >= allowed:
            raise SearchError(
                f"{failed} trials failed, and search.budget.failures is {allowed}; the last one with: {last.error}"
            )
        if failed >= HOPELESS and failed == ended:
            raise SearchError(f"all {failed} trials failed, the last one with: {last.error}")
        if allowed is None and many:
            raise SearchError(
                f"{failed} of {ended} trials failed (search.budget.failures sets how many may), the last one with: "
                f"{last.error}"
            )

    # Coming back.

    def _recover(self) -> None:
        """Bring the study in line with the records; take unfinished trials up again under their numbers."""
        trials = self._study.optuna.get_trials(deepcopy=False)
        self._asker.count_first(trials)
        unfinished = []
        for frozen in trials:
            record = read_record(trial_directory(self._plan.directory, frozen.number))
            if record is None and frozen.state == TrialState.WAITING:
                continue  # enqueued and not asked for yet
            self.progress.asked += 1
            if record is None:
                unfinished.append(frozen)
                continue
            self._asker.twins.ended(record)
            if frozen.state.is_finished():
                self.progress.ended_one(record, self._objective)
            else:
                discard_checkpoint(trial_directory(self._plan.directory, record.number))
                self._tell(record)
            self._sink.finish(record)
        self._asker.take_up(unfinished)
        self._study.commit()

    def _tick(self) -> None:
        self.progress.elapsed = self.elapsed
        self.progress.running = sorted(self._running)
        self._on_progress(self.progress)


def put_on_record(directory: Path, record: TrialRecord) -> None:
    """A training's end: its record, and only then is its checkpoint of no more use."""
    write_record(directory, record)
    discard_checkpoint(directory)


def _paused(plan: SearchPlan, what: str) -> str:
    return f"search {plan.search} pauses: {what}; free some space (`automl gc`), and the same command goes on with it"
