"""How the rows of a data set are divided to ask where a model errs: columns by their levels or training quartiles,
sequences by length, all by class. Fitted on the training part, so that the sealed test has no say in it."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from datetime import UTC, datetime
from itertools import pairwise
from typing import Final, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd
from pydantic import BaseModel, ConfigDict

from pipeline.data.dataset import Features
from pipeline.data.spec import Label
from pipeline.data.times import stamps, time_format
from pipeline.data.values import all_numbers, level_texts, numbers

MOST_LEVELS: Final = 20
"""Of a column, the most frequent in training; the others are one level together."""
OTHER: Final = "other levels"
MISSING: Final = "missing"
LENGTH: Final = "length"
Mask = npt.NDArray[np.bool_]


class Level(NamedTuple):
    """One slice of given rows."""

    column: str
    name: str
    rows: Mask
    """``(N,)``."""
    is_class: bool = False
    is_bin: bool = False


class Cut(BaseModel):
    """One column and how its values are divided."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    column: str
    kind: Literal["levels", "numbers", "times"]
    levels: tuple[str, ...] = ()
    """By falling frequency, where the kind is levels."""
    numeric: bool = False
    """All levels are numbers, so that ``1`` and ``1.0`` are one."""
    edges: tuple[float, ...] = ()
    """Inner edges of the bins, ascending; an edge belongs to the bin below it. Times are in seconds since 1970."""
    format: str = ""
    """Of times."""

    def divide(self, column: pd.Series) -> Iterator[tuple[str, Mask]]:
        """The rows of each level or bin, those without a value last. Every row is in exactly one."""
        if self.kind == "levels":
            text = level_texts(column, self.numeric)
            codes = pd.Index(self.levels, dtype="str").get_indexer(pd.Index(text))
            absent = text.isna().to_numpy()
            names = [*self.levels, OTHER]
            codes = np.where(codes < 0, len(self.levels), codes)
        else:
            values = numbers(column) if self.kind == "numbers" else stamps(column, self.format)
            absent = np.isnan(values)
            codes = np.searchsorted(self.edges, np.where(absent, 0.0, values), side="left")
            names = self.bins
        for code, name in enumerate(names):
            yield name, (codes == code) & ~absent
        yield MISSING, absent

    @property
    def bins(self) -> list[str]:
        """Names of the bins; none where the kind is levels."""
        if self.kind == "levels":
            return []
        said = [_date(edge) if self.kind == "times" else _number(edge) for edge in self.edges]
        if not said:
            return ["of any value"]
        return [f"<= {said[0]}", *(f"{a} to {b}" for a, b in pairwise(said)), f"> {said[-1]}"]


class Slicing(BaseModel):
    """All the ways in which the rows of a data set are divided."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    cuts: tuple[Cut, ...] = ()
    target: str
    """What the slices by class are called."""
    labels: tuple[Label, ...] = ()
    """The classes; empty for regression."""

    @property
    def columns(self) -> tuple[str, ...]:
        """Everything that rows can be divided by."""
        return (*(cut.column for cut in self.cuts), *([self.target] if self.labels else []))

    def narrowed(self, most: int, keep: Collection[str] = ()) -> Slicing:
        """The first `most` columns, and those to `keep`."""
        cuts = tuple(cut for at, cut in enumerate(self.cuts) if at < most or cut.column in keep)
        return self.model_copy(update={"cuts": cuts})

    def divide(self, features: Features, codes_N: npt.NDArray[np.int64] | None) -> Iterator[Level]:
        """Every slice of raw rows; a column that they lack has none.

        Args:
            codes_N: the rows' classes as codes of `labels`; None for regression.
        """
        for cut in self.cuts:
            column = _column(features, cut.column)
            if column is not None:
                bins = cut.bins
                yield from (Level(cut.column, n, rows, is_bin=n in bins) for n, rows in cut.divide(column))
        if codes_N is not None:
            yield from (Level(self.target, str(n), codes_N == at, True) for at, n in enumerate(self.labels))


def fit_slicing(
    features: Features, schema: Mapping[str, str], target: str, labels: tuple[Label, ...], asked: Collection[str] = ()
) -> Slicing:
    """Look at raw training rows.

    Args:
        schema: the columns that models use, and their types. Columns that no model sees are divided where they have few
            levels, or where the user named them: the model may treat them unequally all the same.
        asked: columns that the experiment file names.
    """
    if isinstance(features, pd.DataFrame):
        names = sorted(map(str, features.columns), key=lambda name: name not in schema)
        fitted = (_fit(name, features[name], schema.get(name), name in asked) for name in names)
        cuts = tuple(cut for cut in fitted if cut is not None)
    elif isinstance(features, np.ndarray):
        cuts = ()
    else:
        cut = _numbers(LENGTH, np.array([len(series) for series in features], dtype=np.float64))
        cuts = (cut,) if cut.edges else ()
    return Slicing(cuts=cuts, target=target, labels=labels)


def _fit(name: str, column: pd.Series, kind: str | None, asked: bool) -> Cut | None:
    if kind == "text":
        return None
    if kind == "numeric":
        return _numbers(name, numbers(column))
    if kind == "datetime":
        format_ = time_format(column)
        return None if format_ is None else _numbers(name, stamps(column, format_), format_)
    cut, n_levels = _levels(name, column)
    if kind == "categorical" or 2 <= n_levels <= MOST_LEVELS:
        return cut
    return _numbers(name, numbers(column)) if asked and cut.numeric else None


def _levels(name: str, column: pd.Series) -> tuple[Cut, int]:
    numeric = all_numbers(column)
    counts = level_texts(column, numeric).value_counts()
    ordered = sorted((-count, str(level)) for level, count in counts.items())  # ties by name, not by place
    levels = tuple(level for _, level in ordered[:MOST_LEVELS])
    return Cut(column=name, kind="levels", levels=levels, numeric=numeric), len(counts)


def _numbers(name: str, values: npt.NDArray[np.float64], format_: str = "") -> Cut:
    present = values[np.isfinite(values)]
    edges: list[float] = []
    if len(present):
        quartiles = np.quantile(present, [0.25, 0.5, 0.75], method="inverted_cdf")
        edges = np.unique(quartiles[quartiles < present.max()]).tolist()
    return Cut(column=name, kind="times" if format_ else "numbers", edges=tuple(edges), format=format_)


def _column(features: Features, name: str) -> pd.Series | None:
    if isinstance(features, pd.DataFrame):
        return features[name] if name in features.columns else None
    return pd.Series([float(len(series)) for series in features])


def _number(value: float) -> str:
    return f"{value:.6g}" if abs(value) < 1e6 else f"{value:,.0f}"


def _date(seconds: float) -> str:
    when = datetime.fromtimestamp(seconds, UTC)
    return when.strftime("%Y-%m-%d" if seconds % 86_400 == 0 else "%Y-%m-%d %H:%M")
