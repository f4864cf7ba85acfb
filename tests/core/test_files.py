"""Files survive a kill: atomic writes, and locks that die with their holder."""

from __future__ import annotations

import errno
import multiprocessing
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.files import THEIRS, Locked, exclusive_lock, link_or_copy, sha256_file, write_atomic
from tests.helpers import umask

HOLD = """
import sys, time
from pathlib import Path
from pipeline.files import exclusive_lock
with exclusive_lock(Path(sys.argv[1]), "pid of the child"):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_failed_write_leaves_the_old_content_and_no_litter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "deep" / "a.json"
    write_atomic(path, b"old")

    def full(_handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pipeline.files.os.fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_atomic(path, b"new")
    assert path.read_bytes() == b"old"
    assert [entry.name for entry in path.parent.iterdir()] == ["a.json"]


def test_what_we_keep_is_for_its_owner_and_what_somebody_asked_for_is_as_their_umask_says(tmp_path: Path) -> None:
    with umask(0o027):
        write_atomic(tmp_path / "record.json", b"{}")
        write_atomic(tmp_path / "page.html", b"", THEIRS)
    modes = {path.name: path.stat().st_mode & 0o777 for path in tmp_path.iterdir()}
    assert modes == {"record.json": 0o600, "page.html": 0o640}


@pytest.mark.parametrize("links", [True, False], ids=["links", "no links"])
def test_a_second_name_is_a_link_or_a_whole_copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, links: bool) -> None:
    def refused(_source: Path, _target: Path) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    def torn(_source: Path, target: Path) -> None:
        target.write_bytes(b"wei")
        raise OSError(errno.ENOSPC, "No space left on device")

    source, target = tmp_path / "weights", tmp_path / "copies" / "weights"
    source.write_bytes(b"weights")
    target.parent.mkdir()
    if not links:
        monkeypatch.setattr("pipeline.files.os.link", refused)
        with monkeypatch.context() as full:
            full.setattr("pipeline.files.shutil.copyfile", torn)
            with pytest.raises(OSError, match="No space"):
                link_or_copy(source, target)
        assert list(target.parent.iterdir()) == []
    link_or_copy(source, target)
    assert target.read_bytes() == b"weights"
    assert target.samefile(source) == links
    assert list(target.parent.iterdir()) == [target]


def _write_for_ever(path: Path) -> None:
    while True:
        for letter in (b"a", b"b"):
            write_atomic(path, letter * 100_000)


@pytest.mark.parametrize("delay", [0.05, 0.11, 0.17])
def test_a_writer_killed_anywhere_leaves_one_whole_content(tmp_path: Path, delay: float) -> None:
    path = tmp_path / "state"
    write_atomic(path, b"a" * 100_000)
    writer = multiprocessing.get_context("spawn").Process(target=_write_for_ever, args=(path,))
    writer.start()
    writer.join(delay)
    assert writer.pid is not None
    os.kill(writer.pid, signal.SIGKILL)
    writer.join()
    assert path.read_bytes() in {b"a" * 100_000, b"b" * 100_000}


def test_sha256_is_of_the_content(tmp_path: Path) -> None:
    (tmp_path / "empty").write_bytes(b"")
    assert sha256_file(tmp_path / "empty").startswith("e3b0c44298fc1c14")


def test_a_lock_names_its_holder_and_is_free_after_it(tmp_path: Path) -> None:
    path = tmp_path / "locks" / "a.lock"
    with exclusive_lock(path, "pid 1 on here"):
        with pytest.raises(Locked) as caught, exclusive_lock(path, "pid 2 on here"):
            pass
        assert caught.value.holder == "pid 1 on here"
    with exclusive_lock(path, "pid 2 on here"):
        pass


def test_a_lock_dies_with_its_process(tmp_path: Path) -> None:
    path = tmp_path / "a.lock"
    with subprocess.Popen([sys.executable, "-c", HOLD, str(path)], stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(Locked, match="pid of the child"), exclusive_lock(path, "we"):
            pass
        holder.kill()
    with exclusive_lock(path, "we"):
        assert path.read_text() == "we"
