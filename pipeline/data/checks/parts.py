"""What checks look at: raw parts of a data set, and tables of numbers about rows that are none."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pandas as pd

from pipeline.data.config import SplitConfig
from pipeline.data.dataset import Dataset, Features, Rows
from pipeline.data.spec import DataSpec
from pipeline.data.times import stamps, time_format
from pipeline.data.values import numbers, texts

SAMPLE: Final = 20_000
"""Rows that statistics are taken of: the standard error of a share is then below half a point."""


@dataclass(frozen=True, slots=True)
class Parts:
    """A divided data set before it is sealed.

    Args:
        source: all rows but those of a separate test file, in the file's order.
        validation: None by kfold.
        types: of the columns that are used; empty where the data is no table.
        encoded: of the training part ``(N,)``, class codes or standardised numbers.
        separate_test: the test is a file of its own.
    """

    source: Dataset
    train: Dataset
    validation: Dataset | None
    test: Dataset
    folds: Rows | None
    split: SplitConfig
    spec: DataSpec
    types: Mapping[str, str]
    encoded: npt.NDArray[Any]
    target: str
    separate_test: bool

    @property
    def is_classes(self) -> bool:
        return not self.spec.is_quantity

    @property
    def held_out(self) -> Iterator[tuple[str, Dataset]]:
        """The parts that measure, by name."""
        if self.validation is not None:
            yield "validation", self.validation
        yield "test", self.test

    def sample(self) -> Rows:
        """Positions of at most `SAMPLE` training rows, in a random order that is always the same."""
        return sample(len(self.train))


def sample(n_rows: int, n_most: int = SAMPLE) -> Rows:
    """Positions of at most `n_most` of so many rows, in a random order that is always the same."""
    order: Rows = np.random.default_rng(0).permutation(n_rows)
    return order[:n_most]


def measured(column: pd.Series, kind: str) -> npt.NDArray[np.float64] | None:
    """A column as numbers, NaN where missing; None where it is categories or text."""
    if kind == "numeric":
        return numbers(column)
    if kind == "datetime":
        format_ = time_format(column)
        return None if format_ is None else stamps(column, format_)
    return None


def levels(column: pd.Series) -> tuple[npt.NDArray[np.int64], list[Any]]:
    """A column as codes of its texts; missing is a level of its own."""
    codes, names = pd.factorize(texts(column), use_na_sentinel=False)
    return codes.astype(np.int64), list(names)


def in_numbers(features: Features) -> pd.DataFrame:
    """Rows that are no table as a few numbers each: brightness and contrast of images, lengths and means of
    sequences."""
    if isinstance(features, pd.DataFrame):
        return features
    if isinstance(features, np.ndarray):
        flat = features.reshape(len(features), -1)
        return pd.DataFrame({"brightness": flat.mean(axis=1), "contrast": flat.std(axis=1)})
    lengths = [len(series) for series in features]
    with np.errstate(invalid="ignore"):
        means = np.stack([series.mean(axis=0) for series in features]) if lengths else np.empty((0, 0))
    table = {"length": np.array(lengths)} | {f"mean of feature {i}": means[:, i] for i in range(means.shape[1])}
    return pd.DataFrame(table)
