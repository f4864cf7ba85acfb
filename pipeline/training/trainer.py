"""The training loop of a cohort: epochs, validation, early stopping, best-epoch weights, checkpoints, verdicts.

It knows `Learner` and nothing of what K is. Each member ends for itself: when it converged, when the search stops it,
or when its numbers stop being finite; the others go on.
"""

from __future__ import annotations

import math
import resource
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol

import torch
from safetensors.torch import save
from torch import Tensor

from pipeline.data.tensors import Development
from pipeline.files import FULL, write_atomic
from pipeline.objective import METRICS, Objective
from pipeline.training.checkpoint import load_checkpoint, save_checkpoint
from pipeline.training.config import TrainSettings, TrialConfig
from pipeline.training.learner import Learner
from pipeline.training.losses import first_non_finite
from pipeline.training.measurement import Measurement, Outcome, State

WEIGHTS = "weights.safetensors"
CHECKPOINT_SHARE = 50
"""A checkpoint may cost at most one part in so many of the training time."""

Verdict = Literal["prune", "finish", "suspend"]
"""What the search says of a trial: not worth going on; stop and count the best epoch so far; stop and stay
resumable."""


class Monitor(Protocol):
    """Who listens to a cohort."""

    def report(self, measurements: Sequence[Measurement]) -> Mapping[int, Verdict]:
        """Take one epoch's measurements; say which trials are to end."""
        ...

    def ended(self, outcome: Outcome) -> None:
        """A trial ended; its weights, where it has any, are on disk."""
        ...

    def suspended(self, trial: int) -> None:
        """A trial stopped where it was; its checkpoint is on disk."""
        ...


@dataclass(frozen=True, slots=True)
class Job:
    """One trial to train."""

    trial: int
    config: TrialConfig
    directory: Path
    """Where its weights and checkpoint go."""


@dataclass(slots=True)
class _Member:
    job: Job
    best: float
    best_epoch: int | None = None
    best_weights: dict[str, Tensor] = field(default_factory=dict)
    epoch: int = 0
    seconds: float = 0.0
    curve: list[Measurement] = field(default_factory=list)


def train_cohort(
    jobs: Sequence[Job], learner: Learner, data: Development, settings: TrainSettings, monitor: Monitor
) -> None:
    """Train every job to its end. Members and jobs are in the same order.

    A job whose directory holds a checkpoint goes on from there; its earlier measurements are reported again first.
    """
    objective = METRICS[settings.metric]
    members = [_resume(job, learner, position, objective) for position, job in enumerate(jobs)]
    earlier = [measurement for member in members for measurement in member.curve]
    if earlier:
        monitor.report(earlier)
    members = _drop(learner, members, {i: _stopped(m, settings) for i, m in enumerate(members)}, monitor, learner.size)
    checkpointed = time.monotonic()
    checkpoint_cost = 0.0
    while members:
        started = time.monotonic()
        measurements, failures = _epoch(learner, members, data, objective, started)
        verdicts = monitor.report(measurements)
        ends: dict[int, tuple[State, str | None] | Literal["suspend"] | None] = {}
        for position, member in enumerate(members):
            verdict = verdicts.get(member.job.trial)
            if position in failures:
                ends[position] = ("FAIL", failures[position])
            elif (stopped := _stopped(member, settings)) is not None or verdict == "finish":
                ends[position] = stopped or ("COMPLETE", None)
            elif verdict == "prune":
                ends[position] = ("PRUNED", None)
            elif verdict == "suspend":
                ends[position] = "suspend"
                _checkpoint(learner, position, member)
                monitor.suspended(member.job.trial)
        members = _drop(learner, members, ends, monitor, len(members))
        now = time.monotonic()
        if members and now - checkpointed >= max(settings.checkpoint_every, CHECKPOINT_SHARE * checkpoint_cost):
            for position, member in enumerate(members):
                _checkpoint(learner, position, member)
            checkpointed = time.monotonic()
            checkpoint_cost = checkpointed - now


def _epoch(
    learner: Learner, members: list[_Member], data: Development, objective: Objective, started: float
) -> tuple[list[Measurement], dict[int, str]]:
    """Train and validate one epoch; the finite measurements, and why the other members failed."""
    train_losses = learner.train_epoch()
    validated = learner.validate(data)
    val_losses, metrics = validated.losses, validated.metrics
    errors = validated.standard_errors.get(objective.metric)
    share = (time.monotonic() - started) / len(members)
    failures = {i: f"validation loss is {float(val_losses[i])}" for i in first_non_finite(val_losses)}
    failures |= {i: f"training loss is {float(train_losses[i])}" for i in first_non_finite(train_losses)}
    measurements = []
    for position, member in enumerate(members):
        member.epoch += 1
        member.seconds += share
        value = float(metrics[objective.metric][position])
        if position not in failures and not math.isfinite(value):
            failures[position] = f"validation {objective.metric} is {value}"
        if position in failures:
            failures[position] = f"non_finite: {failures[position]} in epoch {member.epoch}"
            continue
        if objective.better(value, member.best):
            member.best, member.best_epoch = value, member.epoch
            member.best_weights = learner.weights(position)
        measurement = Measurement(
            trial=member.job.trial,
            epoch=member.epoch,
            train_loss=float(train_losses[position]),
            val_loss=float(val_losses[position]),
            metrics={k: float(v[position]) for k, v in metrics.items() if math.isfinite(float(v[position]))},
            seconds=member.seconds,
            standard_error=None if errors is None else float(errors[position]),
        )
        member.curve.append(measurement)
        measurements.append(measurement)
    return measurements, failures


def _stopped(member: _Member, settings: TrainSettings) -> tuple[State, None] | None:
    """Whether a member ends by itself: out of epochs, or out of patience."""
    patience_over = member.best_epoch is not None and member.epoch - member.best_epoch >= settings.patience
    return ("COMPLETE", None) if member.epoch >= settings.max_epochs or patience_over else None


def _drop(
    learner: Learner,
    members: list[_Member],
    ends: Mapping[int, tuple[State, str | None] | Literal["suspend"] | None],
    monitor: Monitor,
    size: int,
) -> list[_Member]:
    """End the given members, tell the monitor, and go on with the others.

    Their checkpoints stay: only who has put an outcome on record knows that they are needed no more.
    """
    for position, end in ends.items():
        if end is None or end == "suspend":
            continue
        member, (state, error) = members[position], end
        if state == "COMPLETE":
            write_atomic(member.job.directory / WEIGHTS, save(member.best_weights))
        monitor.ended(
            Outcome(
                trial=member.job.trial,
                state=state,
                best_epoch=member.best_epoch,
                n_params=learner.n_params(position),
                seconds=member.seconds,
                peak_mb=peak_mb(),
                error=error,
            )
        )
    kept = [position for position in range(size) if ends.get(position) is None]
    if kept and len(kept) < size:
        learner.keep(kept)
    return [members[position] for position in kept]


def peak_mb() -> float:
    """Peak memory in MiB: of the GPU where one is in use, else of this process."""
    if torch.cuda.is_available() and torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        return torch.cuda.max_memory_allocated() / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10


def _checkpoint(learner: Learner, position: int, member: _Member) -> None:
    tensors = {f"learner.{name}": value for name, value in learner.state(position).items()}
    tensors |= {f"best.{name}": value for name, value in member.best_weights.items()}
    meta = {
        "config": member.job.config.model_dump_json(),
        "best": member.best if math.isfinite(member.best) else None,
        "best_epoch": member.best_epoch,
        "epoch": member.epoch,
        "seconds": member.seconds,
        "curve": [measurement.model_dump(exclude={"trial"}) for measurement in member.curve],
    }
    try:
        save_checkpoint(member.job.directory, tensors, meta)
    except OSError as error:
        if error.errno not in FULL:
            raise
        print(f"trial {member.job.trial} keeps its last checkpoint: {error}")  # into the worker's log


def _resume(job: Job, learner: Learner, position: int, objective: Objective) -> _Member:
    """The member as its checkpoint left it, or at its start."""
    stored = load_checkpoint(job.directory)
    if stored is None or stored[1]["config"] != job.config.model_dump_json():
        return _Member(job, objective.worst)
    tensors, meta = stored
    learner.load_state(
        position, {k.removeprefix("learner."): v for k, v in tensors.items() if k.startswith("learner.")}
    )
    return _Member(
        job,
        best=objective.worst if meta["best"] is None else meta["best"],
        best_epoch=meta["best_epoch"],
        best_weights={k.removeprefix("best."): v for k, v in tensors.items() if k.startswith("best.")},
        epoch=meta["epoch"],
        seconds=meta["seconds"],
        # The number is this job's: a finalist's training may have had another one in an earlier start.
        curve=[Measurement.model_validate(entry | {"trial": job.trial}) for entry in meta["curve"]],
    )
