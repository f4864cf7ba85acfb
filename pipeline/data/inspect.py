"""Looking at data that nobody has described yet: what it is, what is predicted, how it should be divided, and why."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import numpy as np
import pandas as pd

from pipeline.data.assemble import target_of
from pipeline.data.config import ColumnType, DataConfig, ForecastConfig, SplitBy, SplitConfig
from pipeline.data.dataset import Dataset
from pipeline.data.findings import Finding
from pipeline.data.forecast.assemble import assemble_forecast
from pipeline.data.forecast.propose import is_nothing_else, propose_forecast
from pipeline.data.identity import row_hashes
from pipeline.data.infer import Target, infer_columns, infer_target
from pipeline.data.preprocess.target import encode_labels
from pipeline.data.source import image_shape, locate, read_located
from pipeline.data.spec import Kind, Label, Task
from pipeline.data.split import make_split
from pipeline.data.times import in_time_order
from pipeline.errors import DataError

IMBALANCE: Final = 10
"""From this ratio of the largest class to the smallest, accuracy says little about the small one."""

_PAIRS: Final = (
    ("train", "test"), ("TRAIN", "TEST"), ("Train", "Test"), ("train-images", "t10k-images"), ("train", "dev"),
    ("train", "valid"),
)  # fmt: skip
"""What stands for training rows in a file's name, and what its test has there."""


@dataclass(frozen=True, slots=True)
class Inspection:
    """What was seen. Every choice that is not the only one has its reason."""

    kind: Kind
    task: Task
    labels: tuple[Label, ...]
    counts: tuple[int, ...]
    """Rows of each label."""
    n_rows: int
    n_test: int
    """Rows of the separate test; 0 where there is none."""
    types: Mapping[str, ColumnType]
    """Of a table's columns."""
    settled: Mapping[str, ColumnType]
    """Types that the file has to name, because the split would take the column otherwise."""
    split: SplitBy
    split_column: str | None
    split_reason: str
    test_reason: str
    use_test: bool
    findings: tuple[Finding, ...]
    forecast: ForecastConfig | None = None
    """Of a forecast: every setting, as it was found."""
    is_series: bool = False
    """The rows are regular series over time, though something else is predicted."""

    @property
    def imbalanced(self) -> bool:
        return bool(self.counts) and max(self.counts) >= IMBALANCE * min(self.counts)


def test_beside(source: Path) -> Path | None:
    """The test that lies beside a file or folder of training rows, by its name; None where there is none."""
    for train, test in _PAIRS:
        if train in source.name:
            other = source.with_name(source.name.replace(train, test))
            if other.exists() and other != source:
                return other
    return None


def inspect_source(
    source: str, test: str | None, root: Path, target: str | None, kind: Kind | None = None
) -> Inspection:
    """Read a source, and the test beside it, and settle what a search needs to know.

    Args:
        kind: what the user says it is. Without it, series are forecast where nothing else stands beside their times.

    Raises:
        DataError: the data cannot be read or learned from.
    """
    data = read_located(locate(source, root), target, kind)
    name = target or "target"
    series = _series(data, name)
    try:
        if kind == "forecast" or (
            kind is None and series is not None and is_nothing_else(_whole(data, name), name, series)
        ):
            return _forecast(source, test, root, data, name, series or ForecastConfig())
        found = infer_target(target_of(data), name, data.kind, "auto")
        types, findings = _columns(data)
    except DataError as error:
        raise DataError(error.what, error.remedy, file=error.file or source) from error
    used = [kind for kind in types.values() if kind != "drop"]
    if data.kind == "tabular" and used == ["text"]:
        data = replace(data, kind="text")
    tested = None if test is None else _test(test, root, data, found, name)
    use_test = isinstance(tested, Dataset)
    settled, split, column, reason = _split(data, found, types, with_test=not use_test)
    codes = encode_labels(found.labels, target_of(data)) if found.labels else np.empty(0, dtype=np.int64)
    return Inspection(
        kind=data.kind,
        task=found.task,
        labels=found.labels,
        counts=tuple(np.bincount(codes, minlength=len(found.labels)).tolist()) if found.labels else (),
        n_rows=len(data),
        n_test=len(tested) if isinstance(tested, Dataset) else 0,
        types=types,
        settled=settled,
        split=split,
        split_column=column,
        split_reason=reason,
        test_reason="" if tested is None else tested if isinstance(tested, str) else f"{len(tested):,} rows beside it",
        use_test=use_test,
        findings=(*data.findings, *found.findings, *findings),
        is_series=series is not None,
    )


def _series(data: Dataset, target: str) -> ForecastConfig | None:
    return propose_forecast(_whole(data, target), target) if isinstance(data.features, pd.DataFrame) else None


def _whole(data: Dataset, target: str) -> pd.DataFrame:
    """The table with its target."""
    assert isinstance(data.features, pd.DataFrame)
    return data.features.assign(**{target: target_of(data)})


def _forecast(
    source: str, test: str | None, root: Path, data: Dataset, target: str, proposed: ForecastConfig
) -> Inspection:
    """Prepare it, which settles everything."""
    config = DataConfig(source=source, target=target, kind="forecast", forecast=proposed)
    tested: Dataset | str | None = None
    made = assemble_forecast(config, data, None)
    if test is not None:
        try:
            tested = read_located(locate(test, root), target, "forecast")
            made = assemble_forecast(config, data, tested)
        except DataError as error:
            tested = error.what
    spec = made.development.spec
    return Inspection(
        kind="forecast",
        task="forecast",
        labels=(),
        counts=(),
        n_rows=len(data),
        n_test=len(tested) if isinstance(tested, Dataset) else 0,
        types={},
        settled={},
        split="time",
        split_column=None,
        split_reason="windows are divided by the time of what they predict",
        test_reason="" if tested is None else tested if isinstance(tested, str) else f"{len(tested):,} rows beside it",
        use_test=isinstance(tested, Dataset),
        findings=made.findings,
        forecast=proposed.model_copy(update={"horizon": spec.horizon, "context": spec.n_steps, "season": spec.season}),
    )


def _columns(data: Dataset) -> tuple[dict[str, ColumnType], tuple[Finding, ...]]:
    if not isinstance(data.features, pd.DataFrame):
        return {}, ()
    return infer_columns(data.features, np.arange(len(data)), {})


def _test(test: str, root: Path, data: Dataset, target: Target, name: str) -> Dataset | str:
    """The test's rows, or why they cannot be the test of this data."""
    try:
        tested = read_located(locate(test, root), None if name == "target" else name, data.kind, image_shape(data))
        if isinstance(data.features, pd.DataFrame) and isinstance(tested.features, pd.DataFrame):
            missing = [str(column) for column in data.features.columns if column not in tested.features.columns]
            if missing:
                return f"it lacks the column {missing[0]!r}"
        if target.labels:
            encode_labels(target.labels, target_of(tested))
    except DataError as error:
        return error.what
    return tested


def _split(
    data: Dataset, target: Target, types: Mapping[str, ColumnType], *, with_test: bool
) -> tuple[dict[str, ColumnType], SplitBy, str | None, str]:
    """Types to settle, the split, its column and the reason."""
    if isinstance(data.features, pd.DataFrame):
        used = [name for name, kind in types.items() if kind != "drop"]
        for name in (name for name in used if types[name] == "datetime"):
            if in_time_order(data.features[name]):
                # A column that divides the rows is no feature, unless there is no other.
                settled: dict[str, ColumnType] = {name: "datetime"} if used == [name] else {}
                return settled, "time", name, f"the rows stand in the order of {name}: the last ones are held out"
    classes = encode_labels(target.labels, target_of(data)) if target.labels else None
    made, _ = make_split(SplitConfig(), row_hashes(data.features), classes=classes, key=None, with_test=with_test)
    if made.folds is not None:
        return {}, "kfold", None, f"{len(data):,} rows would leave a small validation part: cross-validated instead"
    if classes is None:
        return {}, "random", None, "nothing tells that rows belong together"
    return {}, "stratified", None, "each part gets its share of every class"
