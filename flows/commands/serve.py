"""``automl serve``: Prefect's server and the worker that runs what is scheduled here, until Ctrl-C."""

from __future__ import annotations

import asyncio
import datetime
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from flows import processes
from flows.environment import configure, serve_lock
from flows.workspace import Workspace, find_workspace
from pipeline.errors import InputError, StoreError
from pipeline.files import Locked, exclusive_lock

FLOWS_END_S = 28.0
"""How long interrupted flow runs have to leave true states behind."""
WORKER_END_S = 2.0


def serve(port: int, limit: int) -> int:
    """Run what is scheduled until SIGINT or SIGTERM.

    Args:
        limit: most runs at a time. A tick that is skipped is one: with 1 it would wait instead.

    Raises:
        InputError: another `automl serve` runs in this workspace, or the port is taken.
        StoreError: the server or the worker ended by itself.
    """
    workspace = find_workspace()
    with serving(workspace, port, limit) as children:
        print("Ctrl-C ends it; schedules stay, and an interrupted search goes on at its next run", flush=True)
        wait_for_signal(children)
    return 0


@contextmanager
def serving(workspace: Workspace, port: int, limit: int) -> Iterator[dict[str, subprocess.Popen[bytes]]]:
    """The running server (where ``PREFECT_API_URL`` names none) and worker, by name; ended on the way out."""
    # What a scheduled run logs is for Prefect's UI.
    os.environ.setdefault("PREFECT_LOGGING_LEVEL", "INFO")
    os.environ.setdefault("PREFECT_WORKER_QUERY_SECONDS", "5")
    os.environ.setdefault("PREFECT_SERVER_SERVICES_SCHEDULER_LOOP_SECONDS", "15")
    workspace.create()
    holder = f"pid {os.getpid()} on {socket.gethostname()}"
    with ExitStack() as stack:
        try:
            stack.enter_context(exclusive_lock(serve_lock(workspace.prefect_home), holder))
        except Locked as error:
            raise InputError(f"`automl serve` runs here already: {error.holder}", "stop that one first") from None
        _forget_server(workspace)
        configure(workspace.prefect_home)
        from flows.scheduling.server import check_port, start_server

        processes.adopt_orphans()
        children: dict[str, subprocess.Popen[bytes]] = {}
        if "PREFECT_API_URL" not in os.environ:
            check_port(port)
            server = start_server(workspace, port)
            children["Prefect's server"] = server
            stack.callback(_forget_server, workspace)
            stack.callback(processes.stop, server, 10.0)
            os.environ["PREFECT_API_URL"] = f"http://127.0.0.1:{port}/api"
        # This imports Prefect, which reads the server's address when it is.
        from flows.scheduling.deployments import pool_name

        for line in asyncio.run(_tidy(workspace)):
            print(line, flush=True)
        pool = pool_name(workspace)
        worker = _start_worker(workspace, pool, limit)
        children["Prefect's worker"] = worker
        server_pid = frozenset(c.pid for c in children.values() if c is not worker)
        # Last in, first out: the worker, then the flow runs it leaves behind, then the server that they report to.
        stack.callback(processes.wait_for_all, server_pid, FLOWS_END_S)
        # The worker waits for its flow runs unless it is killed; they are told by its death, and end in time.
        stack.callback(processes.stop, worker, WORKER_END_S)
        address = os.environ["PREFECT_API_URL"].removesuffix("/api")
        print(f"Prefect: {address}", flush=True)
        print(f"worker:  {address}/work-pools/work-pool/{pool}", flush=True)
        yield children


def wait_for_signal(children: dict[str, subprocess.Popen[bytes]]) -> None:
    """Until SIGINT or SIGTERM.

    Raises:
        StoreError: a child ended by itself.
    """
    told = threading.Event()
    with processes.on_signals(lambda _number: told.set()):
        while not told.wait(0.5):
            for name, child in children.items():
                if child.poll() is not None:
                    raise StoreError(f"{name} ended: {processes.ended(child)}; start `automl serve` again")


async def _tidy(workspace: Workspace) -> list[str]:
    from flows.scheduling.client import prefect_client
    from flows.scheduling.deployments import ensure_pool, pool_name, tidy

    async with prefect_client() as client:
        await ensure_pool(client, pool_name(workspace))
        return await tidy(client, workspace, datetime.datetime.now(datetime.UTC))


def _start_worker(workspace: Workspace, pool: str, limit: int) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "prefect", "worker", "start", "--type", "process", "--install-policy", "never"]
    command += ["--pool", pool, "--name", f"automl serve on {socket.gethostname()}"]
    command += ["--limit", str(limit)]
    return processes.start(command, workspace.prefect_home / "worker.log", os.environ)


def _forget_server(workspace: Workspace) -> None:
    (workspace.prefect_home / "server.json").unlink(missing_ok=True)
