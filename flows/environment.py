"""Prefect's settings, and those of MLflow's server, which must stand in the environment before either is imported.

What MLflow's client needs is set by `pipeline.tracking` itself.
"""

from __future__ import annotations

import os
import warnings
from pathlib import Path

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


def configure(prefect_home: Path) -> None:
    """Telemetry off, JSON results, a patient start of the embedded server, Prefect's state under our folder.

    What the user has set in the environment stays.
    """
    for name, value in _ALWAYS.items():
        os.environ.setdefault(name, value)
    os.environ.setdefault("PREFECT_HOME", str(prefect_home))
    os.environ.setdefault("PREFECT_LOGGING_LEVEL", "WARNING")
    os.environ.setdefault("PREFECT_LOGGING_SERVER_LEVEL", "ERROR")
    # What a run ends with is said by the command line, in one line. Prefect's database has the traceback.
    os.environ.setdefault("PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL", "CRITICAL")
    warnings.filterwarnings("ignore", category=DeprecationWarning, module=r"(prefect|mlflow|starlette|websockets).*")
