"""A packaged model of a small table."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.packaging.cases import Case, make_case


@pytest.fixture
def tabular(tmp_path: Path) -> Case:
    return make_case(tmp_path / "trial", "tabular", "mlp")
