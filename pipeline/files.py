"""Files that survive a kill: atomic writes, content hashes, and a lock that dies with its holder."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
"""Error numbers of a disk, a quota or a file that is full."""

OURS = 0o600
"""Permissions of what we keep for ourselves: for its owner only."""
THEIRS = 0o666
"""Of a file that somebody asked for: what their umask leaves, as of any file that they make."""


def write_atomic(path: Path, content: bytes, mode: int = OURS) -> None:
    """Write so that after a kill or a power cut `path` holds either its old content or all of the new one.

    Args:
        mode: the file's permissions, less the umask.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    name = path.parent / f".{path.name}.{secrets.token_hex(4)}"
    handle = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(name, path)
    except BaseException:
        name.unlink(missing_ok=True)
        raise
    sync_directory(path.parent)


def link_or_copy(source: str | Path, target: str | Path) -> str | Path:
    """A second name for a file that nobody will write to again, or a copy where the file system has no such thing.

    After a kill `target` is whole or not there.
    """
    try:
        os.link(source, target)
    except OSError:
        with tempfile.TemporaryDirectory(prefix=".copy-", dir=Path(target).parent) as staging:
            os.replace(shutil.copyfile(source, Path(staging) / "copy"), target)
    return target


def append_line(path: Path, line: str) -> None:
    """Add a line to a file that only grows, durably; where the disk refuses, the file is as it was. A line that a power
    cut tore is cut off first, so that nothing is glued to it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, OURS)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        size = _whole_lines(handle)
        content = f"{line}\n".encode()
        try:
            if os.write(handle, content) < len(content):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
            os.fsync(handle)
        except OSError:
            os.ftruncate(handle, size)
            raise
    finally:
        os.close(handle)


def read_lines(path: Path) -> list[str]:
    """The whole lines of a file that `append_line` writes; none where it does not exist."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return []
    return content[: content.rfind(b"\n") + 1].decode().splitlines()


def _whole_lines(handle: int) -> int:
    """Cut off what follows the last line end; the length that is left."""
    size = os.fstat(handle).st_size
    if size and os.pread(handle, 1, size - 1) != b"\n":
        size = os.pread(handle, size, 0).rfind(b"\n") + 1
        os.ftruncate(handle, size)
    return size


def sync_directory(directory: Path) -> None:
    """Make renames in this directory durable."""
    handle = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sha256_file(path: Path) -> str:
    """Hex sha256 of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class Locked(Exception):
    """Somebody else holds the lock; `holder` is what they wrote into it."""

    def __init__(self, holder: str) -> None:
        self.holder = holder
        super().__init__(f"held by {holder}")


@contextmanager
def exclusive_lock(path: Path, holder: str, *, wait: bool = False) -> Iterator[None]:
    """Hold an flock on `path`: the kernel releases it when the process dies, however it dies.

    Args:
        holder: who we are, for whoever finds the lock taken.
        wait: block until it is free instead of raising.

    Raises:
        Locked: somebody holds it, and `wait` is False.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            file.seek(0)
            raise Locked(file.read().strip() or "another process") from None
        file.truncate(0)
        file.write(holder)
        file.flush()
        try:
            yield
        finally:
            file.truncate(0)


def holder_of(path: Path) -> str | None:
    """Who holds an `exclusive_lock`; None where nobody does."""
    try:
        with path.open() as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except BlockingIOError:
        return path.read_text().strip() or "another process"
    return None
