"""``automl ui``: MLflow's server on loopback, as small as it can be, ended with us."""

from __future__ import annotations

import ipaddress
import os
import signal
import socket
import subprocess
import sys
from types import FrameType

from flows.environment import configure
from flows.processes import end_with_parent
from flows.workspace import find_workspace
from pipeline.errors import InputError
from pipeline.text import shown


def serve_ui(port: int, host: str, tracking_uri: str) -> int:
    """Run MLflow's UI until Ctrl-C; its exit code.

    Raises:
        InputError: the port is taken, or others could reach the address: MLflow's server asks nobody who he is.
    """
    if not _is_loopback(host):
        raise InputError(
            f"--host must be a loopback address, because the server has no authentication, but got {shown(host)}",
            "use 127.0.0.1, and reach it through an SSH tunnel or a proxy that authenticates",
        )
    workspace = find_workspace()
    configure(workspace.prefect_home)
    workspace.create()
    uri = workspace.tracking_uri(tracking_uri)
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            raise InputError(f"port {port} on {host} is taken", "choose another with --port") from None
    from pipeline.tracking.store import open_store

    open_store(uri)
    command = [sys.executable, "-m", "mlflow", "server", "--host", host, "--port", str(port), "--workers", "1"]
    command += ["--backend-store-uri", uri, "--artifacts-destination", str(workspace.artifacts)]
    print(f"MLflow: http://{host}:{port} (Ctrl-C ends it)", flush=True)
    server = subprocess.Popen(command, start_new_session=True, preexec_fn=lambda: end_with_parent(signal.SIGKILL))

    def stop(_number: int, _frame: FrameType | None) -> None:
        os.killpg(server.pid, signal.SIGTERM)

    signal.signal(signal.SIGINT, stop)
    signal.signal(signal.SIGTERM, stop)
    code = server.wait()
    return 0 if code in {0, -signal.SIGTERM} else code


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
