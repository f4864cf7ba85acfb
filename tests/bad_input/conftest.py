"""The user who meets bad inputs."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.bad_input.cases import User


@pytest.fixture
def user(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> User:
    folder = tmp_path / "user"
    folder.mkdir()
    for name in ("AUTOML_STATE", "MLFLOW_TRACKING_URI", "CUDA_VISIBLE_DEVICES"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PREFECT_HOME", str(folder / "mlruns" / "prefect"))
    return User(folder, capsys, monkeypatch)
