"""The process that trains: it reads jobs from its controller, streams measurements back, and knows no store.

Started as ``python -m pipeline.training.worker <fd>`` with one end of a socket pair. It imports torch and
`pipeline.{data,models,training}` only. It dies with its controller: by the kernel's parent-death signal while it computes,
by end-of-file while it waits.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import traceback
from collections.abc import Mapping, Sequence
from multiprocessing.connection import Connection

import torch

from pipeline.data.development import load_development
from pipeline.data.tensors import Development
from pipeline.training.learner import SoloLearner
from pipeline.training.measurement import Measurement, Outcome
from pipeline.training.messages import Ended, Idle, Report, Setup, Train, Verdicts
from pipeline.training.trainer import Job, Verdict, peak_mb, train_cohort

_PR_SET_PDEATHSIG = 1


class _ControllerMonitor:
    """Sends reports to the controller and takes its verdicts.

    Verdicts are read without waiting, so that a busy controller costs a trial at most the epoch it is in; with `lockstep`
    every report waits for its answer, which makes the search repeatable.
    """

    def __init__(self, connection: Connection, lockstep: bool) -> None:
        self._connection = connection
        self._lockstep = lockstep

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
        self._connection.send(Ended(outcome))


def _train(jobs: Sequence[Job], data: Development, setup: Setup, monitor: _ControllerMonitor) -> None:
    """Train jobs one after the other; what one of them raises is that trial's failure, not the worker's."""
    device = torch.device(setup.device)
    for job in jobs:
        try:
            learner = SoloLearner(job.config, data.train, data.spec, setup.settings, device)
            train_cohort([job], learner, data, setup.settings, monitor)
        except (EOFError, BrokenPipeError, ConnectionResetError):
            raise
        except torch.OutOfMemoryError as error:
            _fail(job, f"out_of_memory: {str(error).splitlines()[0]}", monitor)
        except Exception as error:
            _fail(job, f"{type(error).__name__}: {' '.join(str(error).split())[:500]}", monitor)


def _fail(job: Job, reason: str, monitor: _ControllerMonitor) -> None:
    monitor.ended(
        Outcome(trial=job.trial, state="FAIL", peak_mb=peak_mb(), error=reason, traceback=traceback.format_exc())
    )
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def die_with_parent() -> None:
    """Have the kernel kill this process when the thread that started it ends (Linux prctl(2))."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def main(handle: int, parent: int) -> None:
    """Serve one controller until it closes the connection."""
    die_with_parent()
    if os.getppid() != parent:
        return  # the controller died before the kernel knew whom to signal for
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to the controller, which drains its workers
    connection = Connection(handle)
    try:
        setup = connection.recv()
        assert isinstance(setup, Setup), setup
        torch.set_num_threads(setup.threads)
        torch.use_deterministic_algorithms(setup.settings.deterministic)
        data = load_development(setup.development).to(torch.device(setup.device))
        monitor = _ControllerMonitor(connection, lockstep=setup.settings.deterministic)
        while True:
            connection.send(Idle())
            message = connection.recv()
            while isinstance(message, Verdicts):  # for trials that had ended when it arrived
                message = connection.recv()
            assert isinstance(message, Train), message
            _train(message.jobs, data, setup, monitor)
    except (EOFError, BrokenPipeError, ConnectionResetError):
        return


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
