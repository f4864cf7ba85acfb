"""The process that workers are forked from: they are as if this one had started them, and none outlives it."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import closing
from multiprocessing.connection import Connection
from pathlib import Path

import psutil
import pytest

from pipeline.search import forks
from pipeline.search.forks import Process
from tests.patience import PATIENCE_S

SERVER = """
import json, os, sys, time
from pipeline.training import fork_server
def serve(connection):
    os.umask(before := os.umask(0))
    seen = dict(os.environ), os.getcwd(), before, sorted(os.sched_getaffinity(0)), os.getpgid(0)
    connection.send(seen)
    print("heard", connection.recv())
    if os.environ.get("HOW") == "raise": raise ValueError("of no use")
    if os.environ.get("HOW") == "hang": time.sleep(300)
fork_server.serve = serve
fork_server.main(int(sys.argv[1]), int(sys.argv[2]))
"""
"""A real server whose workers say what they see, and end as they are told."""
STARTED = """
import sys
from pipeline.search import forks
forks.prestart()
print(forks._shared._process.pid, flush=True)
sys.stdin.read()
"""

FORKING = """
import os
from pipeline.search import forks
forks.prestart()
parents = forks._shared._process.pid
if (child := os.fork()) == 0:
    forks.prestart()
    print(forks._shared._process.pid, flush=True)
    forks._end()
    os._exit(0)
os.waitpid(child, 0)
forks.prestart()
print(parents, forks._shared._process.pid if forks._shared._process.poll() is None else "dead")
"""


@pytest.fixture(autouse=True)
def server(monkeypatch: pytest.MonkeyPatch, fresh_server: None) -> None:
    monkeypatch.setattr(forks, "COMMAND", (sys.executable, "-c", SERVER))


def start(log: Path, **environment: str) -> tuple[Process, Connection]:
    ours, theirs = socket.socketpair()
    with theirs:
        process = forks.fork(theirs, log, environment)
    return process, Connection(ours.detach())


def test_a_worker_is_as_if_this_process_had_started_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Though the server was started before all of this changed."""
    monkeypatch.setenv("LATER", "no")
    monkeypatch.setenv("GONE", "not yet")
    forks.prestart()
    monkeypatch.setenv("LATER", "yes")
    monkeypatch.delenv("GONE")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "secret")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.chdir(tmp_path)
    cores, umask = os.sched_getaffinity(0), os.umask(0o027)
    try:
        os.sched_setaffinity(0, {min(cores)})
        process, connection = start(tmp_path / "log", OMP_NUM_THREADS="3")
    finally:
        os.umask(umask)
        os.sched_setaffinity(0, cores)
    with closing(connection):
        environment, folder, mask, affinity, group = connection.recv()
        connection.send("enough")
        assert process.wait(PATIENCE_S) == 0
    assert environment["LATER"] == "yes"
    assert "GONE" not in environment
    assert environment["OMP_NUM_THREADS"] == "3"
    assert "secret" not in environment.values()
    assert (folder, mask, affinity) == (str(tmp_path), 0o027, [min(cores)])
    assert group == process.pid, "a group of its own, to be killed with what it starts"
    assert (tmp_path / "log").read_text() == "heard enough\n"


def test_how_a_worker_ended_is_known_and_why_is_in_its_log(tmp_path: Path) -> None:
    process, connection = start(tmp_path / "log", HOW="raise")
    with closing(connection):
        connection.recv()
        assert process.poll() is None
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.05)
        connection.send("end")
        assert process.wait(PATIENCE_S) == process.returncode == 1
    assert (tmp_path / "log").read_text().strip().endswith("ValueError: of no use")


def test_workers_are_forked_from_one_server_and_end_apart(tmp_path: Path) -> None:
    one, other = start(tmp_path / "one", HOW="hang"), start(tmp_path / "other")
    with closing(one[1]), closing(other[1]):
        pids = [process.pid for process, _ in (one, other)]
        assert len({psutil.Process(pid).ppid() for pid in pids}) == 1
        assert one[0].kill_group() == -signal.SIGKILL
        assert other[0].poll() is None
        other[1].recv()
        other[1].send("go")
        assert other[0].wait(PATIENCE_S) == 0


def test_with_a_killed_server_go_its_workers_and_the_next_has_another(tmp_path: Path) -> None:
    process, connection = start(tmp_path / "log", HOW="hang")
    with closing(connection):
        connection.recv()
        worker = psutil.Process(process.pid)
        worker.parent().kill()  # type: ignore[union-attr]
        assert process.wait(PATIENCE_S) == -signal.SIGKILL
        assert not psutil.wait_procs([worker], timeout=10)[1]
    assert process.kill_group() == -signal.SIGKILL, "said twice, it is dead once"
    process, connection = start(tmp_path / "log")
    with closing(connection):
        connection.recv()
        connection.send("again")
        assert process.wait(PATIENCE_S) == 0


def test_a_server_that_cannot_start_says_why_in_the_workers_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(forks, "COMMAND", (sys.executable, "-c", "raise SystemExit('no torch here')"))
    process, connection = start(tmp_path / "log")
    with closing(connection):
        assert process.wait(PATIENCE_S) == 1
        assert process.pid is None
    assert "no torch here" in (tmp_path / "log").read_text()


def test_of_a_server_that_cannot_be_executed_nothing_stays_open(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forks, "COMMAND", ("/no/such/python",))
    before = os.listdir("/proc/self/fd")
    with pytest.raises(FileNotFoundError):
        forks.prestart()
    assert os.listdir("/proc/self/fd") == before


def test_a_server_that_hangs_keeps_nobody_waiting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forks, "COMMAND", (sys.executable, "-c", "import time; time.sleep(300)"))
    monkeypatch.setattr(forks, "_EXIT_S", 0.2)
    process, connection = start(tmp_path / "log")
    with closing(connection):
        assert process.kill_group() == -signal.SIGKILL
    assert forks._shared is not None
    assert forks._shared.gone, "the next worker gets another"


def test_a_forked_program_has_a_server_of_its_own() -> None:
    done = subprocess.run([sys.executable, "-c", FORKING], capture_output=True, text=True, timeout=PATIENCE_S)
    own, parents, again = done.stdout.split()
    assert own != parents
    assert again == parents, "which lives on"


@pytest.mark.parametrize("how", ["ends", "is killed"])
@pytest.mark.parametrize("when", ["it imports", "it waits"])
def test_a_server_ends_with_its_program(how: str, when: str) -> None:
    command = [sys.executable, "-c", STARTED]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as program:
        assert program.stdin is not None
        assert program.stdout is not None
        server = psutil.Process(int(program.stdout.readline()))
        until = time.monotonic() + PATIENCE_S
        while when == "it waits" and signal.SIGCHLD not in _handled(server) and time.monotonic() < until:
            time.sleep(0.05)
        if how == "ends":
            program.stdin.close()
            program.wait(PATIENCE_S)
            assert not server.is_running(), "it is gone when the program is"
        else:
            program.kill()
    assert not psutil.wait_procs([server], timeout=PATIENCE_S)[1]


def _handled(process: psutil.Process) -> set[signal.Signals]:
    """Signals that a process has handlers for (proc(5))."""
    status = Path(f"/proc/{process.pid}/status").read_text()
    mask = int(next(line for line in status.splitlines() if line.startswith("SigCgt")).split()[1], 16)
    return {number for number in signal.Signals if mask >> (number - 1) & 1}
