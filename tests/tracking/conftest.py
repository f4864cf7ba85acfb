"""A database that is migrated once a session and copied for each test."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.tracking.stores import make_template


@pytest.fixture(scope="session")
def database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_template(tmp_path_factory.mktemp("template"))
