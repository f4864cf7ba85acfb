"""CSV and TSV. Every cell is read as text: what a column means is decided once, on the training rows, so that a file
with other rows cannot be read another way (``01`` is a number in one file and a code in the next)."""

from __future__ import annotations

import csv
import io
import re
from collections import Counter
from pathlib import Path
from typing import Final

import pandas as pd
import pyarrow as pa
import pyarrow.csv as pacsv

from pipeline.data.dataset import Dataset
from pipeline.data.findings import Finding
from pipeline.data.readers.request import Request, check_columns, check_size, read_bytes
from pipeline.data.readers.table import to_dataset
from pipeline.data.values import MISSING
from pipeline.errors import DataError

_DECIMAL_COMMA: Final = re.compile(r"[-+]?\d+(?:,\d+)?(?:[eE][-+]?\d+)?")


def read_csv(request: Request) -> Dataset:
    """A delimited text file with one header line: UTF-8, UTF-16 with its mark, or Windows-1252, which holds Latin-1.

    Raises:
        DataError: empty, NUL bytes, no rows, a header with empty or repeated names, or ragged rows.
    """
    request.refuse_other_than("tabular")
    path = request.path
    findings: list[Finding] = []
    content = _in_utf8(read_bytes(path), request, findings)
    _check_text(content, request)
    delimiter, header = _header(content, request, findings)
    check_size(content.count(b"\n") * len(header), path)
    _check_quotes(content, delimiter, request)
    try:
        table = pacsv.read_csv(
            io.BytesIO(content),
            read_options=pacsv.ReadOptions(use_threads=False, block_size=max(1 << 20, min(len(content), 1 << 28))),
            parse_options=pacsv.ParseOptions(delimiter=delimiter, newlines_in_values=True),
            convert_options=pacsv.ConvertOptions(
                column_types=dict.fromkeys(header, pa.large_string()),
                null_values=list(MISSING),
                strings_can_be_null=True,
                quoted_strings_can_be_null=True,
            ),
        )
    except pa.ArrowException as error:
        raise _ragged(content, delimiter, len(header), request) from error
    if table.column_names != header:
        raise DataError("the header line cannot be parsed", "check its quotes", file=path, line=1)
    frame: pd.DataFrame = table.to_pandas()
    frame.columns = pd.Index(_named(header))
    if delimiter != ",":
        frame = _decimal_points(frame, findings)
    return to_dataset(frame, request, findings)


def dialect(path: Path) -> tuple[str, str]:
    """Delimiter and encoding of a file that `read_csv` reads, as Python names them."""
    content, request = read_bytes(path), Request(path)
    text = _in_utf8(content, request, [])
    delimiter, _ = _header(text, request, [])
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        return delimiter, "utf-16"
    return delimiter, "utf-8-sig" if text == content.removeprefix(b"\xef\xbb\xbf") else "cp1252"


def _in_utf8(content: bytes, request: Request, findings: list[Finding]) -> bytes:
    """The file's text as UTF-8; another encoding is said."""
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        findings.append(_encoded(request, "UTF-16", ""))
        try:
            return content.decode("utf-16").encode()
        except UnicodeDecodeError as error:
            raise DataError("the UTF-16 text is damaged", "save it as UTF-8", file=request.path) from error
    content = content.removeprefix(b"\xef\xbb\xbf")
    try:
        content.decode("utf-8")
        return content
    except UnicodeDecodeError as error:
        if b"\0" in content or not _looks_western(content):
            return content  # no text at all: `_check_text` says what is wrong
        line = content.count(b"\n", 0, error.start) + 1
        findings.append(_encoded(request, "Windows-1252", f"line {line} has the byte 0x{content[error.start]:02x}"))
        return content.decode("cp1252", errors="strict").encode()


def _looks_western(content: bytes) -> bool:
    """Whether the bytes above ASCII are few, as in western European text, and all are letters of Windows-1252."""
    above = sum(map(content.count, (bytes([value]) for value in range(0x80, 0x100))))
    undefined = sum(map(content.count, (b"\x81", b"\x8d", b"\x8f", b"\x90", b"\x9d")))
    control = sum(map(content.count, (bytes([value]) for value in range(1, 9))))
    return above <= 0.3 * len(content) and undefined == 0 and control == 0


def _encoded(request: Request, encoding: str, evidence: str) -> Finding:
    return Finding(
        severity="warning",
        subject=request.path.name,
        message=f"the file is not UTF-8: read as {encoding}",
        evidence=evidence,
        remedy="save it as UTF-8 if letters look wrong",
        check="values",
    )


def _check_text(content: bytes, request: Request) -> None:
    if not content.strip():
        raise DataError("the file is empty", "write a header line and rows", file=request.path)
    at = content.find(b"\0")
    if at >= 0:
        line = content.count(b"\n", 0, at) + 1
        raise DataError("the text has a NUL byte", "remove it or export the file again", file=request.path, line=line)
    try:
        content.decode("utf-8")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        byte = content[error.start]
        raise DataError(
            f"the file must be UTF-8, but has the byte 0x{byte:02x}",
            "save it as UTF-8 (iconv -f LATIN1 -t UTF-8)",
            file=request.path,
            line=line,
        ) from None


def _check_quotes(content: bytes, delimiter: str, request: Request) -> None:
    """Refuse a quote that is never closed: the parser would take all rows after it for one cell. Well-formed text has
    an even number of quotes, so only files with an odd one are looked at slowly (an inch sign in text is fine)."""
    if content.count(b'"') % 2 == 0:
        return
    reader = csv.reader(io.StringIO(content.decode("utf-8"), newline=""), delimiter=delimiter, strict=True)
    last = 0
    try:
        for _ in reader:
            last = reader.line_num
    except csv.Error as error:
        raise DataError(
            f"a quoted field is not closed as it should be ({error})",
            "close the quote, or double quotes inside quoted fields",
            file=request.path,
            line=last + 1,
        ) from None


def _header(content: bytes, request: Request, findings: list[Finding]) -> tuple[str, list[str]]:
    """The delimiter and the column names. A ``.csv`` without a comma in its header may have another delimiter."""
    delimiter = "\t" if ".tsv" in request.path.name.lower() else ","
    header = _first_row(content, delimiter)
    if len(header) <= 1:
        for other in (";", "|", "\t", ","):
            split = _first_row(content, other)
            if len(split) > 1:
                delimiter, header = other, split
                findings.append(
                    Finding(severity="info", subject=request.path.name, message=f"the delimiter is {other!r}")
                )
                break
    if not header:
        raise DataError("the header line cannot be parsed", "check its quotes", file=request.path, line=1)
    check_columns(len(header), request.path)
    repeated = sorted(name for name, count in Counter(header).items() if count > 1)
    if repeated:
        raise DataError(
            f"column names must be different, but {', '.join(map(repr, repeated[:5]))} occurs more than once",
            "rename or remove the copies",
            file=request.path,
            line=1,
        )
    return delimiter, header


def _first_row(content: bytes, delimiter: str) -> list[str]:
    # A header with line breaks in quoted names spans lines; one MiB of header is enough for any real file.
    text = content[: 1 << 20].decode("utf-8", errors="ignore")
    try:
        return next((row for row in csv.reader(io.StringIO(text, newline=""), delimiter=delimiter) if row), [])
    except csv.Error:
        return []  # an unclosed quote: no header under this delimiter


def _named(header: list[str]) -> list[str]:
    """Column names; a nameless first column, as pandas writes its index, gets the name that pandas gives it."""
    return [name or f"Unnamed: {position}" for position, name in enumerate(header)]


def _ragged(content: bytes, delimiter: str, n_fields: int, request: Request) -> DataError:
    """Say which line has too many or too few fields, and how many more there are. Only run when parsing failed."""
    reader = csv.reader(io.StringIO(content.decode("utf-8"), newline=""), delimiter=delimiter)
    bad: list[tuple[int, int]] = []
    try:
        bad = [(reader.line_num, len(row)) for row in reader if row and len(row) != n_fields]
    except csv.Error as error:
        return DataError(
            f"the line cannot be parsed ({error})", "check its quotes", file=request.path, line=reader.line_num
        )
    if not bad:
        return DataError("the file is not a table that can be parsed", "check its quotes", file=request.path)
    line, found = bad[0]
    more = f" ({len(bad) - 1} more such rows)" if len(bad) > 1 else ""
    return DataError(
        f"a row must have {n_fields} fields like the header, but has {found}{more}",
        "fix the row, or quote fields that contain the delimiter",
        file=request.path,
        line=line,
    )


def _decimal_points(frame: pd.DataFrame, findings: list[Finding]) -> pd.DataFrame:
    """Write ``27,5`` as ``27.5`` in columns that are numbers with decimal commas throughout."""
    changed: dict[str, pd.Series] = {}
    for name, column in frame.items():
        present = column.dropna()
        if not present.empty and present.str.contains(",").any() and present.str.fullmatch(_DECIMAL_COMMA).all():
            changed[str(name)] = column.str.replace(",", ".")
            findings.append(
                Finding(severity="info", subject=str(name), message="decimal commas are read as decimal points")
            )
    return frame.assign(**changed)
