"""``automl up``: what a person needs in a browser, on loopback: Prefect with its worker, and MLflow; until Ctrl-C."""

from __future__ import annotations

import os
import sys
import time
from contextlib import ExitStack

from flows import processes
from flows.commands.serve import serving, wait_for_signal
from flows.environment import MLFLOW_UI_VARIABLE
from flows.workspace import find_workspace
from pipeline.errors import StoreError

MLFLOW_START_S = 120.0


def bring_up(prefect_port: int, mlflow_port: int, limit: int, tracking_uri: str) -> int:
    """Start Prefect's server and worker and MLflow's UI, print their addresses, and wait for Ctrl-C.

    Raises:
        InputError: a port is taken, or `automl serve` runs in this workspace.
        StoreError: a server did not start, or ended by itself.
    """
    workspace = find_workspace()
    uri = workspace.tracking_uri(tracking_uri)
    from flows.scheduling.server import HOST, answers, check_port

    check_port(mlflow_port)
    os.environ[MLFLOW_UI_VARIABLE] = f"http://{HOST}:{mlflow_port}"
    with ExitStack() as stack:
        children = stack.enter_context(serving(workspace, prefect_port, limit))
        from pipeline.tracking.store import open_store

        open_store(uri)
        command = [
            sys.executable,
            "-m",
            "mlflow",
            "server",
            "--host",
            HOST,
            "--port",
            str(mlflow_port),
            "--workers",
            "1",
        ]
        command += ["--backend-store-uri", uri, "--artifacts-destination", str(workspace.artifacts)]
        log = workspace.state / "mlflow-server.log"
        mlflow = children["MLflow's server"] = processes.start(command, log, os.environ)
        stack.callback(processes.stop, mlflow, 10.0)
        until = time.monotonic() + MLFLOW_START_S
        while not answers(f"http://{HOST}:{mlflow_port}/health"):
            if mlflow.poll() is not None or time.monotonic() > until:
                raise StoreError(f"MLflow's server did not start; see {log}")
            time.sleep(0.2)
        print(f"MLflow:  http://{HOST}:{mlflow_port}", flush=True)
        print("Ctrl-C ends all of them", flush=True)
        wait_for_signal(children)
    return 0
