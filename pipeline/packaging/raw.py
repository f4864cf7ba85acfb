"""Raw rows in the forms that callers have them, as the `Features` that preprocessing takes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from pipeline.data.dataset import Features
from pipeline.data.spec import Kind
from pipeline.errors import DataError


def as_features(rows: Any, kind: Kind) -> Features:
    """Rows of one kind.

    - tabular, and series to be forecast: a DataFrame, a mapping of columns, or a list of mappings.
    - image: an array, nested lists, or a DataFrame whose column ``image`` (or only column) holds one of them a row.
    - text: a DataFrame with the model's column or with a single one, a mapping of columns, or a list of strings.
    - sequence: a list of ``(T_i, D)`` or ``(T_i,)`` arrays or nested lists, an array ``(N, T, D)``, or a DataFrame
      whose column ``sequence`` (or only column) holds one of them a row.

    Raises:
        DataError: the rows are in no such form.
    """
    if kind in ("tabular", "forecast"):
        return _as_table(rows)
    if kind == "text":
        return _as_texts(rows)
    cells = _cells(rows, kind)
    try:
        return _as_images(cells) if kind == "image" else [_as_sequence(cell) for cell in cells]
    except (ValueError, TypeError) as error:
        raise DataError(f"the rows are no {kind} data: {error}", "give arrays or nested lists of numbers") from error


def _as_table(rows: Any) -> pd.DataFrame:
    if isinstance(rows, pd.DataFrame):
        return rows
    if isinstance(rows, Mapping) or (isinstance(rows, list) and all(isinstance(row, Mapping) for row in rows)):
        return pd.DataFrame(rows)
    raise DataError(
        f"a model of a table reads columns by name, but got a {type(rows).__name__}", "give a pandas DataFrame"
    )


def _as_texts(rows: Any) -> Features:
    if isinstance(rows, pd.DataFrame | Mapping) or (isinstance(rows, list) and rows and isinstance(rows[0], Mapping)):
        return _as_table(rows)
    if isinstance(rows, str):
        raise DataError("the rows are one string", "give a list of strings")
    return pd.DataFrame({"text": list(rows)}, dtype=object)


def _cells(rows: Any, kind: Kind) -> Any:
    """The rows without the table around them."""
    if isinstance(rows, Mapping):
        rows = pd.DataFrame({name: list(column) for name, column in rows.items()})
    if not isinstance(rows, pd.DataFrame):
        return rows
    if kind in rows.columns:
        return rows[kind].tolist()
    if len(rows.columns) == 1:
        return rows.iloc[:, 0].tolist()
    raise DataError(
        f"a DataFrame for {kind} data needs a column `{kind}`", "put one array or nested list a row into it"
    )


def _as_images(cells: Any) -> npt.NDArray[Any]:
    images = np.asarray(cells) if isinstance(cells, np.ndarray) else np.stack([np.asarray(cell) for cell in cells])
    if images.dtype.kind not in "buif":
        raise ValueError(f"pixels must be numbers, but are {images.dtype}")
    return images


def _as_sequence(cell: Any) -> npt.NDArray[np.float32]:
    values = np.asarray(cell, dtype=np.float32)
    return values[:, None] if values.ndim == 1 else values
