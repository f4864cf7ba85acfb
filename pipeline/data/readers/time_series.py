"""The ``.ts`` text format of the UEA and UCR time series archive (https://www.aeon-toolkit.org, "ts file format")."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from pipeline.data.dataset import Dataset
from pipeline.data.readers.request import Request, check_size, read_bytes
from pipeline.errors import DataError

Series = npt.NDArray[np.float32]


def read_ts(request: Request) -> Dataset:
    """Series of equal or unequal length: one case a line, dimensions divided by ``:``, the label last.

    Raises:
        DataError: not this format, with time stamps, or a case that cannot be read, with its line.
    """
    request.refuse_other_than("sequence")
    path = request.path
    try:
        lines = read_bytes(path).decode("utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise DataError("a .ts file must be UTF-8", "save it as UTF-8", file=path) from error
    header, first = _header(lines, request)
    if header.get("@timestamps", "false").lower() == "true":
        raise DataError("series with time stamps are not read", "write values only", file=path)
    has_label = header.get("@classlabel", header.get("@targetlabel", "false")).lower().startswith("true")
    if request.labelled and not has_label:
        raise DataError("the header says that cases have no label", "use a labelled file", file=path)
    check_size(sum(line.count(",") + 1 for line in lines[first:]), path)
    series: list[Series] = []
    labels: list[str] = []
    for number, line in enumerate(lines[first:], start=first + 1):
        if not line.strip() or line.startswith("#"):
            continue
        dimensions, separator, label = line.rpartition(":") if has_label else (line, ":", "")
        if not separator or (has_label and not label.strip()):
            raise DataError("a case must end with :label", "add its label", file=path, line=number)
        case = _case(dimensions, request, number)
        if series and case.shape[1] != series[0].shape[1]:
            raise DataError(
                f"every case must have {series[0].shape[1]} dimensions, but this one has {case.shape[1]}",
                "fix or remove it",
                file=path,
                line=number,
            )
        series.append(case)
        labels.append(label.strip())
    if not series:
        raise DataError("there are no cases after @data", "give it cases", file=path)
    target = np.array(labels, dtype=object) if request.labelled else None
    return Dataset("sequence", series, target, path.stem)


def _header(lines: list[str], request: Request) -> tuple[dict[str, str], int]:
    """The ``@`` lines by lower-case name, and the index of the line after ``@data``."""
    header: dict[str, str] = {}
    for index, line in enumerate(lines):
        if not line.startswith("@"):
            continue
        name, _, value = line.strip().partition(" ")
        if name.lower() == "@data":
            return header, index + 1
        header[name.lower()] = value
    raise DataError("there is no @data line", "use a .ts file of the UEA archive", file=request.path)


def _case(text: str, request: Request, line: int) -> Series:
    """One case as ``(T, D)``; ``?`` is a missing value."""
    try:
        rows = [np.array(part.replace("?", "nan").split(","), dtype=np.float32) for part in text.split(":")]
    except ValueError as error:
        raise DataError(f"a value is no number ({error})", "fix it", file=request.path, line=line) from None
    if len({len(row) for row in rows}) != 1:
        raise DataError(
            f"the dimensions of a case must be equally long, but have {', '.join(str(len(row)) for row in rows)} steps",
            "fix or remove it",
            file=request.path,
            line=line,
        )
    return np.ascontiguousarray(np.stack(rows, axis=1))
