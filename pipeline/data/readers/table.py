"""From a table with named columns to a `Dataset`: the target column is taken out."""

from __future__ import annotations

import difflib
from collections.abc import Sequence

import pandas as pd

from pipeline.data.dataset import Dataset
from pipeline.data.findings import Finding
from pipeline.data.readers.request import Request
from pipeline.errors import DataError


def to_dataset(frame: pd.DataFrame, request: Request, findings: list[Finding]) -> Dataset:
    """Split a table into features and target.

    Raises:
        DataError: no rows, no target named, no such column, or no feature beside it.
    """
    path, target = request.path, request.target
    if frame.empty:
        raise DataError("the table has no rows", "give it rows of data", file=path)
    if not request.labelled:
        features = frame.drop(columns=[target]) if target in frame.columns else frame
        return Dataset("tabular", features, None, path.stem, tuple(findings))
    target = target_column(request, [str(name) for name in frame.columns])
    if len(frame.columns) == 1:
        raise DataError(f"the file has only the target column {target!r}", "add feature columns", file=path)
    return Dataset("tabular", frame.drop(columns=[target]), frame[target].to_numpy(), path.stem, tuple(findings))


def target_column(request: Request, names: Sequence[str]) -> str:
    """The target's name, which is among the names.

    Raises:
        DataError: none was given, or there is no such column.
    """
    path, target = request.path, request.target
    if target is None:
        raise DataError("a table needs `data.target`, the name of the column to predict", "name it", file=path)
    if target not in names:
        near = difflib.get_close_matches(target, names, n=1, cutoff=0.5)
        raise DataError(
            f"there is no target column {target!r}",
            f"did you mean {near[0]!r}?" if near else f"columns: {', '.join(names[:20])}",
            file=path,
        )
    return target
