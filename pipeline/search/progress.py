"""What a search says of itself while it runs, and how it is asked to stop."""

from __future__ import annotations

import math
import signal
import threading
from dataclasses import dataclass, field

from pipeline.config import Budget
from pipeline.objective import Objective
from pipeline.records import TrialRecord
from pipeline.training.measurement import Measurement


class StopRequest:
    """Set from a signal handler: the first request drains to the end of the running epochs, the second stops at
    once."""

    def __init__(self) -> None:
        self._first, self._second = threading.Event(), threading.Event()
        self.by = signal.SIGINT
        """The signal of the first request."""

    def request(self, by: signal.Signals = signal.SIGINT) -> None:
        """Ask once (drain) or again (now)."""
        if self._first.is_set():
            self._second.set()
        else:
            self.by = by
            self._first.set()

    @property
    def requested(self) -> bool:
        return self._first.is_set()

    @property
    def now(self) -> bool:
        return self._second.is_set()


@dataclass(slots=True)
class Progress:
    """Counts, best so far, and where the controller's time went. Written by the controller only."""

    metric: str
    budget: Budget
    asked: int = 0
    complete: int = 0
    pruned: int = 0
    failed: int = 0
    running: list[int] = field(default_factory=list)
    elapsed: float = 0.0
    best: float | None = None
    best_trial: int | None = None
    best_by_family: dict[str, float] = field(default_factory=dict)
    ended_by_family: dict[str, int] = field(default_factory=dict)
    last_error: str | None = None
    epochs: int = 0
    train_s: float = 0.0
    optuna_s: float = 0.0

    @property
    def ended(self) -> int:
        """Trials with a final state."""
        return self.complete + self.pruned + self.failed

    @property
    def seconds_left(self) -> float | None:
        """A guess: what is left of the time budget, or of the trials at the rate so far, whichever is less."""
        guesses = []
        if self.budget.time is not None:
            guesses.append(max(0.0, self.budget.time - self.elapsed))
        if self.budget.trials is not None and self.ended:
            guesses.append((self.budget.trials - self.ended) * self.elapsed / self.ended)
        return min(guesses, default=None)

    def measured(self, measurement: Measurement) -> None:
        """Count an epoch."""
        self.epochs += 1

    def ended_one(self, record: TrialRecord, objective: Objective) -> None:
        """Count a trial that ended."""
        match record.state:
            case "COMPLETE":
                self.complete += 1
            case "PRUNED":
                self.pruned += 1
            case "FAIL":
                self.failed += 1
                self.last_error = f"{record.label}: {record.error}"
        self.train_s += record.train_s
        family = record.family
        self.ended_by_family[family] = self.ended_by_family.get(family, 0) + 1
        if record.state != "COMPLETE" or record.objective is None:
            return
        if objective.better(record.objective, self.best_by_family.get(family, math.nan)):
            self.best_by_family[family] = record.objective
        if objective.better(record.objective, math.nan if self.best is None else self.best):
            self.best, self.best_trial = record.objective, record.number
