"""From the controller to the tracker: runs in the background, model packages where the experiment wants them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import Future
from pathlib import Path

from pipeline.objective import METRICS
from pipeline.records import TrialRecord
from pipeline.tracking.background import BackgroundTracker


class TrackerSink:
    """Delivers a search's trials.

    Args:
        package: builds a completed trial's model package and returns its folder.
        models: ``all``, ``best`` (none here: finalists are logged by the evaluation) or ``top-N``.
    """

    def __init__(
        self, tracker: BackgroundTracker, search: str, package: Callable[[TrialRecord], Path], models: str
    ) -> None:
        self._tracker, self._search, self._package = tracker, search, package
        self._limit = {"all": None, "best": 0}.get(models) if not models.startswith("top-") else int(models[4:])
        self._scores: list[float] = []

    def begin(self, number: int, family: str, params: Mapping[str, object]) -> Future[str]:
        return self._tracker.start_trial(self._search, number, family, params)

    def finish(self, record: TrialRecord) -> None:
        wanted = record.state == "COMPLETE" and self._wanted(record)
        self._tracker.finish_trial(record, (lambda: self._package(record)) if wanted else None)

    def _wanted(self, record: TrialRecord) -> bool:
        """Whether this trial is among the best so far that are to be logged."""
        if record.objective is None:
            return False
        self._scores.append(METRICS[record.metric].rank_key(record.objective))
        if self._limit is None:
            return True
        return sorted(self._scores).index(self._scores[-1]) < self._limit
