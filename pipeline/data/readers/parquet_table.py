"""Parquet tables. Sizes are checked in the file's metadata: 186 kB can hold 50 million rows."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Final

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.data.dataset import Dataset
from pipeline.data.findings import Finding
from pipeline.data.readers.pictures import Picture, decode
from pipeline.data.readers.request import Request, check_columns, check_ratio, check_size
from pipeline.data.readers.table import target_column, to_dataset
from pipeline.errors import DataError

MAX_CELLS_A_BYTE: Final = 50
"""Values that a byte of a file may stand for, above `SMALL_CELLS`: even a constant column takes pages and headers."""
_MAGIC: Final = (b"\x89PNG", b"\xff\xd8\xff", b"BM", b"GIF8", b"RIFF", b"II*\0", b"MM\0*")
"""How image files begin."""
SMALL_CELLS: Final = 10_000_000


def read_parquet(request: Request) -> Dataset:
    """A parquet file of plain columns, or of image files and labels. The pandas metadata in it is not used.

    Raises:
        DataError: not parquet, damaged, too large, without rows, or with repeated column names.
    """
    request.refuse_other_than("tabular", "image")
    path = request.path
    findings: list[Finding] = []
    try:
        with pq.ParquetFile(path) as file:
            schema = file.schema_arrow
            _check_sizes(file.metadata, path)
            repeated = sorted(name for name, count in Counter(schema.names).items() if count > 1)
            if repeated:
                raise DataError(f"the column {repeated[0]!r} occurs more than once", "rename the copies", file=path)
            nested = [field.name for field in schema if pa.types.is_nested(field.type) or is_binary(field.type)]
            if request.target in nested and request.labelled:
                raise DataError(
                    f"the target {request.target!r} has the type {schema.field(request.target).type}",
                    "a target must be a plain column",
                    file=path,
                )
            pictures = None if request.wants_table else _image_column(file, nested)
            plain = [name for name in schema.names if name not in nested or name == pictures]
            table = file.read(columns=plain)
    except (pa.ArrowException, OSError) as error:
        first_line = str(error).splitlines()[0][:200]
        raise DataError(f"the file is not readable parquet ({first_line})", "write it again", file=path) from error
    if pictures is not None:
        return _images(table, pictures, request)
    if request.kind == "image":
        raise DataError("no column has image files", "set data.kind to auto", file=path)
    findings += [
        Finding(severity="warning", subject=name, message=f"the type {schema.field(name).type} is not used: left out")
        for name in nested
    ]
    return to_dataset(plain_frame(table), request, findings)


def _image_column(file: pq.ParquetFile, nested: list[str]) -> str | None:
    """The column whose first value is an image file: bytes, or bytes and a path as the Hugging Face Hub has it."""
    for name in nested:
        kind = file.schema_arrow.field(name).type
        if not (is_binary(kind) or (pa.types.is_struct(kind) and kind.get_field_index("bytes") >= 0)):
            continue
        first = next(file.iter_batches(batch_size=1, columns=[name]), None)
        content = None if first is None or first.num_rows == 0 else _bytes_of(first.column(0))[0]
        if content is not None and content.startswith(_MAGIC):
            return name
    return None


def _bytes_of(column: pa.Array) -> list[bytes | None]:
    plain = pc.struct_field(column, "bytes") if pa.types.is_struct(column.type) else column
    values: list[bytes | None] = plain.to_pylist()
    return values


def _images(table: pa.Table, column: str, request: Request) -> Dataset:
    """The images of one column, labelled by another; further columns are left out."""
    path = request.path
    if table.num_rows == 0:
        raise DataError("the table has no rows", "give it rows of data", file=path)
    contents = _bytes_of(table[column].combine_chunks())
    pictures = [Picture(f"row {i + 1}", content or b"") for i, content in enumerate(contents)]
    decoded = decode(pictures, path, request.shape, strict=not request.labelled)
    if not request.labelled:
        return Dataset("image", decoded.images, None, path.stem)
    target = target_column(request, [name for name in table.column_names if name != column])
    labels = plain_frame(table.select([target]))[target].to_numpy()[decoded.kept]
    others = [name for name in table.column_names if name not in (column, target)]
    findings = [Finding(severity="info", subject=name, message="is no part of the image: left out") for name in others]
    return Dataset("image", decoded.images, labels, path.stem, (*findings, *decoded.findings))


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


def is_binary(kind: pa.DataType) -> bool:
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_fixed_size_binary(kind))


def plain_frame(table: pa.Table) -> pd.DataFrame:
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
