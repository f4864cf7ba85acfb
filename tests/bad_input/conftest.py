"""The user who meets bad inputs."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.bad_input.cases import User, at_a_prompt


@pytest.fixture
def user(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> User:
    folder = tmp_path / "user"
    folder.mkdir()
    return at_a_prompt(folder, capsys, monkeypatch)
