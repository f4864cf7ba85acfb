"""MLflow is configured before it is imported, and not imported before it is needed."""

from __future__ import annotations

import os
import subprocess
import sys

from tests.patience import PATIENCE_S


def run(code: str, **environment: str) -> str:
    result = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | environment, capture_output=True, text=True, timeout=PATIENCE_S
    )
    assert result.returncode == 0, result.stderr
    return result.stdout.strip()


def test_ports_fakes_and_packages_do_without_mlflow() -> None:
    code = (
        "import sys\n"
        "for name in ('tracking.base', 'tracking.memory', 'tracking.background', 'registry.memory', 'packaging'):\n"
        "    __import__(f'pipeline.{name}')\n"
        "    print(name, {'mlflow', 'optuna', 'prefect'} & set(sys.modules))"
    )
    lines = run(code).splitlines()
    assert len(lines) == 5
    assert [line for line in lines if not line.endswith("set()")] == []


def test_unpickling_is_off_whatever_the_user_has_set_and_what_else_he_has_set_stays() -> None:
    code = (
        "import os, pipeline.tracking\n"
        "from mlflow.environment_variables import MLFLOW_ALLOW_PICKLE_DESERIALIZATION as unpickling\n"
        "print(unpickling.get(), os.environ['MLFLOW_HTTP_REQUEST_TIMEOUT'])"
    )
    said = run(code, MLFLOW_ALLOW_PICKLE_DESERIALIZATION="true", MLFLOW_HTTP_REQUEST_TIMEOUT="7")
    assert said == "False 7"
