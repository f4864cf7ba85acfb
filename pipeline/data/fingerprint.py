"""Hashes of data: of its decoded content, so that the same rows in another file are the same data."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.data.dataset import Dataset
from pipeline.data.values import texts


def fingerprint(dataset: Dataset) -> str:
    """sha256 over the kind, the column names, types and values, and the target."""
    digest = hashlib.sha256(dataset.kind.encode())
    features = dataset.features
    if isinstance(features, pd.DataFrame):
        for name, column in features.items():
            digest.update(repr(str(name)).encode())
            _add_column(digest, column)
    elif isinstance(features, np.ndarray):
        _add_array(digest, features)
    else:
        for series in features:
            _add_array(digest, series)
    if dataset.target is not None:
        _add_column(digest, pd.Series(dataset.target))
    return digest.hexdigest()


def _add_array(digest: hashlib._Hash, array: npt.NDArray[Any]) -> None:
    digest.update(f"{array.dtype.str}{array.shape}".encode())
    digest.update(np.ascontiguousarray(array).data)


def _add_column(digest: hashlib._Hash, column: pd.Series) -> None:
    if column.dtype.kind in "biuf":
        _add_array(digest, column.to_numpy())
        return
    # Lengths (-1 for missing) and the text of all rows end to end: no two columns have the same.
    text = column if isinstance(column.dtype, pd.StringDtype) else texts(column)
    array = pa.array(text, type=pa.large_string(), from_pandas=True)
    array = pa.concat_arrays(array.chunks) if isinstance(array, pa.ChunkedArray) else array
    _add_array(digest, pc.fill_null(pc.binary_length(array), -1).to_numpy(zero_copy_only=False))
    digest.update("".join(pc.fill_null(array, "").to_pylist()).encode())
