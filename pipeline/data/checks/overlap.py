"""Parts that share what they should not: the same rows, the same groups, the same time."""

from __future__ import annotations

import hashlib
import re
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pandas as pd

from pipeline.data.checks.parts import Parts
from pipeline.data.dataset import Features
from pipeline.data.findings import Finding
from pipeline.data.times import in_time_order, stamps, time_format
from pipeline.data.values import numbers, texts

SHARE: Final = 0.01
"""Repeated rows from this share of a held-out part are a warning: they may move an accuracy by as much."""
FEWEST: Final = 3
"""... and from so many rows: measurements of little resolution repeat by chance."""
GROUP_NAME: Final = re.compile(
    r"(^|.*[_\s-])(patient|subject|user|customer|client|person|speaker|session|household|device|account)([_\s-]?(id|no|nr))?"
    r"|.*[_\s-]id",
    re.IGNORECASE,
)
"""Names of columns whose values stand for somebody or something that has several rows."""
_MOST_GROUPS: Final = 0.5
_LEAST_GROUPS: Final = 10


def find_duplicates(parts: Parts) -> list[Finding]:
    """Rows of a held-out part whose features a training row has too, and rows that are in several folds."""
    names = list(parts.types)
    train = row_hashes(parts.train.features, names)
    found: list[Finding] = []
    for name, part in parts.held_out:
        repeated = np.isin(row_hashes(part.features, names), train)
        found += _repeated(f"rows of the {name} part are in the training part too", int(repeated.sum()), len(part))
    if parts.folds is not None:
        codes, _ = pd.factorize(train)
        folds_of_row = pd.DataFrame({"row": codes, "fold": parts.folds}).groupby("row")["fold"].transform("nunique")
        found += _repeated("rows are in more than one fold", int((folds_of_row > 1).sum()), len(train))
    return found


def _repeated(what: str, n: int, n_rows: int) -> list[Finding]:
    if n == 0:
        return []
    return [
        Finding(
            severity="warning" if n >= max(FEWEST, SHARE * n_rows) else "info",
            subject="split",
            message=what,
            evidence=f"{n:,} of {n_rows:,}, {n / n_rows:.1%}",
            remedy="remove repeated rows, or split by the group that they belong to",
            check="duplicates",
        )
    ]


def row_hashes(features: Features, names: list[str]) -> npt.NDArray[np.uint64]:
    """A hash of every row's features ``(N,)``; of a table only the columns in `names`."""
    if isinstance(features, pd.DataFrame):
        return np.asarray(pd.util.hash_pandas_object(features[names], index=False), dtype=np.uint64)
    rows = (np.ascontiguousarray(row) for row in features)
    digests = b"".join(hashlib.blake2b(row.data, digest_size=8).digest() for row in rows)
    return np.frombuffer(digests, dtype=np.uint64)


def find_group_overlap(parts: Parts) -> list[Finding]:
    """Groups with rows in more than one part: those of the split's column, or of a column that is named like one."""
    train = parts.train.features
    if not isinstance(train, pd.DataFrame):
        return []
    column = parts.split.column
    if column is not None:
        declared = parts.split.by in ("group", "kfold") and parts.separate_test and column in parts.test.features
        return _shared(parts, column, "the split is by it, but the test file shares its groups") if declared else []
    found: list[Finding] = []
    for name in (name for name in train.columns if GROUP_NAME.fullmatch(str(name))):
        n_groups = texts(train[name]).nunique()
        if _LEAST_GROUPS <= n_groups <= _MOST_GROUPS * len(train):
            found += _shared(parts, str(name), "it looks like a group, and the parts share groups")
    return found


def _shared(parts: Parts, column: str, message: str) -> list[Finding]:
    assert isinstance(parts.test.features, pd.DataFrame)
    if column not in parts.test.features.columns:
        return []
    known = texts(parts.train.features[column]).dropna().unique()  # type: ignore[call-overload]
    shared = texts(parts.test.features[column]).isin(known)
    if not shared.any():
        return []
    return [
        Finding(
            severity="warning",
            subject=column,
            message=message,
            evidence=f"{shared.mean():.1%} of the test rows have a group of the training part",
            remedy=f"set data.split: {{by: group, column: {column}}} if the model will meet new ones",
            check="groups",
        )
    ]


def find_time_overlap(parts: Parts) -> list[Finding]:
    """Rows in the order of time that are divided at random, and a test file that is not after its training rows."""
    source, column = parts.source.features, parts.split.column
    if not isinstance(source, pd.DataFrame) or parts.split.by == "group":
        return []
    if parts.split.by != "time":
        return [
            Finding(
                severity="warning",
                subject=str(name),
                message="the rows stand in the order of this time, but are divided at random: rows from the future "
                "would tell what lies between them",
                evidence=f"{len(source):,} rows from {source[name].iloc[0]} to {source[name].iloc[-1]}",
                remedy=f"set data.split: {{by: time, column: {name}}}",
                check="time",
            )
            for name in source.columns
            if _may_be_time(source[name]) and in_time_order(source[name])
        ][:1]
    assert column is not None
    test = parts.test.features
    if not parts.separate_test or not isinstance(test, pd.DataFrame) or column not in test.columns:
        return []
    latest, earliest = np.nanmax(_when(source[column])), np.nanmin(_when(test[column]))
    if earliest > latest:
        return []
    return [
        Finding(
            severity="warning",
            subject=column,
            message="the test file has rows that are not after the training rows",
            evidence=f"its first is {texts(test[column]).min()}, the last of the source {texts(source[column]).max()}",
            remedy="take later rows for the test",
            check="time",
        )
    ]


def _may_be_time(column: pd.Series) -> bool:
    """A look at a hundred rows, before all are read."""
    return column.dtype.kind not in "biuf" and time_format(column.iloc[:100]) is not None


def _when(column: pd.Series) -> npt.NDArray[Any]:
    values = numbers(column)
    return values if not np.isnan(values).all() else stamps(column, time_format(column) or "ISO8601")
