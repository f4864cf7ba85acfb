"""Prepared tensors on disk, as a pool's workers load them."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.data.development import save_development
from pipeline.data.tensors import Development


@pytest.fixture
def prepared(development: Development, tmp_path: Path) -> Path:
    directory = tmp_path / "prepared"
    directory.mkdir()
    save_development(directory, development)
    return directory
