"""A trial between being asked for and being told, and the cohort it trains in."""

from __future__ import annotations

import math
import time
from concurrent.futures import Future
from dataclasses import dataclass, field

from optuna.trial import Trial

from pipeline.training.calibration import CostClass
from pipeline.training.config import TrialConfig
from pipeline.training.measurement import Measurement
from pipeline.training.trainer import Verdict


@dataclass(slots=True, eq=False)
class LiveTrial:
    """One unfinished trial."""

    number: int
    config: TrialConfig
    live: Trial
    created: Future[str]
    """Done when the tracker has its run."""
    asked: float
    """Unix seconds."""
    begun: float = field(default_factory=time.monotonic)
    """Monotonic time at which its run was asked for."""
    curve: list[Measurement] = field(default_factory=list)
    verdict: Verdict | None = None
    """What its present worker was told."""
    reported: int = 0
    """Last epoch that the study has."""
    deaths: int = 0
    slot: str = ""
    cohort: str | None = None
    """The company it trains in, for the record; None alone."""

    def left_s(self, max_epochs: int) -> float:
        """Its fair share of the seconds that it still trains at most, at its pace so far; infinite before its first
        epoch."""
        if not self.curve:
            return math.inf
        last = self.curve[-1]
        return last.seconds / last.epoch * (max_epochs - last.epoch)


@dataclass(slots=True, eq=False)
class Cohort:
    """Trials of one shape class that train, or will train, together. The first one leads: it was asked for freely."""

    trials: list[LiveTrial]
    wanted: int | CostClass
    """How many it is to have; or the class that must be timed before that is known."""

    @property
    def untimed(self) -> CostClass | None:
        return self.wanted if isinstance(self.wanted, CostClass) else None

    @property
    def full(self) -> bool:
        return isinstance(self.wanted, int) and len(self.trials) >= self.wanted

    def name(self) -> str | None:
        """``#012 and 15 more``."""
        return f"#{self.trials[0].number:03d} and {len(self.trials) - 1} more" if len(self.trials) > 1 else None
