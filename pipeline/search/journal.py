"""An Optuna journal with one writer and group commit.

Optuna's own file backend writes and fsyncs at every call and waits on a lock file that a dead holder blocks for 30 s.
A search has exactly one controller, so this backend keeps new entries in memory and appends them in one fsynced write
when the controller says `commit`. The file is Optuna's format: `JournalStorage(JournalFileBackend(path))` opens it.
"""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from optuna.storages.journal import BaseJournalBackend

from pipeline.files import sync_directory


class GroupCommitBackend(BaseJournalBackend):
    """The journal of one search. The caller holds the search's lock."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._logs: list[dict[str, Any]] = _read_and_repair(path)
        self._committed = len(self._logs)

    def read_logs(self, log_number_from: int) -> Iterable[dict[str, Any]]:
        return self._logs[log_number_from:]

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        # Through JSON, as from a file: what Optuna reads back never shares objects with what it wrote.
        self._logs += [json.loads(json.dumps(log, separators=(",", ":"))) for log in logs]

    def commit(self) -> None:
        """Make everything appended so far durable. A kill in between leaves a torn last line at worst, which the next
        opening cuts off.

        Raises:
            OSError: the disk refused; the file is as it was, and the entries are kept for the next commit.
        """
        new = self._logs[self._committed :]
        if not new:
            return
        content = b"".join(json.dumps(log, separators=(",", ":")).encode() + b"\n" for log in new)
        created = not self._path.exists()
        # Unbuffered: a buffer would write once more what is left in it, when the file is closed after a refusal.
        with self._path.open("ab", buffering=0) as file:
            size = file.seek(0, os.SEEK_END)
            try:
                if file.write(content) < len(content):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self._path))
                os.fsync(file.fileno())
            except OSError:
                os.ftruncate(file.fileno(), size)
                raise
        if created:
            sync_directory(self._path.parent)
        self._committed = len(self._logs)


def is_torn(path: Path) -> bool:
    """Whether the last entry is not whole; the next opening cuts it off."""
    return path.exists() and _whole(path.read_bytes())[1] < path.stat().st_size


def _read_and_repair(path: Path) -> list[dict[str, Any]]:
    """All whole entries; a torn tail is cut off the file before anything can be glued to it."""
    if not path.exists():
        return []
    content = path.read_bytes()
    logs, good = _whole(content)
    if good < len(content):
        with path.open("r+b") as file:
            file.truncate(good)
            os.fsync(file.fileno())
    return logs


def _whole(content: bytes) -> tuple[list[dict[str, Any]], int]:
    """The whole entries, and how many bytes they take."""
    logs: list[dict[str, Any]] = []
    good = 0
    for line in content.splitlines(keepends=True):
        try:
            entry = json.loads(line) if line.endswith(b"\n") else None
        except ValueError:
            entry = None
        if not isinstance(entry, dict):
            break
        logs.append(entry)
        good += len(line)
    return logs, good
