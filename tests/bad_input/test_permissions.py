"""What may not be read or written; and who may read what we write. Root may do everything, so these act as nobody."""

from __future__ import annotations

import os
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from flows.workspace import Workspace, find_workspace
from pipeline.errors import InputError
from pipeline.search.forks import prestart
from pipeline.tracking.artifacts import put_folder
from tests.bad_input.cases import GOOD, TABLE, User

NOBODY = 65_534


@contextmanager
def as_nobody() -> Iterator[None]:
    """Without root's rights, where there are any."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.fixture
def usual_umask() -> Iterator[None]:
    before = os.umask(0o022)
    yield
    os.umask(before)


@pytest.fixture
def public(user: User, usual_umask: None) -> Iterator[User]:
    """A user whose folder everybody may enter."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        (Path(folder) / "bad.yaml").write_text(GOOD)
        (Path(folder) / "train.csv").write_text(TABLE)
        user.runs("check", str(Path(folder) / "bad.yaml"))  # imports, which nobody may not
        prestart()  # nobody may not start Python either
        yield User(Path(folder), user.capsys, user.monkeypatch)


@pytest.mark.parametrize("name", ["bad.yaml", "train.csv"])
def test_an_unreadable_input(public: User, name: str) -> None:
    (public.folder / name).chmod(0)
    with as_nobody():
        code, _, err = public.runs("check", "bad.yaml")
    assert code == 2
    assert "cannot be read" in err
    assert name in err


def test_a_folder_that_may_not_be_entered(public: User) -> None:
    (public.folder / "closed").mkdir(mode=0)
    (public.folder / "bad.yaml").write_text(GOOD.replace("train.csv", "closed/train.csv"))
    with as_nobody():
        code, _, err = public.runs("check", "bad.yaml")
    assert code == 2
    assert "closed/train.csv: no such file" in err


def test_a_state_folder_that_is_not_writable(public: User) -> None:
    (public.folder / "mlruns").mkdir()
    (public.folder / "mlruns").chmod(0o555)
    with as_nobody():
        code, _, err = public.runs("run", "bad.yaml", "--no-prefect")
    assert code == 2
    assert "is not writable; check its permissions" in err
    assert not list((public.folder / "mlruns").iterdir())


@pytest.mark.usefixtures("usual_umask")
def test_the_state_folder_and_what_is_written_into_it_is_for_its_owner_only(tmp_path: Path) -> None:
    state = tmp_path / "mlruns"
    state.mkdir(mode=0o755)
    Workspace(state).create()
    (state / "file").write_text("x")
    put_folder(None, "", str(state / "artifacts"), "model", lambda folder: (folder / "MLmodel").touch() or None)  # type: ignore[arg-type]
    for path in (state, *state.rglob("*")):
        assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0, path


def test_a_link_that_the_user_names_is_followed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "large-disk").mkdir()
    (tmp_path / "mlruns").symlink_to("large-disk")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("AUTOML_STATE", raising=False)
    with pytest.raises(InputError, match="AUTOML_STATE=large-disk"):
        find_workspace()
    monkeypatch.setenv("AUTOML_STATE", "mlruns")
    assert find_workspace().state == tmp_path / "mlruns"
