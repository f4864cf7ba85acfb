"""What a controller and its workers say to each other."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pipeline.training.calibration import CostClass
from pipeline.training.config import TrainSettings, TrialConfig
from pipeline.training.measurement import Measurement, Outcome
from pipeline.training.trainer import Job, Verdict


@dataclass(frozen=True, slots=True)
class Setup:
    """First message to a worker: the data it trains on, and how."""

    development: Path
    settings: TrainSettings
    device: str
    threads: int


@dataclass(frozen=True, slots=True)
class Train:
    """Train these jobs, then say `Idle`."""

    jobs: tuple[Job, ...]
    together: bool
    """As one computation: several jobs always are, the folds of one where that pays."""


@dataclass(frozen=True, slots=True)
class Calibrate:
    """Time cohorts of this trial's class up to the class's limit, then say `Calibrated` and `Idle`."""

    config: TrialConfig
    cost_class: CostClass


@dataclass(frozen=True, slots=True)
class Calibrated:
    """How much faster than alone trials of a class train together, by cohort size."""

    cost_class: CostClass
    gains: Mapping[int, float]


@dataclass(frozen=True, slots=True)
class Verdicts:
    """An answer to a `Report`: trials that are to end at their next epoch's end."""

    verdicts: Mapping[int, Verdict]


@dataclass(frozen=True, slots=True)
class Report:
    """One epoch of a cohort."""

    measurements: tuple[Measurement, ...]


@dataclass(frozen=True, slots=True)
class Ended:
    """A trial's end."""

    outcome: Outcome


@dataclass(frozen=True, slots=True)
class Suspended:
    """A trial stopped where it was; its checkpoint is on disk."""

    trial: int


@dataclass(frozen=True, slots=True)
class Idle:
    """Ready for jobs: after set-up, and whenever a `Train` is through."""


Message = Setup | Train | Calibrate | Verdicts
Answer = Report | Ended | Suspended | Calibrated | Idle
