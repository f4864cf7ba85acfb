"""A project with ``automl serve``: a real Prefect server, a real worker, and Prefect's API as its UI speaks to it."""

from __future__ import annotations

import asyncio
import datetime
import json
import os
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import psutil

from flows.workspace import Workspace
from tests.flows.project import COMMAND, Project
from tests.helpers import workers_of
from tests.patience import PATIENCE_S

ENDED = ["COMPLETED", "FAILED", "CRASHED", "CANCELLED"]
"""Types of final states."""
QUICK = {
    "PREFECT_SERVER_SERVICES_SCHEDULER_LOOP_SECONDS": "3",
    "PREFECT_SERVER_SERVICES_SCHEDULER_RECENT_DEPLOYMENTS_LOOP_SECONDS": "1",
    "PREFECT_SERVER_SERVICES_SCHEDULER_MIN_SCHEDULED_TIME": "PT20S",
    "PREFECT_SERVER_SERVICES_SCHEDULER_MAX_RUNS": "4",
    "PREFECT_WORKER_QUERY_SECONDS": "1",
    "PREFECT_WORKER_PREFETCH_SECONDS": "2",
}
"""Prefect's own loops compressed in time, and few runs planned ahead."""


class Refused(Exception):
    """What the API says to a request that it refuses."""


@dataclass(slots=True)
class Served:
    """A running ``automl serve``."""

    project: Project
    process: subprocess.Popen[str]
    port: int

    def api(self, path: str, body: Any = None, method: str = "POST") -> Any:
        data = None if body is None else json.dumps(body).encode()
        url = f"http://127.0.0.1:{self.port}/api/{path}"
        request = urllib.request.Request(url, data, {"Content-Type": "application/json"}, method=method)
        for _ in range(10):
            try:
                with urllib.request.urlopen(request, timeout=PATIENCE_S) as answer:
                    text = answer.read()
                return json.loads(text) if text else None
            except urllib.error.HTTPError as error:
                with error:
                    if error.code != 503:
                        raise Refused(error.read().decode()) from None
                time.sleep(1)  # its database is busy; Prefect's own client tries again too
        raise TimeoutError(path)

    def deployment(self, name: str) -> Any:
        return self.api(f"deployments/name/automl/{name}", method="GET")

    def start(self, name: str, **parameters: Any) -> str:
        """Run a deployment now, as a click in the UI does; the flow run's id."""
        run = self.api(
            f"deployments/{self.deployment(name)['id']}/create_flow_run",
            {"parameters": parameters, "state": {"type": "SCHEDULED"}},
        )
        return str(run["id"])

    def schedule_at(self, name: str, when: datetime.datetime) -> str:
        """A tick of a deployment at any time; the flow run's id."""
        state = {"type": "SCHEDULED", "state_details": {"scheduled_time": when.isoformat()}}
        return str(self.api(f"deployments/{self.deployment(name)['id']}/create_flow_run", {"state": state})["id"])

    def change_parameters(self, name: str, **parameters: Any) -> None:
        """Change a deployment's parameters as its page in the UI does."""
        deployment = self.deployment(name)
        body = {"parameters": deployment["parameters"] | parameters}
        self.api(f"deployments/{deployment['id']}", body, method="PATCH")

    def state(self, run: str) -> tuple[str, str, str]:
        """Type, name and message of a flow run's state."""
        state = self.api(f"flow_runs/{run}", method="GET")["state"]
        return state["type"], state["name"], state["message"] or ""

    def end(self, run: str) -> tuple[str, str, str]:
        """The final state of a flow run, when it has one."""
        wait_for(lambda: self.state(run)[0] in ENDED)
        return self.state(run)

    def runs(self, name: str) -> list[tuple[str, str]]:
        """What a deployment's ended runs did (their tag, or the name of their state) and its line, oldest first."""
        return [
            (next(iter({"promoted", "finished", "skipped"} & set(run["tags"])), run["state"]["name"]),
             run["state"]["message"] or "")
            for run in self._runs(name, ENDED)
        ]  # fmt: skip

    def unfinished(self, name: str) -> list[str]:
        """Runs of a deployment that have started."""
        return [run["name"] for run in self._runs(name, ["PENDING", "RUNNING", "CANCELLING"])]

    def late(self, name: str) -> list[str]:
        """Ticks of a deployment that have passed, and of which nothing has started."""
        now = datetime.datetime.now(datetime.UTC).isoformat()
        return [run["name"] for run in self._runs(name, ["SCHEDULED"]) if run["expected_start_time"] < now]

    def _runs(self, name: str, states: list[str]) -> Any:
        of_deployment = {"name": {"any_": [name]}}
        in_states = {"state": {"type": {"any_": states}}}
        body = {"sort": "EXPECTED_START_TIME_ASC", "deployments": of_deployment, "flow_runs": in_states}
        return self.api("flow_runs/filter", body)

    def tidy(self, now: datetime.datetime) -> list[str]:
        """What ``automl serve`` does before anything runs."""
        from prefect.client.orchestration import PrefectClient

        from flows.scheduling.deployments import tidy

        async def go() -> list[str]:
            async with PrefectClient(f"http://127.0.0.1:{self.port}/api") as client:
                return await tidy(client, Workspace(self.project.state), now)

        return asyncio.run(go())

    def trainers(self) -> list[psutil.Process]:
        """The worker processes that train."""
        return workers_of(self.process.pid)

    def child(self, word: str) -> psutil.Process:
        """The child of ``automl serve`` with this word in its command line."""
        [found] = [c for c in psutil.Process(self.process.pid).children() if word in _command(c)]
        return found

    def stop(self) -> int:
        """Ctrl-C, and how it ends."""
        self.process.send_signal(signal.SIGINT)
        self.process.communicate(timeout=PATIENCE_S)
        return self.process.returncode


@contextmanager
def serving(project: Project, *, compressed: bool = True) -> Iterator[Served]:
    """``automl serve`` on a free port, until the end of the block.

    Args:
        compressed: Prefect's loops turn faster than they do for users.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    process = subprocess.Popen(
        [*COMMAND, "serve", "--port", str(port), "--limit", "2"], cwd=project.folder,
        env=project.environment() | (QUICK if compressed else {}),
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert process.stdout is not None
        while (line := process.stdout.readline()) and "Ctrl-C" not in line:
            pass
        assert line, process.communicate()[1]
        yield Served(project, process, port)
    finally:
        tree = psutil.Process(process.pid).children(recursive=True) if process.poll() is None else []
        for child in [*tree, process]:
            with suppress(ProcessLookupError):
                os.kill(child.pid, signal.SIGKILL)
        process.communicate()


def wait_for(condition: Callable[[], object], seconds: float = PATIENCE_S) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, f"not within {seconds:g} s"
        time.sleep(0.4)  # each question costs the server some time of its own


def _command(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.NoSuchProcess:
        return ""
