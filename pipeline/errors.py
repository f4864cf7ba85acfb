"""The errors that callers may catch, and the exit code each one means.

::

    AutoMLError                 exit 1   base of all of them; never raised itself
    ├── InputError              exit 2   the user's file, data or argument is wrong: rule, value, remedy in one line
    │   ├── ConfigError                  the experiment file
    │   └── DataError                    the data it names
    ├── SearchError             exit 1   the search as a whole could not go on, or produced nothing
    │   └── SearchPausedError            it stopped where it was, and is resumable
    ├── GateError               exit 1   a promotion was refused by its gates
    │   └── ChampionMovedError           by a champion that is not the one it was compared with
    ├── PackageError            exit 1   a model's files are damaged, foreign or out of bounds
    ├── StoreError              exit 1   MLflow or Optuna storage refused an operation for good
    └── Interrupted             exit 130 or 143: SIGINT or SIGTERM stopped the search; the same command goes on with it
"""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Final

from pipeline.redaction import redacted
from pipeline.text import one_line

MAX_WHAT: Final = 800
"""Longest rule or remedy in characters: what is wrong may be very long itself."""


class AutoMLError(Exception):
    """Base of every error this package raises on purpose. No message holds a secret that can be recognised."""

    exit_code = 1

    def __init__(self, message: str = "") -> None:
        super().__init__(redacted(message))


class InputError(AutoMLError):
    """Something the user gave is wrong; the message is one line: ``where: what; how to fix``.

    Args:
        what: the rule and the value that breaks it.
        remedy: what to write or do instead.
        file: the file at fault, when there is one.
        line: 1-based line in that file.
    """

    exit_code = 2

    def __init__(self, what: str, remedy: str = "", *, file: str | Path | None = None, line: int | None = None) -> None:
        self.what, self.remedy, self.file, self.line = what, remedy, file, line
        at = "" if file is None else one_line(str(file), MAX_WHAT)
        where = f"{at}:{line}: " if at and line is not None else f"{at}: " if at else ""
        message = where + one_line(what, MAX_WHAT) + (f"; {one_line(remedy, MAX_WHAT)}" if remedy else "")
        super().__init__(message)


class ConfigError(InputError):
    """The experiment file breaks a rule."""


class DataError(InputError):
    """The data breaks a rule, or cannot be read as what it claims to be."""


class SearchError(AutoMLError):
    """The search as a whole failed: nothing completed, or its state on disk is contradictory."""


class SearchPausedError(SearchError):
    """The search cannot go on for now, the disk being full, say: nothing is lost, and the same command goes on."""


class GateError(AutoMLError):
    """A promotion was refused."""


class ChampionMovedError(GateError):
    """The champion is not the one that the candidate was compared with.

    Args:
        current: the champion's version; None where there is none. So for `expected`.
    """

    def __init__(self, model: str, current: int | None, expected: int | None) -> None:
        self.model, self.current, self.expected = model, current, expected
        super().__init__(f"the champion of {model} is version {current} and not {expected}; compare again")


class PackageError(AutoMLError):
    """A model package does not verify, or does not fit the architectures we know."""


class StoreError(AutoMLError):
    """A tracking or study store refused an operation, after the retries it deserves."""


class Interrupted(AutoMLError):
    """The search was asked to stop and did; it is resumable.

    Args:
        by: the signal that asked; the exit code is 128 and its number, as of a process that the signal ended.
    """

    def __init__(self, message: str, by: signal.Signals) -> None:
        super().__init__(message)
        self.exit_code = 128 + by
