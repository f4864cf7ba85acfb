"""Tables to tensors: numbers through their quantiles to a normal distribution, categories to codes, dates to parts,
free text to hashed words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Annotated, Any, Final, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, model_validator
from sklearn.preprocessing import QuantileTransformer

from pipeline.data.config import ColumnType
from pipeline.data.dataset import Features
from pipeline.data.preprocess.datetimes import DatetimeColumn, fit_datetime
from pipeline.data.preprocess.words import TextColumn, fit_text
from pipeline.data.tensors import Inputs
from pipeline.data.values import all_numbers, level_texts, numbers
from pipeline.errors import DataError

MAX_QUANTILES: Final = 1000
MAX_LEVELS: Final = 1000
MIN_LEVEL_COUNT: Final = 2
"""Levels with fewer training rows share the code for rare ones."""
MAX_BINS: Final = 48
_TAIL: Final = 1e-7
"""scikit-learn's bound: the transform ends at the normal quantiles of 1e-7 and 1 - 1e-7, about +-5.2."""


class NumericColumn(BaseModel):
    """One numeric column as its training part was."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    median: FiniteFloat
    """Stands for missing values."""
    quantiles: Annotated[tuple[FiniteFloat, ...], Field(min_length=1, max_length=MAX_QUANTILES)]
    """Evenly spaced from the smallest to the largest training value, ascending."""
    indicator: bool
    """Whether training had missing values, so that a 0/1 column tells where they are."""

    @model_validator(mode="after")
    def _ascending(self) -> NumericColumn:
        if any(low > high for low, high in pairwise(self.quantiles)):
            raise ValueError(f"the quantiles of {self.name!r} must ascend")
        return self


class CategoricalColumn(BaseModel):
    """One categorical column: code 0 is missing, 1 the most frequent level, and so on."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    levels: Annotated[tuple[str, ...], Field(max_length=MAX_LEVELS)]
    numeric: bool
    """All levels are numbers, so that ``1``, ``1.0`` and ``01`` are one."""
    rare: bool
    """Whether training had levels that are not listed. If so the last code is theirs and that of unseen levels;
    otherwise unseen levels count as missing."""

    @property
    def cardinality(self) -> int:
        return 1 + len(self.levels) + self.rare


class TabularPreprocessor(BaseModel):
    """Fitted on training rows. Columns are found by name: their order does not matter, others are ignored."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["tabular"] = "tabular"
    numeric: tuple[NumericColumn, ...]
    categorical: tuple[CategoricalColumn, ...]
    datetime: tuple[DatetimeColumn, ...] = ()
    text: tuple[TextColumn, ...] = ()

    @property
    def n_numeric(self) -> int:
        """Width of ``Inputs.x``: the numeric columns, an indicator for each that has one, dates, hashed words."""
        numeric = len(self.numeric) + sum(column.indicator for column in self.numeric)
        return numeric + sum(c.width for c in self.datetime) + sum(c.n_features for c in self.text)

    @property
    def n_hashed(self) -> int:
        """Columns at the end of ``Inputs.x`` that are hashed words."""
        return sum(column.n_features for column in self.text)

    @property
    def cardinalities(self) -> tuple[int, ...]:
        return tuple(column.cardinality for column in self.categorical)

    @property
    def scales(self) -> tuple[tuple[float, ...], ...]:
        """As `DataSpec.scales`."""
        return scales_of([(column.median, column.quantiles) for column in self.numeric], self.n_numeric)

    @property
    def schema_of_features(self) -> dict[str, str]:
        """Feature name to type, for the columns that are used."""
        groups: dict[str, tuple[NumericColumn | CategoricalColumn | DatetimeColumn | TextColumn, ...]] = {
            "numeric": self.numeric,
            "categorical": self.categorical,
            "datetime": self.datetime,
            "text": self.text,
        }
        return {column.name: kind for kind, columns in groups.items() for column in columns}

    @property
    def places(self) -> dict[str, tuple[tuple[int, ...], tuple[int, ...]]]:
        """Of each raw column, the columns of ``Inputs.x`` and of ``Inputs.categories`` that are made of it."""
        places: dict[str, tuple[tuple[int, ...], tuple[int, ...]]] = {}
        indicator = len(self.numeric)
        for position, column in enumerate(self.numeric):
            places[column.name] = (position, *([indicator] if column.indicator else [])), ()
            indicator += column.indicator
        start = indicator
        several: tuple[tuple[str, int], ...] = (
            *((column.name, column.width) for column in self.datetime),
            *((column.name, column.n_features) for column in self.text),
        )
        for name, width in several:
            places[name] = tuple(range(start, start + width)), ()
            start += width
        return places | {column.name: ((), (at,)) for at, column in enumerate(self.categorical)}

    def transform(self, features: Features) -> Inputs:
        """Shape: x ``(N, n_numeric)``, categories ``(N, n_categorical)``.

        Raises:
            DataError: no table, or a column is missing.
        """
        if not isinstance(features, pd.DataFrame):
            raise DataError(f"the model needs a table, but got {type(features).__name__}", "pass a DataFrame")
        names = self.schema_of_features
        missing = [name for name in names if name not in features.columns]
        if missing:
            raise DataError(
                f"the table lacks the column{'s' * (len(missing) > 1)} {', '.join(map(repr, missing[:10]))}",
                "add what the model was trained on",
            )
        x = np.empty((len(features), self.n_numeric), dtype=np.float32)
        indicator = len(self.numeric)
        for position, column in enumerate(self.numeric):
            values = numbers(features[column.name])
            absent = np.isnan(values)
            values[absent] = column.median
            x[:, position] = _to_normal(values, np.array(column.quantiles))
            if column.indicator:
                x[:, indicator] = absent
                indicator += 1
        start = indicator
        several: tuple[DatetimeColumn | TextColumn, ...] = (*self.datetime, *self.text)
        for wide in several:
            encoded = wide.encode(features[wide.name])
            x[:, start : start + encoded.shape[1]] = encoded
            start += encoded.shape[1]
        if not self.categorical:
            return Inputs(torch.from_numpy(x))
        coded = np.stack([codes(features[column.name], column) for column in self.categorical], axis=1)
        return Inputs(torch.from_numpy(x), torch.from_numpy(coded))


def fit_tabular(frame: pd.DataFrame, types: Mapping[str, ColumnType]) -> TabularPreprocessor:
    """Fit on the training rows; `types` has every column's type."""
    named: dict[str, list[str]] = {}
    for name, kind in types.items():
        named.setdefault(kind, []).append(name)
    return TabularPreprocessor(
        numeric=tuple(_fit_numeric(name, frame[name]) for name in named.get("numeric", ())),
        categorical=tuple(fit_categorical(name, frame[name]) for name in named.get("categorical", ())),
        datetime=tuple(fit_datetime(name, frame[name]) for name in named.get("datetime", ())),
        text=tuple(fit_text(name, len(frame)) for name in named.get("text", ())),
    )


MAX_KNOTS: Final = 200_000
"""Quantiles of all columns together that a data set's `DataSpec` may hold."""


def scales_of(columns: Sequence[tuple[float, npt.ArrayLike]], n_numeric: int) -> tuple[tuple[float, ...], ...]:
    """`DataSpec.scales`: what leads from a column's normal scores back to its own scale. Where the quartiles are equal
    the unit is half the whole range (RealMLP, arXiv 2407.04491, appendix A).

    Args:
        columns: median and quantiles of each numeric column.
        n_numeric: width of ``Inputs.x``, in which they come first.
    """
    if sum(np.size(quantiles) for _, quantiles in columns) > MAX_KNOTS:
        return ()
    own = tuple(_scaled(median, np.asarray(quantiles)) for median, quantiles in columns)
    return own + ((),) * (n_numeric - len(columns))


def _scaled(median: float, quantiles: npt.NDArray[np.float64]) -> tuple[float, ...]:
    low, high = np.quantile(quantiles, (0.25, 0.75))
    unit = high - low or (quantiles[-1] - quantiles[0]) / 2
    return tuple(((quantiles - median) / unit).tolist()) if unit > 0 else ()


def bins_of(x: npt.NDArray[np.float32], n_hashed: int = 0) -> tuple[tuple[float, ...], ...]:
    """Edges of at most `MAX_BINS` quantile bins per column of transformed training values, ascending.

    Args:
        n_hashed: columns at the end that get no bins: hashed words are nearly all 0, and there are a thousand of them.
    """
    binned = x.shape[1] - n_hashed
    return tuple(_edges(column) for column in x.T[:binned]) + ((0.0,),) * n_hashed


def _edges(column: npt.NDArray[np.float32]) -> tuple[float, ...]:
    """Quantiles of the column. Where one value fills several of them, the places that fall free go to quantiles of the
    different values, so that a column of mostly zeros keeps bins for its tail."""
    edges = np.unique(np.quantile(column, np.linspace(0, 1, MAX_BINS + 1), method="nearest"))
    free = MAX_BINS + 1 - len(edges)
    if free > 0:
        ends_and_free = np.linspace(0, 1, free + 2)
        edges = np.union1d(edges, np.quantile(np.unique(column), ends_and_free, method="nearest"))
    return tuple(edges.tolist())


def _fit_numeric(name: str, column: pd.Series) -> NumericColumn:
    values = numbers(column)
    present = values[np.isfinite(values)]
    if len(present) == 0:
        raise DataError(f"the column {name!r} has no numbers", f"set data.types.{name} to categorical or drop")
    transformer = QuantileTransformer(n_quantiles=min(MAX_QUANTILES, len(present)), subsample=None)
    transformer.fit(present[:, None])
    return NumericColumn(
        name=name,
        median=float(np.median(present)),
        quantiles=tuple(transformer.quantiles_[:, 0].tolist()),
        indicator=len(present) < len(values),
    )


def _to_normal(values: npt.NDArray[np.float64], quantiles: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """scikit-learn's `QuantileTransformer` with a normal output: the mean of interpolating from both sides, so that a
    value that fills several quantiles gets the middle of their ranks. Its bounds are absolute (1e-7) and break columns
    on a scale of 1e-12; here they are exact."""
    ranks = np.linspace(0, 1, len(quantiles))
    upward = np.interp(values, quantiles, ranks)
    downward = np.interp(-values, -quantiles[::-1], -ranks[::-1])
    rank = 0.5 * (upward - downward)
    rank[values >= quantiles[-1]] = 1.0
    rank[values <= quantiles[0]] = 0.0
    normal: npt.NDArray[np.float64] = torch.special.ndtri(torch.from_numpy(np.clip(rank, _TAIL, 1 - _TAIL))).numpy()
    return normal


def fit_categorical(name: str, column: pd.Series) -> CategoricalColumn:
    """Fit on training rows: levels by how often they occur."""
    numeric = all_numbers(column)
    counts = level_texts(column, numeric).value_counts()
    # Ties in frequency go by name: the order must not depend on the order of rows.
    ordered = sorted(((-count, str(level)) for level, count in counts.items() if count >= MIN_LEVEL_COUNT))
    levels = tuple(level for _, level in ordered[:MAX_LEVELS])
    return CategoricalColumn(name=name, levels=levels, numeric=numeric, rare=len(counts) > len(levels))


def codes(column: pd.Series, fitted: CategoricalColumn) -> npt.NDArray[np.int64]:
    """Each row's level as a number ``(N,)``."""
    text = level_texts(column, fitted.numeric)
    known: npt.NDArray[Any] = pd.Index(fitted.levels, dtype="str").get_indexer(pd.Index(text)) + 1
    if fitted.rare:
        unlisted = (known == 0) & text.notna().to_numpy()
        known[unlisted] = fitted.cardinality - 1
    return known.astype(np.int64)
