"""Processes that end together: the kernel tells a child that its parent is gone, however it went (Linux)."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType

_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36


def end_with_parent(number: signal.Signals) -> None:
    """Have the kernel send this process `number` when the thread that started it ends (prctl(2))."""
    _prctl(_PR_SET_PDEATHSIG, number)


def adopt_orphans() -> None:
    """Become the parent of grandchildren whose parent dies, so that `wait_for_all` sees them (prctl(2))."""
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def _prctl(option: int, value: int) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0)


def start(command: Sequence[str], log: Path, environment: Mapping[str, str]) -> subprocess.Popen[bytes]:
    """A child in a session of its own, which Ctrl-C does not reach and which ends when we do. What it prints goes to
    `log`."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as file:
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            env=dict(environment),
            start_new_session=True,
            preexec_fn=lambda: end_with_parent(signal.SIGTERM),
        )


def stop(process: subprocess.Popen[bytes], patience: float) -> None:
    """SIGTERM, and SIGKILL after `patience` seconds."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(timeout=patience)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def ended(process: subprocess.Popen[bytes]) -> str:
    """How a process ended: ``killed by signal 9 (SIGKILL)`` or ``exit code 1``."""
    code = process.returncode
    return f"killed by signal {-code} ({signal.Signals(-code).name})" if code < 0 else f"exit code {code}"


def wait_for_all(keep: frozenset[int], patience: float) -> None:
    """Wait for every child but `keep`, adopted ones included; after `patience` seconds they are killed."""
    until = time.monotonic() + patience
    while rest := _children() - keep:
        if time.monotonic() >= until:
            for pid in rest:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        for pid in rest:
            with suppress(ChildProcessError):
                os.waitpid(pid, os.WNOHANG)
        time.sleep(0.05)


def _children() -> frozenset[int]:
    paths = Path("/proc/self/task").glob("*/children")
    return frozenset(int(pid) for path in paths for pid in path.read_text().split())


@contextmanager
def on_signals(handle: Callable[[signal.Signals], None]) -> Iterator[None]:
    """SIGINT and SIGTERM call `handle`. Only in the main thread: elsewhere nothing changes."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def handler(number: int, _frame: FrameType | None) -> None:
        handle(signal.Signals(number))

    before = {number: signal.signal(number, handler) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)
