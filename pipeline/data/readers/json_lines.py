"""JSON lines: a record a line, of plain values (a table) or with one list of numbers (sequences)."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from pipeline.data.dataset import Dataset
from pipeline.data.findings import Finding
from pipeline.data.readers.request import Request, check_columns, check_size, read_bytes
from pipeline.data.readers.table import target_column, to_dataset
from pipeline.errors import DataError

Record = dict[str, Any]


def read_jsonl(request: Request) -> Dataset:
    """Records of plain values are a table. Records in which one name has lists of numbers are sequences: a list of
    steps, or of lists of values a step; null and NaN are missing.

    Raises:
        DataError: a line that is no JSON object, or a list that is none of numbers, with the line.
    """
    request.refuse_other_than("tabular", "sequence")
    records = _records(request)
    names = list(dict.fromkeys(name for record in records for name in record))
    check_columns(len(names), request.path)
    listed = [name for name in names if any(isinstance(record.get(name), list) for record in records)]
    if not listed or request.wants_table:
        check_size(len(records) * len(names), request.path)
        return _table(records, names, request)
    if len(listed) > 1:
        raise DataError(
            f"one name may have lists of numbers, but {', '.join(map(repr, listed[:3]))} do",
            "put the values of a step together: [[1, 2], [3, 4]]",
            file=request.path,
        )
    return _sequences(records, names, listed[0], request)


def _records(request: Request) -> list[Record]:
    try:
        text = read_bytes(request.path).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError("JSON lines must be UTF-8", "save the file as UTF-8", file=request.path) from error
    records: list[Record] = []
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except (ValueError, RecursionError) as error:
            reason = getattr(error, "msg", "too deep")
            raise DataError(
                f"the line is not JSON ({reason})", "correct or remove it", file=request.path, line=number
            ) from None
        if not isinstance(record, dict):
            raise DataError("a line must be a JSON object", "write {...} a line", file=request.path, line=number)
        records.append(record)
    if not records:
        raise DataError("the file has no records", "give it lines of JSON", file=request.path)
    return records


def _table(records: list[Record], names: list[str], request: Request) -> Dataset:
    findings: list[Finding] = []
    columns: dict[str, pd.Series] = {}
    for name in names:
        cells = [record.get(name) for record in records]
        if any(isinstance(cell, dict | list) for cell in cells):
            if name == request.target:
                raise DataError(f"the target {name!r} has nested values", "a target must be plain", file=request.path)
            message = "nested values are not used: left out"
            findings.append(Finding(severity="warning", subject=name, message=message, check="values"))
            continue
        columns[name] = pd.Series([None if cell is None else _text(cell) for cell in cells], dtype="str")
    return to_dataset(pd.DataFrame(columns), request, findings)


def _text(cell: object) -> str:
    """As a CSV file would have it, so that types are inferred alike."""
    return str(cell).lower() if isinstance(cell, bool) else str(cell)


def _sequences(records: list[Record], names: list[str], listed: str, request: Request) -> Dataset:
    values = [record.get(listed) for record in records]  # not all of them need be lists
    check_size(sum(len(value) for value in values if isinstance(value, list)), request.path)
    series = []
    for number, value in enumerate(values, start=1):
        try:
            with np.errstate(over="ignore"):  # what float32 cannot hold is infinite, as if it were written so
                steps: npt.NDArray[np.float32] = np.asarray(value, dtype=np.float32)
        except (ValueError, TypeError, OverflowError):
            steps = np.empty(0, dtype=np.float32)
        if steps.ndim not in (1, 2) or steps.size == 0:
            raise DataError(
                f"record {number}: {listed!r} must be a list of one or more numbers, or of equally long lists of them",
                "correct or remove the record",
                file=request.path,
            )
        series.append(steps[:, None] if steps.ndim == 1 else steps)
    widths = {steps.shape[1] for steps in series}
    if len(widths) > 1:
        raise DataError(
            f"all steps must have as many values, but have {sorted(widths)[:5]}", "correct them", file=request.path
        )
    if not request.labelled:
        return Dataset("sequence", series, None, request.path.stem)
    target = target_column(request, names)
    labels = np.array([None if r.get(target) is None else _text(r[target]) for r in records], dtype=object)
    others = [name for name in names if name not in (listed, target)]
    findings = [
        Finding(severity="info", subject=name, message="is not part of the sequence: left out") for name in others
    ]
    return Dataset("sequence", series, labels, request.path.stem, tuple(findings))
