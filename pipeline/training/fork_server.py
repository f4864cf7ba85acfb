"""The process that workers are forked from: it has imported what they need, once for all of them.

Started as ``python -m pipeline.training.fork_server <fd> <parent>`` with one end of a socket pair. torch takes seconds
to import; a fork of a process that has it trains after milliseconds, and shares its memory. Nothing runs here but this
loop: a process that had computed, or spoken to a GPU, could not be forked safely. It ends with its controller, and all
that it forked with it.

Asked with a worker's socket and its log's file as descriptors, and then what it would have inherited, a dictionary, it
answers ``(pid, None)``; once a worker has ended, ``(pid, exit code)``, negative for a signal.
"""

from __future__ import annotations

import ctypes
import gc
import os
import signal
import socket
import sys
from collections.abc import Mapping
from contextlib import suppress
from multiprocessing.connection import Connection, wait
from typing import Any, Final, NoReturn

from pipeline.redaction import redact_logs, redact_tracebacks
from pipeline.training.worker import serve

_PR_SET_PDEATHSIG: Final = 1
_LOOK_S: Final = 1.0
"""How often it looks whether its controller lives, should somebody else hold the connection open."""


def main(handle: int, parent: int) -> None:
    """Fork a worker whenever asked to, until the controller is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to the controller, which drains its workers
    redact_logs()
    redact_tracebacks()
    woken, waking = os.pipe()
    os.set_blocking(woken, False)
    os.set_blocking(waking, False)
    signal.set_wakeup_fd(waking, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)  # only a signal with a handler wakes
    gc.freeze()  # a collection in a worker would copy the pages that all share
    controller = Connection(handle)
    with suppress(EOFError, BrokenPipeError, ConnectionResetError):
        while os.getppid() == parent:
            ready = wait([controller, woken], _LOOK_S)
            if controller in ready:
                _fork(controller, own=(woken, waking))
            if woken in ready:
                os.read(woken, 4096)
            _tell_exits(controller)


def _fork(controller: Connection, own: tuple[int, int]) -> None:
    with socket.socket(fileno=os.dup(controller.fileno())) as speaking:
        mark, descriptors, _, _ = socket.recv_fds(speaking, 1, 2)
    if not mark:
        raise EOFError
    connection, log = descriptors
    inherited = controller.recv()
    server, pid = os.getpid(), os.fork()
    if pid == 0:
        for descriptor in (controller.fileno(), *own):
            os.close(descriptor)
        _be_worker(connection, log, inherited, server)
    with suppress(OSError):  # both do it, so that the group is there for both
        os.setpgid(pid, pid)
    os.close(connection)
    os.close(log)
    controller.send((pid, None))


def _be_worker(connection: int, log: int, inherited: Mapping[str, Any], server: int) -> NoReturn:
    """Ends this process without Python's shutdown, which would end what belongs to the server."""
    code = 1
    try:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        with suppress(OSError):
            os.setpgid(0, 0)
        os.dup2(log, sys.stdout.fileno())
        os.dup2(log, sys.stderr.fileno())
        os.close(log)
        os.environ.clear()
        os.environ.update(inherited["environment"])
        os.umask(inherited["umask"])
        os.sched_setaffinity(0, inherited["affinity"])
        os.chdir(inherited["folder"])
        _die_with(server)
        serve(Connection(connection))
        code = 0
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        with suppress(OSError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def _die_with(server: int) -> None:
    """Have the kernel kill this process when the server is gone (prctl(2))."""
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != server:
        os._exit(1)  # it went before the kernel knew whom to signal for


def _tell_exits(controller: Connection) -> None:
    with suppress(ChildProcessError):  # there is none left
        while (ended := os.waitpid(-1, os.WNOHANG))[0]:
            pid, status = ended
            controller.send((pid, os.waitstatus_to_exitcode(status)))


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
