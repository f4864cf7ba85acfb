"""Prefect's settings, and those of MLflow's server, which must stand in the environment before either is imported.

What MLflow's client needs is set by `pipeline.tracking` itself.
"""

from __future__ import annotations

import json
import os
import warnings
from pathlib import Path

from pipeline.files import holder_of

_ALWAYS = {
    "DO_NOT_TRACK": "1",
    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_SERVER_EPHEMERAL_ENABLED": "true",
    # The embedded server takes up to 20 s to start, which is also Prefect's default limit.
    "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "180",
    "PREFECT_RESULTS_DEFAULT_SERIALIZER": "json",
    "PREFECT_CLI_PROMPT": "false",
}

MLFLOW_UI = "http://127.0.0.1:5000"
"""Where ``automl ui`` and ``automl up`` serve MLflow unless told otherwise."""
MLFLOW_UI_VARIABLE = "AUTOML_MLFLOW_UI"
"""Environment variable with its address, for the links in Prefect's UI; ``automl up`` sets it."""


def configure(prefect_home: Path) -> None:
    """Telemetry off, JSON results, a patient start of the embedded server, Prefect's state under our folder.

    What the user has set in the environment stays.
    """
    for name, value in _ALWAYS.items():
        os.environ.setdefault(name, value)
    os.environ.setdefault("PREFECT_HOME", str(prefect_home))
    api = running_server(prefect_home)
    if api is not None:
        os.environ.setdefault("PREFECT_API_URL", api)
    os.environ.setdefault("PREFECT_LOGGING_LEVEL", "WARNING")
    os.environ.setdefault("PREFECT_LOGGING_SERVER_LEVEL", "ERROR")
    # What a run ends with is said by the command line, in one line. Prefect's database has the traceback.
    os.environ.setdefault("PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL", "CRITICAL")
    warnings.filterwarnings("ignore", category=DeprecationWarning, module=r"(prefect|mlflow|starlette|websockets).*")


def serve_lock(prefect_home: Path) -> Path:
    """Held by the one ``automl serve`` of a workspace."""
    return prefect_home / "serve.lock"


def running_server(prefect_home: Path) -> str | None:
    """The API of the server that ``automl serve`` runs in this workspace; None where none runs."""
    if holder_of(serve_lock(prefect_home)) is None:
        return None
    try:
        return str(json.loads((prefect_home / "server.json").read_bytes())["api"])
    except FileNotFoundError:
        return None  # it is about to start
