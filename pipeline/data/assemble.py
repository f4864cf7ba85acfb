"""From raw rows to prepared tensors in memory: infer, split, fit on the training part, transform."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch

from pipeline.data.checks.every import run_checks
from pipeline.data.checks.parts import Parts
from pipeline.data.config import ColumnType, DataConfig
from pipeline.data.dataset import Dataset, Rows
from pipeline.data.findings import Finding
from pipeline.data.fingerprint import fingerprint
from pipeline.data.identity import KnownRows, row_hashes
from pipeline.data.infer import Target, infer_columns, infer_target, only_text
from pipeline.data.preprocess import (
    ImagePreprocessor,
    Preprocessor,
    SequencePreprocessor,
    TabularPreprocessor,
    TextPreprocessor,
    encode_target,
)
from pipeline.data.preprocess.image import fit_image
from pipeline.data.preprocess.sequence import fit_sequence
from pipeline.data.preprocess.tabular import bins_of, fit_tabular
from pipeline.data.preprocess.target import check_numbers, encode_labels
from pipeline.data.preprocess.tokens import fit_tokens
from pipeline.data.profile import Profile, profile
from pipeline.data.slicing import Slicing, fit_slicing
from pipeline.data.spec import DataSpec
from pipeline.data.split import Split, make_split
from pipeline.data.tensors import Development, Inputs, Part
from pipeline.data.values import numbers
from pipeline.errors import DataError

PREPARATION_VERSION: Final = 8
"""Raised when the same data and config would give other tensors, another `DataSpec`, or other files beside them."""


@dataclass(frozen=True, slots=True)
class Assembled:
    """All that a prepared data set consists of, not yet on disk. `test` has the raw rows that are to be sealed."""

    development: Development
    preprocessor: Preprocessor
    test: Dataset
    findings: tuple[Finding, ...]
    known: KnownRows
    """The rows of the training and the validation part."""
    profile: Profile
    """Of the same rows."""
    slicing: Slicing
    """Fitted on the training part."""
    split_hash: str
    n_rows: int


def assemble(config: DataConfig, data: Dataset, separate_test: Dataset | None) -> Assembled:
    """Prepare labelled data; `separate_test` is the test where the config names a file for it.

    Raises:
        DataError: the data cannot be learned from, or the test cannot be predicted.
    """
    if separate_test is not None and separate_test.kind != data.kind:
        raise DataError(
            f"`data.test` holds {separate_test.kind} data, but `data.source` {data.kind} data", "change one"
        )
    if data.kind == "text":
        data = only_text(data, config.types)
        separate_test = None if separate_test is None else only_text(separate_test, config.types)
    name = config.target or "target"
    target, split, split_findings = divide(config, data, with_test=separate_test is None)
    train = data.take(split.train)
    validation = train if split.folds is not None else data.take(split.validation)
    test = data.take(split.test) if separate_test is None else separate_test
    preprocessor, fit_findings = _fit(config, train, split.train)
    inputs = preprocessor.transform(train.features)
    folds = None if split.folds is None else torch.from_numpy(split.folds)
    spec = _spec(preprocessor, inputs, target, train, len(validation), 0 if folds is None else config.split.folds)
    _check_test(spec, preprocessor, test)
    encoded = encode_target(spec, target_of(train))
    checked = run_checks(
        Parts(
            source=data,
            train=train,
            validation=None if split.folds is not None else validation,
            test=test,
            folds=split.folds,
            split=config.split,
            spec=spec,
            types=preprocessor.schema_of_features if isinstance(train.features, pd.DataFrame) else {},
            encoded=encoded.numpy(),
            target=name,
            separate_test=separate_test is not None,
        )
    )
    training = Part(inputs, encoded)
    development = Development(
        spec=spec,
        train=training,
        validation=training
        if folds is not None
        else Part(preprocessor.transform(validation.features), encode_target(spec, target_of(validation))),
        fingerprint=preparation_fingerprint(config, data, separate_test),
        folds=folds,
    )
    developed = data.take(np.concatenate([split.train, split.validation]))
    return Assembled(
        development=development,
        preprocessor=preprocessor,
        test=test,
        findings=(*data.findings, *target.findings, *split_findings, *fit_findings, *checked),
        known=KnownRows.of(developed.features),
        profile=profile(developed, preprocessor.schema_of_features, name, is_quantity=target.task == "regression"),
        slicing=_slicing(config, train, preprocessor, target),
        split_hash=split.digest,
        n_rows=len(data) + (0 if separate_test is None else len(separate_test)),
    )


def _slicing(config: DataConfig, train: Dataset, preprocessor: Preprocessor, target: Target) -> Slicing:
    asked = {*config.types, *([] if config.split.column is None else [config.split.column])}
    name = config.target or "class"
    return fit_slicing(train.features, preprocessor.schema_of_features, name, target.labels, asked)


def target_of(data: Dataset) -> npt.NDArray[Any]:
    """The raw targets of labelled data."""
    assert data.target is not None, "only labelled data is prepared"
    return data.target


def divide(config: DataConfig, data: Dataset, *, with_test: bool) -> tuple[Target, Split, tuple[Finding, ...]]:
    """What is predicted, and which rows are in which part.

    Args:
        with_test: False where the test is a file of its own.

    Raises:
        DataError: the target cannot be learned, or the rows cannot be divided so.
    """
    target = infer_target(target_of(data), config.target or "target", data.kind, config.task)
    key: pd.Series | None = None
    column = config.split.column
    if column is not None:
        if not isinstance(data.features, pd.DataFrame):
            raise DataError(
                f"a split by {config.split.by} needs a table, but the data is {data.kind} data",
                "set data.split.by to stratified or random",
            )
        if column not in data.features.columns:
            raise DataError(f"`data.split.column` names {column!r}, which the data does not have", "check its name")
        key = data.features[column]
    classes = encode_labels(target.labels, target_of(data)) if target.labels else None
    split, findings = make_split(config.split, row_hashes(data.features), classes=classes, key=key, with_test=with_test)
    return target, split, findings


def _fit(config: DataConfig, train: Dataset, rows: Rows) -> tuple[Preprocessor, tuple[Finding, ...]]:
    """The preprocessor of the training rows; `rows` are their numbers in the source."""
    features = train.features
    if train.kind == "text":
        assert isinstance(features, pd.DataFrame)
        column = str(features.columns[0])
        return fit_tokens(column, features[column].to_numpy(dtype=object)), ()
    if isinstance(features, pd.DataFrame):
        # What divides the rows tells the parts apart: it is a feature only where the user says so.
        divides: dict[str, ColumnType] = {} if config.split.column is None else {config.split.column: "drop"}
        types, findings = infer_columns(features, rows, {**divides, **config.types})
        return fit_tabular(features, types), findings
    if config.types:
        raise DataError(f"`data.types` is about the columns of a table, but the data is {train.kind} data", "remove it")
    if isinstance(features, np.ndarray):
        return fit_image(features), ()
    return fit_sequence(features), ()


def _spec(
    preprocessor: Preprocessor, inputs: Inputs, target: Target, train: Dataset, n_validation: int, n_folds: int
) -> DataSpec:
    shape: dict[str, object]
    if isinstance(preprocessor, TabularPreprocessor):
        shape = {
            "n_numeric": preprocessor.n_numeric,
            "cardinalities": preprocessor.cardinalities,
            "bins": bins_of(inputs.x.numpy(), preprocessor.n_hashed),
            "scales": preprocessor.scales,
        }
    elif isinstance(preprocessor, ImagePreprocessor):
        shape = {"channels": preprocessor.channels, "height": preprocessor.height, "width": preprocessor.width}
    elif isinstance(preprocessor, SequencePreprocessor):
        shape = {"n_steps": preprocessor.n_steps, "n_features": preprocessor.n_features}
    elif isinstance(preprocessor, TextPreprocessor):
        shape = {"n_steps": preprocessor.n_steps, "n_tokens": preprocessor.n_tokens}
    mean, scale = (0.0, 1.0) if target.task != "regression" else _standardisation(target_of(train))
    return DataSpec.model_validate(
        {
            "kind": preprocessor.kind,
            "task": target.task,
            "labels": target.labels,
            "class_counts": _class_counts(target, train),
            "target_mean": mean,
            "target_scale": scale,
            "n_train": len(train),
            "n_validation": n_validation,
            "n_folds": n_folds,
            **shape,
        }
    )


def _class_counts(target: Target, train: Dataset) -> tuple[int, ...]:
    if not target.labels:
        return ()
    codes = encode_labels(target.labels, target_of(train))
    return tuple(np.bincount(codes, minlength=len(target.labels)).tolist())


def _standardisation(raw: npt.NDArray[Any]) -> tuple[float, float]:
    values = numbers(raw)
    check_numbers(values, raw)
    mean, scale = float(values.mean()), float(values.std())
    if scale == 0:
        raise DataError("the target is the same in all training rows", "choose another target or add rows")
    return mean, scale


def _check_test(spec: DataSpec, preprocessor: Preprocessor, test: Dataset) -> None:
    """Find out now, not after the search, that the test rows cannot be predicted or scored. Nothing of them is kept."""
    try:
        preprocessor.transform(test.features)
        encode_target(spec, target_of(test))
    except DataError as error:
        raise DataError(f"the test part: {error.what}", error.remedy) from error


def unused_blocks(config: DataConfig) -> set[str]:
    """Parts of the config that are for another kind of data, and say nothing here."""
    return {"forecast"} if config.forecast is None else set()


def preparation_fingerprint(config: DataConfig, data: Dataset, separate_test: Dataset | None) -> str:
    """Over the content and every choice; where the files lie is not part of it."""
    parts = {
        "content": [fingerprint(part) for part in (data, separate_test) if part is not None],
        "choices": config.model_dump(mode="json", exclude={"source", "test", *unused_blocks(config)}),
        "version": PREPARATION_VERSION,
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
