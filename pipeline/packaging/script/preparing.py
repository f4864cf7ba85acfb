"""Raw rows to tensors, with scikit-learn's transformers; all that is fitted is fitted on the training part."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from sklearn.preprocessing import QuantileTransformer, StandardScaler
from torch import Tensor

from pipeline.data.preprocess.datetimes import fit_dates
from pipeline.data.preprocess.tabular import MAX_QUANTILES, bins_of, codes, fit_categorical, scales_of
from pipeline.data.preprocess.target import label_codes
from pipeline.data.preprocess.words import fit_text
from pipeline.data.spec import DataSpec
from pipeline.data.tensors import Inputs, Part
from pipeline.data.values import numbers, texts
from pipeline.packaging.script.plan import Plan
from pipeline.packaging.script.reading import Raw


@dataclass(frozen=True)
class Fitted:
    """Preprocessing as the training part asks for it."""

    transform: Callable[[Any], Inputs]
    shape: dict[str, Any]
    """What the model has to know of the tensors: fields of `DataSpec`."""


Fit = Callable[[Any, Plan], Fitted]


class Wide(NamedTuple):
    """A column that becomes several numbers."""

    name: str
    encode: Callable[[pd.Series], npt.NDArray[np.float32]]
    n_hashed: int


class Prepared(NamedTuple):
    """The training and the validation part, and how to prepare other rows."""

    spec: DataSpec
    train: Part
    validation: Part
    folds: Tensor | None
    """The fold in which each training row is validated; None without cross-validation."""
    part: Callable[[Raw], Part]


class Numeric:
    """A numeric column: the median for missing values, then through its quantiles to a normal distribution."""

    def __init__(self, column: pd.Series) -> None:
        values = numbers(column)
        present = values[np.isfinite(values)]
        self.median = np.median(present)
        self.indicator = len(present) < len(values)
        """Whether training had missing values, so that a 0/1 column tells where they are."""
        n_quantiles = min(MAX_QUANTILES, len(present))
        self.quantiles = QuantileTransformer(n_quantiles=n_quantiles, output_distribution="normal", subsample=None).fit(
            present[:, None]
        )

    def encode(self, column: pd.Series) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
        """The scaled values, and where they were missing."""
        values = numbers(column)
        missing = np.isnan(values)
        values[missing] = self.median
        return self.quantiles.transform(values[:, None]), missing[:, None]


def fit_table(train: pd.DataFrame, plan: Plan, *fits: Callable[[pd.DataFrame, Plan], list[Wide]]) -> Fitted:
    """Numbers, then their indicators, then the columns that `fits` makes several numbers of; categories as codes."""
    columns = plan.columns
    numeric = {name: Numeric(train[name]) for name in columns.numeric}
    categorical = [fit_categorical(name, train[name]) for name in columns.categorical]
    wide = [column for fit in fits for column in fit(train, plan)]

    def transform(frame: pd.DataFrame) -> Inputs:
        encoded = {name: column.encode(frame[name]) for name, column in numeric.items()}
        parts: list[npt.NDArray[Any]] = [np.empty((len(frame), 0))]
        parts += [values for values, _ in encoded.values()]
        parts += [missing for name, (_, missing) in encoded.items() if numeric[name].indicator]
        parts += [column.encode(frame[column.name]) for column in wide]
        x = torch.from_numpy(np.concatenate(parts, axis=1).astype(np.float32))
        if not categorical:
            return Inputs(x)
        return Inputs(x, torch.from_numpy(np.stack([codes(frame[c.name], c) for c in categorical], axis=1)))

    x = transform(train).x.numpy()
    shape = {
        "n_numeric": x.shape[1],
        "cardinalities": tuple(column.cardinality for column in categorical),
        "bins": bins_of(x, sum(column.n_hashed for column in wide)),
        "scales": scales_of([(c.median, c.quantiles.quantiles_[:, 0]) for c in numeric.values()], x.shape[1]),
    }
    return Fitted(transform, shape)


def fit_dates_and_words(train: pd.DataFrame, plan: Plan) -> Fitted:
    """A table with columns of dates or of free text."""
    return fit_table(train, plan, _dates, _words)


def _dates(train: pd.DataFrame, plan: Plan) -> list[Wide]:
    fitted = [fit_dates(name, train[name], format_) for name, format_ in plan.columns.datetime]
    return [Wide(column.name, column.encode, 0) for column in fitted]


def _words(train: pd.DataFrame, plan: Plan) -> list[Wide]:
    fitted = [fit_text(name, len(train)) for name in plan.columns.text]
    return [Wide(column.name, column.encode, column.n_features) for column in fitted]


def fit_images(train: npt.NDArray[Any], plan: Plan) -> Fitted:
    """Channels by their mean and standard deviation."""
    channels, height, width = train.shape[1:]
    scaler = StandardScaler().fit(train.transpose(0, 2, 3, 1).reshape(-1, channels))
    mean, std = (v.astype(np.float32)[:, None, None] for v in (scaler.mean_, scaler.scale_))

    def transform(images: npt.NDArray[Any]) -> Inputs:
        return Inputs(torch.from_numpy((images.astype(np.float32) - mean) / std))

    return Fitted(transform, {"channels": channels, "height": height, "width": width})


def fit_sequences(train: Sequence[npt.NDArray[Any]], plan: Plan) -> Fitted:
    """Features by their mean and standard deviation over all steps; zeros behind the end, and where one is missing."""
    steps = np.concatenate(train).astype(np.float64)
    steps[~np.isfinite(steps)] = np.nan
    scaler = StandardScaler().fit(steps)
    n_steps = max(map(len, train))

    def transform(series: Sequence[npt.NDArray[Any]]) -> Inputs:
        lengths = torch.tensor([len(steps) for steps in series])
        x = np.zeros((len(series), max(n_steps, int(lengths.max())), steps.shape[1]), dtype=np.float32)
        for row, one in enumerate(series):
            x[row, : len(one)] = np.nan_to_num((one - scaler.mean_) / scaler.scale_, nan=0.0, posinf=0.0, neginf=0.0)
        return Inputs(torch.from_numpy(x), lengths=lengths)

    return Fitted(transform, {"n_steps": n_steps, "n_features": steps.shape[1]})


def prepare(plan: Plan, raw: Raw, rows: dict[str, npt.NDArray[Any]], fit: Fit) -> Prepared:
    """Divide the rows as the search did, fit on the training part, transform.

    Args:
        rows: ``part`` of every row with a target: 0 training, 1 validation, 2 test; and its ``fold``.
    """
    raw = labelled(raw)
    assert len(raw[1]) == len(rows["part"]), "the data has other rows than those of the search"
    train, held = (take(raw, np.flatnonzero(rows["part"] == part)) for part in (0, 1))
    fitted = fit(train[0], plan)
    mean, scale, counts = 0.0, 1.0, ()
    if plan.task == "regression":
        values = numbers(train[1])
        mean, scale = float(values.mean()), float(values.std())
    else:
        counts = tuple(np.bincount(label_codes(plan.labels, train[1]), minlength=len(plan.labels)).tolist())
    spec = DataSpec(
        kind=plan.kind,
        task=plan.task,
        labels=plan.labels,
        class_counts=counts,
        target_mean=mean,
        target_scale=scale,
        n_train=len(train[1]),
        n_validation=len(held[1]) or len(train[1]),
        n_folds=plan.n_folds,
        **fitted.shape,
    )

    def part(some: Raw) -> Part:
        return Part(fitted.transform(some[0]), _target(spec, some[1]))

    development = part(train)
    if not plan.n_folds:
        return Prepared(spec, development, part(held), None, part)
    folds = torch.from_numpy(rows["fold"][rows["part"] == 0].astype(np.int64))
    return Prepared(spec, development, development, folds, part)


def labelled(raw: Raw) -> Raw:
    """The rows that have a target."""
    return take(raw, np.flatnonzero(texts(raw[1]).notna().to_numpy()))


def take(raw: Raw, rows: npt.NDArray[np.int64]) -> Raw:
    """Some of the rows, in the given order."""
    features, target = raw
    if isinstance(features, pd.DataFrame):
        return features.iloc[rows].reset_index(drop=True), target[rows]
    if isinstance(features, np.ndarray):
        return features[rows], target[rows]
    return [features[row] for row in rows], target[rows]


def _target(spec: DataSpec, raw: npt.NDArray[Any]) -> Tensor:
    """Class codes, or values in standard deviations from the mean of training."""
    if spec.task != "regression":
        return torch.from_numpy(label_codes(spec.labels, raw))
    return torch.from_numpy(((numbers(raw) - spec.target_mean) / spec.target_scale).astype(np.float32))
