"""Helpers that several test files share."""

from __future__ import annotations

import math
import os
import random
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import TypeVar

import psutil

T = TypeVar("T", bound=bool | int | float | str)


@contextmanager
def umask(mask: int) -> Iterator[None]:
    """Make files with this mask meanwhile."""
    before = os.umask(mask)
    try:
        yield
    finally:
        os.umask(before)


def workers_of(pid: int) -> list[psutil.Process]:
    """The workers that this process and its descendants have started; they are forked from a server."""
    with suppress(psutil.NoSuchProcess):
        return [child for child in psutil.Process(pid).children(recursive=True) if _is_worker(child)]
    return []


def _is_worker(process: psutil.Process) -> bool:
    try:
        parent = process.parent()
        family = [process.cmdline(), [] if parent is None else parent.cmdline()]
    except psutil.NoSuchProcess:
        return False
    return all("pipeline.training.fork_server" in command for command in family)


class RandomSuggester:
    """A seeded random suggester; what is in `fixed` is not drawn. `asked` is what it answered."""

    def __init__(self, seed: int, fixed: Mapping[str, bool | int | float | str] | None = None) -> None:
        self._random = random.Random(seed)
        self._fixed = dict(fixed or {})
        self.asked: dict[str, bool | int | float | str] = {}

    def integer(self, name: str, low: int, high: int, *, log: bool = False, step: int = 1) -> int:
        drawn = (
            round(math.exp(self._random.uniform(math.log(low), math.log(high))))
            if log
            else (self._random.randrange(low, high + 1, step))
        )
        self.asked[name] = self._fixed.get(name, drawn)
        return int(self.asked[name])

    def number(self, name: str, low: float, high: float, *, log: bool = False) -> float:
        drawn = self._random.uniform(math.log(low), math.log(high)) if log else self._random.uniform(low, high)
        self.asked[name] = self._fixed.get(name, math.exp(drawn) if log else drawn)
        return float(self.asked[name])

    def choice(self, name: str, options: Sequence[T]) -> T:
        drawn = options[self._random.randrange(len(options))]
        self.asked[name] = self._fixed.get(name, drawn)
        return self.asked[name]  # type: ignore[return-value]
