"""Raw rows and raw targets from the files that a search read, cell by cell as it read them."""

from __future__ import annotations

import gzip
import hashlib
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow.parquet as pq
from sklearn import datasets

from pipeline.data.readers.arrays import channels_first, labels_beside
from pipeline.data.readers.parquet_table import plain_frame
from pipeline.data.values import MISSING
from pipeline.packaging.script.plan import Plan

Raw = tuple[Any, npt.NDArray[Any]]
"""Features: a DataFrame, images ``(N, C, H, W)``, or a list of sequences ``(T, D)``; and one target a row."""


def read_delimited(path: str, plan: Plan) -> Raw:
    """A csv or tsv file, every cell as text: what it means is decided by its column's type."""
    frame = pd.read_csv(
        path,
        sep=plan.delimiter,
        encoding=plan.encoding,
        dtype=str,
        index_col=False,
        keep_default_na=False,
        na_values=list(MISSING),
    )
    if plan.delimiter != ",":  # columns of numbers with decimal commas
        for name, column in frame.items():
            present = column.dropna()
            comma = present.str.contains(",").any()
            if comma and present.str.fullmatch(r"[-+]?\d+(?:,\d+)?(?:[eE][-+]?\d+)?").all():
                frame[name] = column.str.replace(",", ".")
    return _parted(frame, plan)


def read_parquet(path: str, plan: Plan) -> Raw:
    """A parquet table."""
    columns = plan.columns
    dates = [name for name, _ in columns.datetime]
    names = [*columns.numeric, *columns.categorical, *dates, *columns.text, str(plan.target)]
    return _parted(plain_frame(pq.read_table(path, columns=names)), plan)


def read_records(path: str, plan: Plan) -> Raw:
    """JSON lines, a record of plain values each: cells as text, as a csv file has them."""
    records = [json.loads(line) for line in _text(path).split("\n") if line.strip()]
    names = list(dict.fromkeys(name for record in records for name in record))
    return _parted(pd.DataFrame({name: [_cell(r.get(name)) for r in records] for name in names}, dtype="str"), plan)


def read_record_sequences(path: str, plan: Plan) -> Raw:
    """JSON lines, a list of steps each, and a target."""
    records = [json.loads(line) for line in _text(path).split("\n") if line.strip()]
    names = dict.fromkeys(name for record in records for name in record)
    [listed] = [name for name in names if any(isinstance(record.get(name), list) for record in records)]
    steps = [np.asarray(record[listed], dtype=np.float32) for record in records]
    target = np.array([_cell(record.get(plan.target)) for record in records], dtype=object)
    return [s[:, None] if s.ndim == 1 else s for s in steps], target


def read_ts(path: str, plan: Plan) -> Raw:
    """The UEA archive's format: a case a line, dimensions divided by ``:``, the label last; ``?`` is missing."""
    lines = [line.strip() for line in _text(path).splitlines()]
    start = next(number for number, line in enumerate(lines) if line.lower().startswith("@data")) + 1
    series, labels = [], []
    for line in lines[start:]:
        if line and not line.startswith("#"):
            dimensions, _, label = line.rpartition(":")
            rows = [np.array(p.replace("?", "nan").split(","), dtype=np.float32) for p in dimensions.split(":")]
            series.append(np.stack(rows, axis=1))
            labels.append(label.strip())
    return series, np.array(labels, dtype=object)


def read_npz(path: str, plan: Plan) -> Raw:
    """Two arrays of an archive."""
    with np.load(path, allow_pickle=False) as arrays:
        x, y = arrays[str(plan.features)], arrays[str(plan.target)]
    if plan.kind == "tabular":
        return pd.DataFrame(x, columns=pd.Index([f"x{i}" for i in range(x.shape[1])])), y
    if plan.kind == "image":
        return channels_first(x), y
    steps = x.astype(np.float32, copy=False)
    return list(steps if x.ndim == 3 else steps[:, :, None]), y


def read_idx(path: str, plan: Plan) -> Raw:
    """MNIST's format, the labels in a file of their own beside the images."""
    return channels_first(_idx(Path(path))), _idx(labels_beside(Path(path)))


def read_sklearn(path: str, plan: Plan) -> Raw:
    """One of scikit-learn's own sets, ``sklearn:NAME``."""
    name = path.removeprefix("sklearn:")
    if name == "digits":
        digits = datasets.load_digits()
        return digits.images.astype(np.uint8)[:, None], digits.target
    bunch = getattr(datasets, f"load_{name}")(as_frame=True)
    return bunch.data, bunch.target.to_numpy()


def sha256_of(path: str) -> str:
    """Of a source's content, labels in a file beside it included, to know it again; empty for one that is no file."""
    if path.startswith("sklearn:"):
        return ""
    beside = labels_beside(Path(path))
    files = [Path(path), *([beside] if "-idx" in path and beside.is_file() else [])]
    return " ".join(_digest(file) for file in files)


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _parted(frame: pd.DataFrame, plan: Plan) -> Raw:
    return frame.drop(columns=[plan.target]), frame[plan.target].to_numpy()


def _cell(value: object) -> str | None:
    return None if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def _text(path: str) -> str:
    content = Path(path).read_bytes()
    return (gzip.decompress(content) if content.startswith(b"\x1f\x8b") else content).decode("utf-8-sig")


def _idx(path: Path) -> npt.NDArray[Any]:
    """Two zero bytes, a type, the number of axes, their lengths as big-endian int32, then the values."""
    content = path.read_bytes()
    content = gzip.decompress(content) if content.startswith(b"\x1f\x8b") else content
    kind = np.dtype({8: "u1", 9: "i1", 11: ">i2", 12: ">i4", 13: ">f4", 14: ">f8"}[content[2]])
    start = 4 + 4 * content[3]
    shape = [int(n) for n in np.frombuffer(content[4:start], ">i4")]
    values = np.frombuffer(content, kind, math.prod(shape), start)
    return values.reshape(shape).astype(kind.newbyteorder("="))
