"""One run of an experiment: the stages with the stores they write to, opened once and closed whatever happens."""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from flows import stages
from flows.processes import on_signals
from flows.stages import Evaluated, Experiment, Outcome, Promotion
from flows.stores import Stores, open_stores
from flows.workspace import Workspace
from pipeline.config import ExperimentConfig
from pipeline.data.prepare import Prepared
from pipeline.errors import Interrupted, SearchError
from pipeline.evaluation.finalists import Evaluation
from pipeline.files import Locked, exclusive_lock
from pipeline.search.directory import SearchState
from pipeline.search.progress import Progress, StopRequest


@dataclass(frozen=True, slots=True)
class Result:
    """What a run ended with."""

    state: SearchState
    progress: Progress
    evaluation: Evaluation
    promotion: Promotion
    report: Path
    outcome: Outcome


@dataclass(slots=True)
class Run:
    """An experiment with open stores. Each method is one stage."""

    experiment: Experiment
    stores: Stores
    stop: StopRequest
    on_progress: Callable[[Progress], None]
    new: bool = False
    promotes: bool = True
    """Whether the winner may become the champion."""
    on_signal: Callable[[signal.Signals], None] | None = None
    """What SIGINT and SIGTERM do during the search, where it is more than asking it to stop."""
    seconds: dict[str, float] = field(default_factory=dict)
    """Wall time of each stage."""

    def prepare(self) -> Prepared:
        with self._timed("prepare"):
            prepared = stages.prepare_stage(self.experiment)
            stages.check_against_data(self.experiment.config, prepared)
            return prepared

    def find_search(self, prepared: Prepared) -> SearchState:
        return stages.find_or_create_search(self.experiment, prepared, new=self.new)

    def search(self, prepared: Prepared, state: SearchState) -> Progress:
        """All that is trained: the trials, and the finalists again where several seeds are wanted."""
        with self._timed("search"), on_signals(self.on_signal or self.stop.request):
            progress = stages.search_stage(self.experiment, prepared, state, self.stores, self.stop, self.on_progress)
            stages.retrain_stage(self.experiment, prepared, state, self.stop)
            return progress

    def evaluate(self, prepared: Prepared, state: SearchState) -> Evaluated:
        with self._timed("evaluate"):
            evaluated = stages.evaluate_stage(self.experiment, prepared, state, self.stores)
            stages.explain_stage(self.experiment, prepared, state, evaluated)
            stages.drift_stage(self.experiment, prepared, state, evaluated.evaluation, self.stores.registry)
            return evaluated

    def promote(
        self, prepared: Prepared, state: SearchState, evaluated: Evaluated, *, asked: bool = False
    ) -> Promotion:
        with self._timed("promote"):
            return stages.promote_stage(
                self.experiment, state, evaluated, prepared, self.stores, asked=asked, promotes=self.promotes
            )

    def report(self, state: SearchState, progress: Progress, evaluated: Evaluated, promotion: Promotion) -> Result:
        with self._timed("report"):
            path = stages.report_stage(self.experiment, state, evaluated, promotion, self.stores)
            directory, config = self.experiment.workspace.search(state.id), self.experiment.config
            outcome = stages.write_outcome(directory, config, evaluated, promotion, promotes=self.promotes)
            return Result(state, progress, evaluated.evaluation, promotion, path, outcome)

    @contextmanager
    def _timed(self, stage: str) -> Iterator[None]:
        if self.stop.requested:
            name = self.experiment.config.name
            raise Interrupted(
                f"{name} is interrupted before its {stage}; the same command goes on with it", self.stop.by
            )
        started = time.monotonic()
        try:
            yield
        finally:
            self.seconds[stage] = self.seconds.get(stage, 0.0) + time.monotonic() - started


@contextmanager
def open_run(
    config: ExperimentConfig,
    root: Path,
    workspace: Workspace,
    on_progress: Callable[[Progress], None],
    *,
    new: bool = False,
) -> Iterator[Run]:
    """Open the stores of an experiment; on the way out, wait until MLflow has everything.

    Raises:
        AlreadyRunning: somebody else runs this experiment.
    """
    workspace.create()
    uri = workspace.tracking_uri(config.tracking.uri)
    with experiment_lock(workspace, config.name), open_stores(uri, workspace) as stores:
        yield Run(Experiment(config, root, workspace), stores, StopRequest(), on_progress, new)


class AlreadyRunning(SearchError):
    """Somebody runs this experiment: `holder`."""

    def __init__(self, experiment: str, holder: str) -> None:
        self.holder = holder
        super().__init__(f"{experiment} is already running: {holder}; wait for it or `automl stop {experiment}`")


@contextmanager
def experiment_lock(workspace: Workspace, experiment: str) -> Iterator[None]:
    """Be the one who runs an experiment, from its data to its report; the lock dies with the process.

    Raises:
        AlreadyRunning: somebody else is; the message says who.
    """
    path = workspace.experiment_lock(experiment)
    try:
        with exclusive_lock(path, f"pid {os.getpid()} on {socket.gethostname()}"):
            yield
    except Locked as error:
        raise AlreadyRunning(experiment, error.holder) from None


def run_plainly(run: Run) -> Result:
    """The stages one after the other, without Prefect."""
    prepared = run.prepare()
    state = run.find_search(prepared)
    progress = run.search(prepared, state)
    evaluated = run.evaluate(prepared, state)
    promotion = run.promote(prepared, state, evaluated)
    return run.report(state, progress, promotion.evaluated, promotion)
