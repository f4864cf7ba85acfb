"""``automl stop``: end a running experiment, resumable, whoever started it on this machine."""

from __future__ import annotations

import os
import re
import signal
import socket
import time

from flows.commands.loading import experiment_name
from flows.commands.shown import Shown, lines
from flows.workspace import find_workspace
from pipeline.errors import InputError, StoreError
from pipeline.files import holder_of

PATIENCE_S = 40.0


def stop_experiment(experiment: str) -> Shown:
    """Ask the process that runs the experiment to end, and wait until it has. Its flow run becomes Cancelled.

    Raises:
        InputError: it is not running, or not on this machine.
        StoreError: it does not end.
    """
    name = experiment_name(experiment)
    lock = find_workspace().experiment_lock(name)
    holder = holder_of(lock)
    if holder is None:
        raise InputError(f"{name} is not running", "see `automl schedule --list`")
    match = re.fullmatch(r"pid (\d+) on (.+)", holder)
    if match is None or match[2] != socket.gethostname():
        raise InputError(f"{name} runs elsewhere: {holder}", "stop it there, or cancel it in Prefect's UI")
    os.kill(int(match[1]), signal.SIGTERM)
    until = time.monotonic() + PATIENCE_S
    while holder_of(lock) == holder:
        if time.monotonic() > until:
            raise StoreError(f"{name} has not ended within {PATIENCE_S:g} s: {holder}; kill it, nothing will be lost")
        time.sleep(0.1)
    return lines({"experiment": name, "stopped": holder}, f"{name} is stopped; its next run goes on with it")
