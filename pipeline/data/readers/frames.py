"""Tables in memory, read as the same table in a parquet file would be."""

from __future__ import annotations

import pandas as pd
import pyarrow as pa

from pipeline.data.dataset import Dataset
from pipeline.data.findings import Finding
from pipeline.data.readers.parquet_table import is_binary, plain_frame
from pipeline.data.readers.request import Request, check_columns, check_size
from pipeline.data.readers.table import to_dataset
from pipeline.errors import DataError


def from_frame(frame: pd.DataFrame, request: Request, findings: list[Finding]) -> Dataset:
    """A `Dataset` of a DataFrame, whose index is no column of it.

    Raises:
        DataError: repeated or nested columns, columns of mixed types, too many values, or as `to_dataset`.
    """
    path = request.path
    frame = frame.rename(columns=str).reset_index(drop=True)
    repeated = frame.columns[frame.columns.duplicated()]
    if len(repeated):
        raise DataError(f"the column {repeated[0]!r} occurs more than once", "rename the copies", file=path)
    check_columns(len(frame.columns), path)
    check_size(frame.size, path)
    try:
        table = pa.Table.from_pandas(frame, preserve_index=False)
    except pa.ArrowException as error:
        first_line = str(error).splitlines()[0][:200]
        raise DataError(f"a column has mixed types ({first_line})", "give each column one type", file=path) from error
    for field in table.schema:
        if pa.types.is_nested(field.type) or is_binary(field.type):
            raise DataError(f"the column {field.name!r} has the type {field.type}", "leave it out", file=path)
    return to_dataset(plain_frame(table), request, findings)
