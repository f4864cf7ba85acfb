"""A database that is migrated once a session and copied for each test, and a packaged model."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.packaging.cases import Case, make_case
from tests.tracking.stores import make_template


@pytest.fixture(scope="session")
def database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_template(tmp_path_factory.mktemp("template"))


@pytest.fixture(scope="session")
def case(tmp_path_factory: pytest.TempPathFactory) -> Case:
    return make_case(tmp_path_factory.mktemp("case"), "tabular", "mlp")


@pytest.fixture(scope="session")
def package(case: Case, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return case.write(tmp_path_factory.mktemp("packages") / "package")
