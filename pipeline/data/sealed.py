"""The sealed test: rows that nothing can read but `unseal`, which writes every reading down first.

A `SealedTest` is a place, a hash and a count. It holds no rows, so neither a search nor a worker can be handed any.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.data.dataset import Dataset, Features
from pipeline.data.spec import Kind
from pipeline.errors import DataError
from pipeline.files import append_line, sha256_file

_TABLE: Final = "rows.parquet"
_TEXTS: Final = "texts.parquet"
_ARRAYS: Final = "rows.npz"
_TARGET: Final = "target.parquet"
_ORIGINS: Final = "origins.parquet"


@dataclass(frozen=True, slots=True)
class SealedTest:
    """Raw test rows on disk.

    Args:
        sha256: over the files in `directory`.
        n_rows: how many rows there are; all that may be known of them before the evaluation.
    """

    directory: Path
    sha256: str
    n_rows: int

    def __len__(self) -> int:
        return self.n_rows


def seal(dataset: Dataset, directory: Path) -> SealedTest:
    """Write raw rows and raw targets into a new directory."""
    assert dataset.target is not None, "a test needs targets"
    directory.mkdir()
    features = dataset.features
    if isinstance(features, pd.DataFrame):
        pq.write_table(
            pa.Table.from_pandas(features, preserve_index=False),
            directory / (_TEXTS if dataset.kind == "text" else _TABLE),
        )
    elif isinstance(features, np.ndarray):
        np.savez(directory / _ARRAYS, images=features)
    else:
        lengths = np.array([len(series) for series in features], dtype=np.int64)
        np.savez(directory / _ARRAYS, steps=np.concatenate(features), lengths=lengths)
    if dataset.target.ndim == 2:
        names = [str(step) for step in range(dataset.target.shape[1])]
        pq.write_table(pa.table(dict(zip(names, dataset.target.T, strict=True))), directory / _TARGET)
    else:
        pq.write_table(pa.table({"target": pa.array(dataset.target, from_pandas=True)}), directory / _TARGET)
    if dataset.origins is not None:
        pq.write_table(pa.Table.from_pandas(dataset.origins, preserve_index=False), directory / _ORIGINS)
    return SealedTest(directory, _digest(directory), len(dataset))


def unseal(sealed: SealedTest, reason: str, ledger: Path) -> tuple[Dataset, npt.NDArray[Any]]:
    """Read the test: its raw rows, and its raw targets. The reading is on the ledger before a row is returned.

    Args:
        reason: who reads it and what for, in one line.
        ledger: a file of JSON lines that is only ever appended to.

    Raises:
        DataError: the files are not those that were sealed.
    """
    if not sealed.directory.is_dir() or _digest(sealed.directory) != sealed.sha256:
        raise DataError(
            "the sealed test rows are missing or do not match their hash",
            "remove the folder that holds them and run again: they are prepared anew from the source",
            file=sealed.directory,
        )
    entry = {
        "time": time.time(),
        "reason": " ".join(reason.split()),
        "sha256": sealed.sha256,
        "n_rows": sealed.n_rows,
        "pid": os.getpid(),
    }
    append_line(ledger, json.dumps(entry))
    kind, features = _read_features(sealed.directory)
    stored = pq.read_table(sealed.directory / _TARGET).to_pandas()
    if kind != "forecast":
        target = stored["target"].to_numpy()
        return Dataset(kind, features, target, "sealed test"), target
    target, origins = stored.to_numpy(), pq.read_table(sealed.directory / _ORIGINS).to_pandas()
    return Dataset(kind, features, target, "sealed test", origins=origins), target


def _read_features(directory: Path) -> tuple[Kind, Features]:
    if (directory / _TABLE).exists():
        return "tabular", pq.read_table(directory / _TABLE).to_pandas()
    if (directory / _TEXTS).exists():
        return "text", pq.read_table(directory / _TEXTS).to_pandas()
    with np.load(directory / _ARRAYS, allow_pickle=False) as arrays:
        if "images" in arrays:
            return "image", arrays["images"]
        kind: Kind = "forecast" if (directory / _ORIGINS).exists() else "sequence"
        return kind, np.split(arrays["steps"], np.cumsum(arrays["lengths"])[:-1])


def _digest(directory: Path) -> str:
    """sha256 over the names and contents of the files, in the order of their names."""
    digest = hashlib.sha256()
    for path in sorted(directory.iterdir()):
        digest.update(f"{path.name}:{sha256_file(path)}\n".encode())
    return digest.hexdigest()
