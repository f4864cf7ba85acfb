"""What the tests of a search share: prepared tensors as a pool's workers load them, and a search over a fake pool."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.data.development import save_development
from pipeline.data.tensors import Development
from pipeline.search import forks
from tests.search.searches import Search


@pytest.fixture
def prepared(development: Development, tmp_path: Path) -> Path:
    directory = tmp_path / "prepared"
    directory.mkdir()
    save_development(directory, development)
    return directory


@pytest.fixture
def search(tmp_path: Path) -> Search:
    return Search(tmp_path)


@pytest.fixture
def fresh_server(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Workers are not forked from the server that the other tests share."""
    monkeypatch.setattr(forks, "_shared", None)
    yield
    forks._end()
