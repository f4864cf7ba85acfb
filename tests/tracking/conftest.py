"""A database that is migrated once a session and copied for each test."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.tracking.mlflow import migrate


@pytest.fixture(scope="session")
def database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("template") / "mlflow.db"
    migrate(f"sqlite:///{path}")
    return path
