"""The process that trains: it reads jobs from its controller, streams measurements back, and knows no store.

Forked by `pipeline.training.fork_server` with one end of a socket pair. It imports torch and
`pipeline.{data,models,training}` only. It ends when its controller hangs up; should it be computing then, with the
server that it was forked from.
"""

from __future__ import annotations

import gc
import sys
import traceback
from collections.abc import Mapping, Sequence
from multiprocessing.connection import Connection

import torch

from pipeline.data.development import load_development
from pipeline.data.tensors import Development
from pipeline.files import FULL
from pipeline.redaction import redacted
from pipeline.training.calibration import measure_gains
from pipeline.training.folded import build_learner
from pipeline.training.measurement import Measurement, Outcome
from pipeline.training.messages import Calibrate, Calibrated, Ended, Idle, Report, Setup, Suspended, Train, Verdicts
from pipeline.training.process import set_up_training
from pipeline.training.trainer import Job, Verdict, peak_mb, train_cohort

_GONE = (EOFError, BrokenPipeError, ConnectionResetError)
"""What speaking to a controller that is gone raises."""


class _ControllerMonitor:
    """Sends reports to the controller and takes its verdicts.

    Verdicts are read without waiting, so that a busy controller costs a trial at most the epoch it is in; with
    `lockstep` every report waits for its answer, which makes the search repeatable.
    """

    def __init__(self, connection: Connection, lockstep: bool) -> None:
        self._connection = connection
        self._lockstep = lockstep
        self.over: set[int] = set()
        """Trials that ended or were suspended."""

    def report(self, measurements: Sequence[Measurement]) -> Mapping[int, Verdict]:
        if not measurements:
            return {}
        self._connection.send(Report(tuple(measurements)))
        verdicts: dict[int, Verdict] = {}
        waiting = self._lockstep
        while waiting or self._connection.poll():
            message = self._connection.recv()
            assert isinstance(message, Verdicts), message
            verdicts.update(message.verdicts)
            waiting = False
        return verdicts

    def ended(self, outcome: Outcome) -> None:
        self.over.add(outcome.trial)
        self._connection.send(Ended(outcome))

    def suspended(self, trial: int) -> None:
        self.over.add(trial)
        self._connection.send(Suspended(trial))


def _train(jobs: Sequence[Job], together: bool, data: Development, setup: Setup, monitor: _ControllerMonitor) -> None:
    """Train a cohort. What goes wrong with it as a whole, memory say, is tried again one by one; what goes wrong with a
    trial alone is that trial's failure, never the worker's."""
    device = torch.device(setup.device)
    if together:
        try:
            stacked = build_learner([job.config for job in jobs], data, setup.settings, device, together=True)
            train_cohort(jobs, stacked, data, setup.settings, monitor)
            return
        except _GONE:
            raise
        except Exception as error:
            _log_error(error)  # the trials go on alone from their checkpoints
            _free_memory()
    for job in jobs:
        if job.trial in monitor.over:
            continue
        try:
            learner = build_learner([job.config], data, setup.settings, device, together=False)
            train_cohort([job], learner, data, setup.settings, monitor)
        except _GONE:
            raise
        except torch.OutOfMemoryError as error:
            _fail(job, f"out_of_memory: {str(error).splitlines()[0]}", monitor)
        except OSError as error:
            reason = "disk_full" if error.errno in FULL else type(error).__name__
            _fail(job, f"{reason}: {error}", monitor)
        except Exception as error:
            _fail(job, f"{type(error).__name__}: {' '.join(str(error).split())[:500]}", monitor)


def _calibrate(asked: Calibrate, data: Development, setup: Setup) -> Calibrated:
    """Time cohorts; where that fails, the trial trains alone and says for itself what is wrong."""
    try:
        gains = measure_gains(asked.config, data, setup.settings, torch.device(setup.device), asked.cost_class.limit)
    except Exception as error:
        _log_error(error)
        _free_memory()
        gains = {1: 1.0}
    return Calibrated(asked.cost_class, gains)


def _fail(job: Job, reason: str, monitor: _ControllerMonitor) -> None:
    monitor.ended(
        Outcome(trial=job.trial, state="FAIL", peak_mb=peak_mb(), error=reason, traceback=traceback.format_exc())
    )
    _free_memory()


def _log_error(error: Exception) -> None:
    """The traceback of what was caught, into the worker's log."""
    print(redacted("".join(traceback.format_exception(error))), end="", file=sys.stderr)


def _free_memory() -> None:
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def serve(connection: Connection) -> None:
    """Serve one controller until it closes the connection."""
    try:
        setup = connection.recv()
        assert isinstance(setup, Setup), setup
        set_up_training(setup.threads)
        if setup.settings.deterministic:  # asking for the default imports torch's compiler: a second, 800 modules
            torch.use_deterministic_algorithms(True)
        data = load_development(setup.development).to(torch.device(setup.device))
        gc.freeze()  # the libraries stay to the end: no collection looks through them again
        while True:
            connection.send(Idle())
            message = connection.recv()
            while isinstance(message, Verdicts):  # for trials that had ended when it arrived
                message = connection.recv()
            if isinstance(message, Calibrate):
                connection.send(_calibrate(message, data, setup))
            else:
                assert isinstance(message, Train), message
                monitor = _ControllerMonitor(connection, setup.settings.deterministic)
                _train(message.jobs, message.together, data, setup, monitor)
    except _GONE:
        return
