"""Which row is which: a number made of its features alone, the same wherever the row stands and whatever stands around
it. Splits and comparisons over time ask here, so that yesterday's row is known again in tomorrow's file."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pandas as pd

from pipeline.data.dataset import Features
from pipeline.data.values import numbers, texts

Hashes = npt.NDArray[np.uint64]

_GOLDEN: Final = np.uint64(0x9E3779B97F4A7C15)


def row_hashes(features: Features) -> Hashes:
    """One hash a row, ``(N,)``. The order of a table's columns does not matter; ``1``, ``1.0`` and 1 are the same cell.
    The target is no part of it: a row whose label was corrected is still that row."""
    if not isinstance(features, pd.DataFrame):
        return np.array([_digest(_bytes(row)) for row in features], dtype=np.uint64)
    total = np.zeros(len(features), dtype=np.uint64)
    for name, column in features.items():
        total += _mixed(_cells(column) + np.uint64(_digest(str(name).encode())))
    return _mixed(total)


def draw_order(hashes: Hashes, seed: int) -> Hashes:
    """The place of every row in a lottery, ``(N,)``: random, but decided by the row and the seed alone, so that rows
    which are added or taken away change nobody else's number. Of equal rows the n-th has its own number."""
    nth = pd.Series(hashes).groupby(hashes, sort=False).cumcount().to_numpy(dtype=np.uint64)
    return _mixed(hashes + _mixed(np.full(1, seed, dtype=np.uint64)) + nth * _GOLDEN)


@dataclass(frozen=True, slots=True)
class KnownRows:
    """The rows that a model was trained and chosen on, as hashes: they can be recognised, but not read.

    Args:
        columns: of the table that they are rows of; empty where they are of no table.
    """

    hashes: Hashes
    columns: tuple[str, ...]

    @classmethod
    def of(cls, features: Features) -> KnownRows:
        columns = tuple(map(str, features.columns)) if isinstance(features, pd.DataFrame) else ()
        return cls(np.unique(row_hashes(features)), columns)

    def among(self, features: Features) -> npt.NDArray[np.bool_] | None:
        """Which rows are known, ``(N,)``; None where a column is missing, so that nobody can say."""
        if isinstance(features, pd.DataFrame):
            if not set(self.columns) <= set(map(str, features.columns)):
                return None
            features = features[[name for name in features.columns if str(name) in self.columns]]
        return np.isin(row_hashes(features), self.hashes)

    def save(self, path: Path) -> None:
        np.savez(path, hashes=self.hashes, columns=np.array(self.columns, dtype=np.str_))

    @classmethod
    def load(cls, path: Path) -> KnownRows:
        """From where `save` put it."""
        with np.load(path, allow_pickle=False) as arrays:
            return cls(arrays["hashes"], tuple(arrays["columns"].tolist()))


def text_hashes(values: Iterable[str]) -> Hashes:
    """One hash a text, ``(N,)``."""
    return np.array([_digest(value.encode()) for value in values], dtype=np.uint64)


def _cells(column: pd.Series) -> Hashes:
    """Numbers by value, everything else by its text; what is missing is one value of its own."""
    values = numbers(column) + 0.0  # -0.0 becomes 0.0
    hashes = _mixed(values.view(np.uint64))
    other = np.flatnonzero(np.isnan(values))
    if len(other):
        text = texts(column.iloc[other]).fillna("").to_numpy(dtype=object)
        hashes[other] = pd.util.hash_array(text, categorize=True)
    return hashes


def _bytes(row: npt.NDArray[Any]) -> bytes:
    return repr(row.shape).encode() + np.ascontiguousarray(row).tobytes()


def _digest(content: bytes) -> int:
    return int.from_bytes(hashlib.blake2b(content, digest_size=8).digest(), "little")


def _mixed(values: Hashes) -> Hashes:
    """SplitMix64's finaliser: every bit of the input decides about every bit of the output (Steele and others 2014)."""
    x = values + _GOLDEN
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))
