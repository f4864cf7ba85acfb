"""A data set in numbers: how the values of every column are distributed. Kept with the prepared data, so that a later
data set can be held against it when the rows themselves are long gone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd
from pydantic import BaseModel, ConfigDict

from pipeline.data.dataset import Dataset
from pipeline.data.values import numbers, texts

MAX_KNOTS: Final = 256
"""Points at which a column's distribution function is kept: exact up to so many distinct values, else to 0.4 %."""
MAX_CATEGORIES: Final = 200
"""Most frequent categories that are kept; the others count together."""
MAX_FEATURES: Final = 16
"""Features of sequences that are looked at."""


class Column(BaseModel):
    """The distribution of one column, of its present values unless said otherwise."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    kind: Literal["numeric", "categorical"]
    missing: float
    """Share of all rows without a value."""
    knots: tuple[float, ...] = ()
    """Numeric: values, ascending."""
    below: tuple[float, ...] = ()
    """Numeric: the share of values <= each knot."""
    mean: float = 0.0
    std: float = 0.0
    categories: dict[str, float] = {}
    """Categorical: the share of each; those that are not named here make up the rest."""


class Profile(BaseModel):
    """All columns of a data set, its target among them."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    n_rows: int
    columns: tuple[Column, ...]


def profile(data: Dataset, schema: Mapping[str, str], target: str, *, is_quantity: bool) -> Profile:
    """Look at labelled rows.

    Args:
        schema: used columns of a table and their types. Images and sequences are looked at through a few summaries.
        target: the target's name.
        is_quantity: whether the target is a number and no class.
    """
    assert data.target is not None, "only labelled data is prepared"
    with np.errstate(invalid="ignore"):  # a series with infinite values has no mean: it counts as missing
        columns = [_numeric(name, values) for name, values in _summaries(data)]
    if isinstance(data.features, pd.DataFrame):
        for name, kind in schema.items():
            values = data.features[name]
            columns.append(_numeric(name, numbers(values)) if kind == "numeric" else _categorical(name, values))
    outcome = pd.Series(data.target)
    columns.append(_numeric(target, numbers(outcome)) if is_quantity else _categorical(target, outcome))
    return Profile(n_rows=len(data), columns=tuple(columns))


def _summaries(data: Dataset) -> Iterator[tuple[str, npt.NDArray[np.float64]]]:
    """What can be said of an image or a sequence in single numbers, ``(N,)`` each."""
    features = data.features
    if isinstance(features, pd.DataFrame):
        return
    if isinstance(features, np.ndarray):  # (N, C, H, W)
        for channel in range(features.shape[1]):
            plane = features[:, channel]  # in float32: as float64 a large data set would not fit beside itself
            yield f"brightness of channel {channel + 1}", plane.mean((1, 2), dtype=np.float32).astype(np.float64)
            yield f"contrast of channel {channel + 1}", plane.std((1, 2), dtype=np.float32).astype(np.float64)
        return
    yield "steps", np.array([len(series) for series in features], dtype=np.float64)
    for feature in range(min(MAX_FEATURES, features[0].shape[1])):
        yield f"mean of feature {feature + 1}", np.array([series[:, feature].mean() for series in features])
        yield f"spread of feature {feature + 1}", np.array([series[:, feature].std() for series in features])


def _numeric(name: str, values: npt.NDArray[Any]) -> Column:
    present = np.sort(values[np.isfinite(values)].astype(np.float64))
    missing = 1 - len(present) / max(1, len(values))
    if len(present) == 0:
        return Column(name=name, kind="numeric", missing=missing)
    knots = np.unique(present)
    if len(knots) > MAX_KNOTS:
        knots = np.unique(present[np.linspace(0, len(present) - 1, MAX_KNOTS).round().astype(int)])
    below = np.searchsorted(present, knots, side="right") / len(present)
    return Column(
        name=name,
        kind="numeric",
        missing=missing,
        knots=tuple(knots.tolist()),
        below=tuple(below.tolist()),
        mean=float(present.mean()),
        std=float(present.std()),
    )


def _categorical(name: str, values: pd.Series) -> Column:
    text = texts(values)
    shares = text.value_counts(normalize=True).head(MAX_CATEGORIES)
    return Column(
        name=name,
        kind="categorical",
        missing=float(text.isna().mean()),
        categories={str(k): float(v) for k, v in shares.items()},
    )
