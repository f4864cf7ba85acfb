"""One run of an experiment: the stages with the stores they write to, opened once and closed whatever happens."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

from flows import stages
from flows.stages import Evaluated, Experiment, Promotion
from flows.stores import Stores, open_stores
from flows.workspace import Workspace
from pipeline.config import ExperimentConfig
from pipeline.data.prepare import Prepared
from pipeline.evaluation.finalists import Evaluation
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


@dataclass(slots=True)
class Run:
    """An experiment with open stores. Each method is one stage."""

    experiment: Experiment
    stores: Stores
    stop: StopRequest
    on_progress: Callable[[Progress], None]
    new: bool = False
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
        with self._timed("search"), stop_on_signals(self.stop):
            return stages.search_stage(self.experiment, prepared, state, self.stores, self.stop, self.on_progress)

    def evaluate(self, prepared: Prepared, state: SearchState) -> Evaluated:
        with self._timed("evaluate"):
            return stages.evaluate_stage(self.experiment, prepared, state, self.stores)

    def promote(
        self, prepared: Prepared, state: SearchState, evaluated: Evaluated, *, asked: bool = False
    ) -> Promotion:
        with self._timed("promote"):
            return stages.promote_stage(self.experiment, state, evaluated, prepared, self.stores, asked=asked)

    def report(self, state: SearchState, progress: Progress, evaluated: Evaluated, promotion: Promotion) -> Path:
        with self._timed("report"):
            return stages.report_stage(self.experiment, state, progress, evaluated, promotion, self.stores)

    @contextmanager
    def _timed(self, stage: str) -> Iterator[None]:
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
    """Open the stores of an experiment; on the way out, wait until MLflow has everything."""
    workspace.create()
    uri = workspace.tracking_uri(config.tracking.uri)
    with open_stores(uri, workspace) as stores:
        yield Run(Experiment(config, root, workspace), stores, StopRequest(), on_progress, new)


def run_plainly(run: Run) -> Result:
    """The stages one after the other, without Prefect."""
    prepared = run.prepare()
    state = run.find_search(prepared)
    progress = run.search(prepared, state)
    evaluated = run.evaluate(prepared, state)
    promotion = run.promote(prepared, state, evaluated)
    report = run.report(state, progress, promotion.evaluated, promotion)
    return Result(state, progress, promotion.evaluated.evaluation, promotion, report)


@contextmanager
def stop_on_signals(stop: StopRequest) -> Iterator[None]:
    """SIGINT and SIGTERM ask the search to stop: the first drains to the end of the epoch, the second stops at once."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def request(number: int, _frame: FrameType | None) -> None:
        stop.request(signal.Signals(number))

    before = {number: signal.signal(number, request) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
