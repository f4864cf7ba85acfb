"""Prefect's server on loopback, as ``automl serve`` runs it. Prefect is not imported here: it reads its settings, the
server's address among them, when it is."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

from flows import processes
from flows.workspace import Workspace
from pipeline.errors import InputError, StoreError
from pipeline.files import write_atomic

HOST = "127.0.0.1"
START_S = 180.0
"""Most of a first start is the migration of an empty database: 10 to 20 s, several times that on a busy machine."""


def check_port(port: int) -> None:
    """Raises:
    InputError: the port is taken.
    """
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            raise InputError(f"port {port} on {HOST} is taken", "choose another") from None


def start_server(workspace: Workspace, port: int) -> subprocess.Popen[bytes]:
    """Start Prefect's server and UI on loopback, wait until it answers, and let this workspace know of it.

    Raises:
        StoreError: it ended, or did not answer in time; with the last line that it printed.
    """
    url = f"http://{HOST}:{port}/api"
    environment = os.environ | {
        "PREFECT_SERVER_API_HOST": HOST,
        "PREFECT_SERVER_API_PORT": str(port),
        "PREFECT_API_URL": url,
        "PREFECT_UI_API_URL": url,
        "PREFECT_UI_STATIC_DIRECTORY": str(workspace.prefect_home / "ui"),
        "PREFECT__SERVER_FINAL": "1",
    }
    command = [sys.executable, "-m", "uvicorn", "--factory", "prefect.server.api.server:create_app"]
    command += ["--host", HOST, "--port", str(port)]
    command += ["--log-level", "error", "--lifespan", "on", "--timeout-graceful-shutdown", "2"]
    log = workspace.prefect_home / "server.log"
    server = processes.start(command, log, environment)
    until = time.monotonic() + START_S
    while not answers(f"{url}/health"):
        if server.poll() is not None or time.monotonic() > until:
            processes.stop(server, 5)
            last = log.read_text(errors="replace").strip().splitlines()[-1:]
            raise StoreError(f"Prefect's server did not start: {' '.join(last) or 'it printed nothing'}; see {log}")
        time.sleep(0.2)
    write_atomic(address_file(workspace.prefect_home), json.dumps({"api": url, "pid": server.pid}).encode())
    return server


def answers(url: str) -> bool:
    """Whether a GET is answered with a success."""
    try:
        with urllib.request.urlopen(url, timeout=5):
            return True
    except urllib.error.HTTPError as error:
        error.close()
        return False
    except OSError:
        return False


def address_file(prefect_home: Path) -> Path:
    """Where the server that runs in this workspace is noted."""
    return prefect_home / "server.json"
