"""The controller's side of `pipeline.training.fork_server`: one server a process, and what is forked from it.

multiprocessing has a fork server too. Its children first run the program's main module again, a user's script; ours
need nothing of it.
"""

from __future__ import annotations

import atexit
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, Final

COMMAND: Final = (sys.executable, "-m", "pipeline.training.fork_server")
_CREDENTIAL_PREFIXES: Final = ("MLFLOW_", "PREFECT_", "AWS_", "AZURE_", "GOOGLE_")
"""Environment of the stores, which workers never speak to."""
_EXIT_S: Final = 10.0
"""How long a server may take to end, or to fork what is to be killed."""
_SLICE_S: Final = 0.1
"""Another thread may have read the answer that this one waits for."""


def prestart() -> None:
    """Have this process's fork server begin to import, so that workers are there at once when they are wanted."""
    _server()


def fork(connection: socket.socket, log: Path, environment: Mapping[str, str]) -> Process:
    """A worker in a process group of its own; returns before it is forked.

    Args:
        connection: its end of a socket pair.
        log: a file to which is added what it prints.
        environment: is added to ours, less the stores' credentials.
    """
    return _server().fork(connection, log, _inherited() | {"environment": {**_environment(), **environment}})


def thread_limits(n: int) -> dict[str, str]:
    """Environment in which the libraries that compute start so many threads."""
    return {f"{library}_NUM_THREADS": str(n) for library in ("OMP", "MKL", "OPENBLAS")}


class Process:
    """A forked process, with what `subprocess.Popen` offers of it."""

    def __init__(self, server: _ForkServer, log: Path) -> None:
        self._server = server
        self._known_pid: int | None = None
        self.log = log
        self.returncode: int | None = None

    def __repr__(self) -> str:
        return f"Process(pid={self._known_pid}, returncode={self.returncode})"

    def became(self, pid: int) -> None:
        self._known_pid = pid

    @property
    def pid(self) -> int | None:
        """Waits until the server has forked it; None where it ended without."""
        self._come_to_be(None)
        return self._known_pid

    def poll(self) -> int | None:
        """Its exit code, negative for a signal; None while it lives."""
        self._server.listen(lambda: self.returncode is not None, 0.0)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Its exit code.

        Raises:
            subprocess.TimeoutExpired: it lives on.
        """
        self._server.listen(lambda: self.returncode is not None, timeout)
        if self.returncode is None:
            raise subprocess.TimeoutExpired("a worker", timeout or 0.0)
        return self.returncode

    def kill_group(self) -> int:
        """SIGKILL it and all that it started and that stayed in its process group; its exit code."""
        if not self._come_to_be(_EXIT_S):
            self._server.end()  # it hangs
        if self._known_pid is not None:
            with suppress(ProcessLookupError):
                os.killpg(self._known_pid, signal.SIGKILL)
        return self.wait()

    def _come_to_be(self, timeout: float | None) -> bool:
        def known() -> bool:
            return self._known_pid is not None or self.returncode is not None

        self._server.listen(known, timeout)
        return known()


class _ForkServer:
    """A running server. Threads may share it."""

    def __init__(self) -> None:
        self.owner = os.getpid()
        self.gone = False
        self._lock = threading.Lock()
        self._asked: deque[Process] = deque()
        """Processes whose pid is not known yet, in the order of asking."""
        self._alive: dict[int, Process] = {}
        self._last_words = b""
        ours, theirs = socket.socketpair()
        with theirs, ExitStack() as unstarted:
            self._connection = unstarted.enter_context(Connection(ours.detach()))
            self._output = unstarted.enter_context(tempfile.TemporaryFile())
            self._process = subprocess.Popen(
                [*COMMAND, str(theirs.fileno()), str(os.getpid())],
                stdin=subprocess.DEVNULL,
                stdout=self._output,
                stderr=subprocess.STDOUT,
                pass_fds=[theirs.fileno()],
                # torch reads these once; how many threads a worker has, it sets itself.
                env=_environment() | thread_limits(1),
                start_new_session=True,
            )
            unstarted.pop_all()  # they live as long as it does

    def fork(self, connection: socket.socket, log: Path, inherited: dict[str, Any]) -> Process:
        process = Process(self, log)
        with self._lock, log.open("ab") as file:
            self._asked.append(process)
            try:
                with socket.socket(fileno=os.dup(self._connection.fileno())) as speaking:
                    socket.send_fds(speaking, [b"\0"], [connection.fileno(), file.fileno()])
                self._connection.send(inherited)
            except OSError:
                self._bury()
        return process

    def listen(self, until: Callable[[], bool], timeout: float | None) -> None:
        """Take in what the server says until something is true, for `timeout` seconds at most."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            with self._lock:
                self._take_in()
            left = _SLICE_S if deadline is None else min(_SLICE_S, deadline - time.monotonic())
            if until() or left <= 0:
                return
            with suppress(OSError):  # another thread has just buried it
                wait([self._connection], left)

    def end(self) -> None:
        """Kill it; what it forked goes with it."""
        with self._lock:
            if not self.gone:
                self._process.kill()
                self._bury()

    def _take_in(self) -> None:
        try:
            while not self.gone and self._connection.poll():
                pid, code = self._connection.recv()
                if code is None:
                    process = self._alive[pid] = self._asked.popleft()
                    process.became(pid)
                else:
                    self._alive.pop(pid).returncode = code
        except (EOFError, OSError):
            self._bury()

    def _bury(self) -> None:
        """It is dead, and so is what it forked: the kernel sees to that."""
        if not self.gone:
            self.gone = True
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(_EXIT_S)
            self._process.kill()
            self._process.wait()
            self._connection.close()
            self._output.seek(0)
            self._last_words = self._output.read()
            self._output.close()
        for process in self._asked:  # torch could not be imported, say
            with process.log.open("ab") as log:
                log.write(self._last_words)
            process.returncode = self._process.returncode
        for process in self._alive.values():
            process.returncode = -signal.SIGKILL
        self._asked.clear()
        self._alive.clear()


_shared: _ForkServer | None = None
_starting = threading.Lock()


def _server() -> _ForkServer:
    """This process's server; a fresh one where it died, and in a process that was forked from ours."""
    global _shared
    with _starting:
        if _shared is None or _shared.gone or _shared.owner != os.getpid():
            _shared = _ForkServer()
        return _shared


@atexit.register
def _end() -> None:
    if _shared is not None and _shared.owner == os.getpid():
        _shared.end()


def _inherited() -> dict[str, Any]:
    """What a child of this process would inherit, and one of the server's would not: it may have changed since."""
    status = Path("/proc/self/status").read_text()
    umask = next(line for line in status.splitlines() if line.startswith("Umask"))  # asking the kernel would set it
    return {"folder": os.getcwd(), "umask": int(umask.split()[1], 8), "affinity": os.sched_getaffinity(0)}


def _environment() -> dict[str, str]:
    """Of a worker: ours, less the stores' credentials."""
    return {name: value for name, value in os.environ.items() if not name.startswith(_CREDENTIAL_PREFIXES)}
