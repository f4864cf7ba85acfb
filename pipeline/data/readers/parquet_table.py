"""Parquet tables. Sizes are checked in the file's metadata: 186 kB can hold 50 million rows."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Final

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.data.dataset import Dataset
from pipeline.data.findings import Finding
from pipeline.data.readers.request import Request, check_columns, check_ratio, check_size
from pipeline.data.readers.table import to_dataset
from pipeline.errors import DataError

MAX_CELLS_A_BYTE: Final = 50
"""Values that a byte of a file may stand for, above `SMALL_CELLS`: even a constant column takes pages and headers."""
SMALL_CELLS: Final = 10_000_000


def read_parquet(request: Request) -> Dataset:
    """A parquet file of plain columns. The pandas metadata in it is not used.

    Raises:
        DataError: not parquet, damaged, too large, without rows, or with repeated column names.
    """
    request.refuse_other_than("tabular")
    path = request.path
    findings: list[Finding] = []
    try:
        with pq.ParquetFile(path) as file:
            schema = file.schema_arrow
            _check_sizes(file.metadata, path)
            repeated = sorted(name for name, count in Counter(schema.names).items() if count > 1)
            if repeated:
                raise DataError(f"the column {repeated[0]!r} occurs more than once", "rename the copies", file=path)
            nested = [field.name for field in schema if pa.types.is_nested(field.type) or _is_binary(field.type)]
            if request.target in nested and request.labelled:
                raise DataError(
                    f"the target {request.target!r} has the type {schema.field(request.target).type}",
                    "a target must be a plain column",
                    file=path,
                )
            plain = [name for name in schema.names if name not in nested]
            table = file.read(columns=plain)
    except (pa.ArrowException, OSError) as error:
        first_line = str(error).splitlines()[0][:200]
        raise DataError(f"the file is not readable parquet ({first_line})", "write it again", file=path) from error
    findings += [
        Finding(severity="warning", subject=name, message=f"the type {schema.field(name).type} is not used: left out")
        for name in nested
    ]
    return to_dataset(_plain_frame(table), request, findings)


def _check_sizes(metadata: pq.FileMetaData, path: Path) -> None:
    """Raises DataError for a file that is too large, or a bomb: by its metadata, before anything is read."""
    check_columns(metadata.num_columns, path)
    n_cells, packed = metadata.num_rows * metadata.num_columns, path.stat().st_size
    check_size(n_cells, path)
    if n_cells > SMALL_CELLS and n_cells > MAX_CELLS_A_BYTE * packed:
        raise DataError(
            f"its {packed:,} bytes unpack to {metadata.num_rows:,} rows of {metadata.num_columns} columns",
            "no data is like that; take a sample of it",
            file=path,
        )
    unpacked = sum(metadata.row_group(i).total_byte_size for i in range(metadata.num_row_groups))
    check_ratio(unpacked, packed, path)


def _is_binary(kind: pa.DataType) -> bool:
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_fixed_size_binary(kind))


def _plain_frame(table: pa.Table) -> pd.DataFrame:
    """Columns as text, numbers or booleans; decimals become floats, dates, times and dictionaries text."""
    columns: dict[str, pd.Series] = {}
    for field, column in zip(table.schema, table.columns, strict=True):
        if pa.types.is_dictionary(field.type):
            column = column.cast(field.type.value_type)
        if pa.types.is_decimal(column.type):
            column = column.cast(pa.float64())
        if pa.types.is_temporal(column.type):
            column = column.cast(pa.string())
        if pa.types.is_null(column.type):
            column = column.cast(pa.float64())
        columns[field.name] = column.to_pandas()
    return pd.DataFrame(columns)
