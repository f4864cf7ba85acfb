"""``automl ui``: MLflow's server on loopback, as small as it can be, ended with us."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from types import FrameType

from flows.environment import configure
from flows.workspace import find_workspace
from pipeline.errors import InputError
from pipeline.training.worker import die_with_parent

HOST = "127.0.0.1"


def serve_ui(port: int, tracking_uri: str) -> int:
    """Run MLflow's UI until Ctrl-C; its exit code.

    Raises:
        InputError: the port is taken.
    """
    workspace = find_workspace()
    configure(workspace.prefect_home)
    workspace.create()
    uri = workspace.tracking_uri(tracking_uri)
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            raise InputError(f"port {port} on {HOST} is taken", "choose another with --port") from None
    from pipeline.tracking.store import open_store

    open_store(uri)
    command = [sys.executable, "-m", "mlflow", "server", "--host", HOST, "--port", str(port), "--workers", "1"]
    command += ["--backend-store-uri", uri, "--artifacts-destination", str(workspace.artifacts)]
    print(f"MLflow: http://{HOST}:{port} (Ctrl-C ends it)", flush=True)
    server = subprocess.Popen(command, start_new_session=True, preexec_fn=die_with_parent)

    def stop(_number: int, _frame: FrameType | None) -> None:
        os.killpg(server.pid, signal.SIGTERM)

    signal.signal(signal.SIGINT, stop)
    signal.signal(signal.SIGTERM, stop)
    code = server.wait()
    return 0 if code in {0, -signal.SIGTERM} else code
