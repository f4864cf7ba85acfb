"""The controller: the only writer to a search's study and tracker. It asks, hands trials to workers, prunes and tells.

A trial's way: asked (journal) -> run created (tracker) -> handed to a worker -> measured epoch by epoch -> record on
disk -> told (journal) -> run finished (tracker). After a kill at any point the next start takes it up where it was.
"""

from __future__ import annotations

import time
import warnings
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from optuna.exceptions import ExperimentalWarning
from optuna.trial import FrozenTrial, Trial, TrialState

from pipeline.config import Budget
from pipeline.errors import SearchError
from pipeline.files import sha256_file
from pipeline.objective import METRICS
from pipeline.records import TrialRecord, read_record, trial_directory, write_record
from pipeline.search.pool import Died, Worker, WorkerPool
from pipeline.search.progress import Progress, StopRequest
from pipeline.search.study import OptunaSuggester, Study
from pipeline.training.config import TrialConfig
from pipeline.training.measurement import Measurement, Outcome
from pipeline.training.messages import Ended, Idle, Report
from pipeline.training.trainer import WEIGHTS, Job, Verdict

TICK_S = 0.25
RUN_CREATION_WAIT_S = 5.0
"""How long a trial waits for its run to exist before it trains all the same (the tracker delivers it later)."""
WORKER_DEATHS = 3
"""A trial whose worker dies so often is taken to be the reason."""
HOPELESS = 5
"""So many failures and nothing else: a setting is wrong, and the search stops."""
DRAIN_S = 60.0
"""How long running trials have to reach the end of their epoch when the search must stop."""

ASKED, CONFIG = "automl.asked", "automl.config"


class TrialSink(Protocol):
    """What the controller needs of a tracker."""

    def begin(self, number: int, family: str, params: Mapping[str, object]) -> Future[str]:
        """Create the trial's run; done when it exists."""
        ...

    def finish(self, record: TrialRecord) -> None:
        """Deliver a trial that is on record."""
        ...


Suggest = Callable[[OptunaSuggester, int], TrialConfig]
"""A search space: from a suggester and the trial's seed to a config."""


@dataclass(frozen=True, slots=True)
class SearchPlan:
    """What a controller searches."""

    search: str
    directory: Path
    metric: str
    budget: Budget
    seed: int
    suggest: Suggest
    enqueue: Sequence[Mapping[str, object]] = ()
    """Parameters of the first trials, in order: defaults and the best of an earlier search."""
    lockstep: bool = False


@dataclass(slots=True)
class _Trial:
    number: int
    config: TrialConfig
    live: Trial
    created: Future[str]
    asked: float
    curve: list[Measurement] = field(default_factory=list)
    verdict: Verdict | None = None
    reported: int = 0
    """Last epoch that the study has."""
    deaths: int = 0
    slot: str = ""


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
        self._waiting: deque[_Trial] = deque()
        self._running: dict[int, _Trial] = {}
        self._draining: Verdict | None = None
        self._drain_until = 0.0
        self.progress = Progress(metric=plan.metric, budget=plan.budget)

    @property
    def elapsed(self) -> float:
        """Seconds of searching, earlier starts included."""
        return time.monotonic() - self._started

    def run(self) -> str:
        """Search until the budget is used up; why it ended, in a few words.

        Raises:
            SearchError: every trial fails.
        """
        self._recover()
        while True:
            reason = self._reason_to_end()
            if reason is not None and not self._running:
                if not self._stop.requested:
                    self._dismiss_waiting(reason)
                break
            if self._draining is None:
                self._ask()
                self._hand_out()
            for worker, said in self._pool.wait(self._wait_s()):
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
        if budget.time is not None and self.elapsed >= budget.time:
            self._drain("finish")
            return "time budget used up"
        if budget.trials is not None and self.progress.ended >= budget.trials and not self._waiting:
            return "trial budget used up"
        return None

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
            elif limit is not None and now - worker.since > limit:
                self._pool.kill(worker)
                for number in worker.jobs:
                    self._finish(self._failed(number, f"timeout: trained longer than budget.per_trial, {limit:g} s"))

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
        while self._waiting:
            trial = self._waiting.popleft()
            self._running[trial.number] = trial
            self._finish(Outcome(trial=trial.number, state="PRUNED", error=f"not started: {reason}"))

    # Asking and handing out.

    def _ask(self) -> None:
        """Keep a trial ready for every slot, so that no worker waits for a suggestion or for MLflow."""
        budget = self._plan.budget
        # In lockstep each suggestion is made with all earlier results, whatever the timing.
        ready = 0 if self._plan.lockstep else len(self._pool.workers)
        wanted = len(self._pool.workers) + ready - len(self._running) - len(self._waiting)
        for _ in range(wanted):
            if budget.trials is not None and self.progress.asked >= budget.trials:
                return
            self._waiting.append(self._ask_one())

    def _ask_one(self) -> _Trial:
        started = time.monotonic()
        study = self._study.optuna
        number = self.progress.asked
        if number < len(self._plan.enqueue) and not study.get_trials(deepcopy=False, states=(TrialState.WAITING,)):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ExperimentalWarning)
                study.enqueue_trial(dict(self._plan.enqueue[number]))
        live = study.ask()
        config = self._suggest(live)
        self._study.commit()
        self.progress.asked += 1
        self.progress.optuna_s += time.monotonic() - started
        created = self._sink.begin(live.number, config.family, live.params)
        return _Trial(live.number, config, live, created, asked=time.time())

    def _suggest(self, live: Trial) -> TrialConfig:
        config = self._plan.suggest(OptunaSuggester(live), self._plan.seed + live.number)
        live.set_user_attr(CONFIG, config.model_dump_json())
        live.set_user_attr(ASKED, time.time())
        return config

    def _hand_out(self) -> None:
        for worker in self._pool.workers:
            if not worker.ready or worker.jobs or not self._waiting:
                continue
            trial = self._waiting[0]
            if not trial.created.done() and time.time() - trial.asked < RUN_CREATION_WAIT_S:
                return
            self._waiting.popleft()
            trial.slot = worker.slot.name
            self._running[trial.number] = trial
            directory = trial_directory(self._plan.directory, trial.number)
            self._pool.train(worker, [Job(trial.number, trial.config, directory.absolute())])

    def _wait_s(self) -> float:
        """Not long while a run is being created for a worker that waits."""
        starving = self._waiting and any(worker.ready and not worker.jobs for worker in self._pool.workers)
        return 0.002 if starving else TICK_S

    # What workers say.

    def _handle(self, worker: Worker, said: Report | Ended | Idle | Died) -> None:
        match said:
            case Report(measurements):
                self._measured(worker, measurements)
            case Ended(outcome):
                worker.jobs.pop(outcome.trial, None)
                self._finish(outcome)
            case Idle():
                for number in list(worker.jobs):  # suspended: no outcome, resumable
                    worker.jobs.pop(number)
                    self._running.pop(number)
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
            trial.deaths += 1
            if trial.deaths >= WORKER_DEATHS:
                hint = "; out of memory is the usual cause" if "SIGKILL" in reason else ""
                self._finish(self._failed(number, f"worker_died: {reason}, {trial.deaths} times{hint}"))
            else:
                self._running.pop(number)
                self._waiting.appendleft(trial)

    # The end of a trial.

    def _failed(self, number: int, reason: str) -> Outcome:
        trial = self._running[number]
        return Outcome(
            trial=number, state="FAIL", seconds=trial.curve[-1].seconds if trial.curve else 0.0, error=reason
        )

    def _finish(self, outcome: Outcome) -> None:
        """Record on disk first; then the study; then the tracker."""
        trial = self._running.pop(outcome.trial)
        directory = trial_directory(self._plan.directory, trial.number)
        weights = directory / WEIGHTS
        values = [m.metrics[self._plan.metric] for m in trial.curve]
        best = self._objective.best_of(values)
        has_value = bool(values) and outcome.state != "FAIL"
        record = TrialRecord(
            search=self._plan.search,
            number=trial.number,
            state=outcome.state,
            config=trial.config,
            params=trial.live.params,
            metric=self._plan.metric,
            objective=best if has_value else None,
            best_epoch=trial.curve[values.index(best)].epoch if has_value else None,
            curve=tuple(trial.curve),
            n_params=outcome.n_params,
            train_s=outcome.seconds,
            peak_mb=outcome.peak_mb,
            error=outcome.error,
            traceback=outcome.traceback,
            started=trial.asked,
            finished=time.time(),
            worker=trial.slot,
            weights_sha256=sha256_file(weights) if outcome.state == "COMPLETE" else None,
        )
        write_record(directory, record)
        self._tell(record)
        self._sink.finish(record)

    def _tell(self, record: TrialRecord) -> None:
        started = time.monotonic()
        match record.state:
            case "COMPLETE":
                self._study.optuna.tell(record.number, record.objective)
            case "PRUNED":
                self._study.optuna.tell(record.number, state=TrialState.PRUNED)
            case "FAIL":
                self._study.optuna.tell(record.number, state=TrialState.FAIL)
        self._study.commit()
        self.progress.optuna_s += time.monotonic() - started
        self.progress.ended_one(record, self._objective)
        if self.progress.failed >= HOPELESS and self.progress.failed == self.progress.ended:
            raise SearchError(f"all {self.progress.failed} trials failed, the last one with: {record.error}")

    # Coming back.

    def _recover(self) -> None:
        """Bring the study in line with the records; take unfinished trials up again under their numbers."""
        for frozen in self._study.optuna.get_trials(deepcopy=False):
            record = read_record(trial_directory(self._plan.directory, frozen.number))
            self.progress.asked += 1
            if record is not None:
                if not frozen.state.is_finished():
                    self._tell(record)
                else:
                    self.progress.ended_one(record, self._objective)
                self._sink.finish(record)
            elif frozen.state == TrialState.RUNNING:
                self._waiting.append(self._take_up(frozen))
            else:
                self.progress.asked -= 1  # enqueued and not asked for yet
        self._study.commit()

    def _take_up(self, frozen: FrozenTrial) -> _Trial:
        """An unfinished trial of an earlier start. Where a power cut tore its description off, what it had chosen stays
        and the rest is suggested again."""
        live = self._study.running(frozen.number)
        if CONFIG in frozen.user_attrs:
            config = TrialConfig.model_validate_json(frozen.user_attrs[CONFIG])
        else:
            config = self._suggest(live)
        created = self._sink.begin(frozen.number, config.family, live.params)
        reported = max(frozen.intermediate_values, default=0)
        asked = frozen.user_attrs.get(ASKED, time.time())
        return _Trial(frozen.number, config, live, created, asked, reported=reported)

    def _tick(self) -> None:
        self.progress.elapsed = self.elapsed
        self.progress.running = sorted(self._running)
        self._on_progress(self.progress)
