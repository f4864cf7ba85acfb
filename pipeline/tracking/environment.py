"""MLflow's process-wide settings, made before MLflow is imported: importing this package makes them."""

from __future__ import annotations

import os
from typing import Final

ENFORCED: Final = {
    "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",  # MLflow's default unpickles whatever a model directory holds
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",  # "View run" lines would break JSON output
}
DEFAULTS: Final = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    # MLflow repeats POSTs whose answer was lost, and they are not idempotent: two runs, two model versions. We repeat
    # ourselves, after looking whether the first attempt got through.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",  # seconds; MLflow's own is 120
    "MLFLOW_LOGGING_LEVEL": "WARNING",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
}


def configure() -> None:
    """Set what must hold, and what the user has not set otherwise."""
    os.environ.update(ENFORCED)
    for name, value in DEFAULTS.items():
        os.environ.setdefault(name, value)
