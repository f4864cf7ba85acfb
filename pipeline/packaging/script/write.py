"""Writing a trial's script, and making sure that it prepares the rows that the trial was trained on."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from pydantic import BaseModel

from pipeline.config import ExperimentConfig, TrainConfig
from pipeline.data.assemble import divide
from pipeline.data.dataset import Dataset
from pipeline.data.prepare import Prepared
from pipeline.data.preprocess import TabularPreprocessor
from pipeline.data.readers.arrays import array_names, read_idx, read_npz
from pipeline.data.readers.bundled import read_sklearn
from pipeline.data.readers.csv_table import dialect, read_csv
from pipeline.data.readers.json_lines import read_jsonl
from pipeline.data.readers.parquet_table import read_parquet
from pipeline.data.readers.request import Request
from pipeline.data.readers.time_series import read_ts
from pipeline.data.source import Located, locate, read_located
from pipeline.errors import InputError
from pipeline.files import write_atomic
from pipeline.models import FAMILIES
from pipeline.models.config import ModelConfig
from pipeline.packaging.package import library_versions
from pipeline.packaging.script import augmenting, main, preparing, reading
from pipeline.packaging.script.bundle import bundle
from pipeline.packaging.script.check import check_rows
from pipeline.packaging.script.literal import literal
from pipeline.packaging.script.plan import Columns, Plan
from pipeline.records import TrialRecord
from pipeline.training.config import AugmentationConfig, OptimisationConfig, TrialConfig

TRAINS_WITH: Final[dict[type[BaseModel], set[str]]] = {
    OptimisationConfig: {
        "optimizer", "lr", "weight_decay", "l1", "momentum", "beta2", "eps", "schedule", "warmup", "batch_size", "loss",
        "label_smoothing", "class_weight_power", "clip_norm",
    },
    AugmentationConfig: {"flip", "shift", "cutout", "mixup"},
    TrainConfig: {"max_epochs", "patience", "precision", "deterministic"},
}  # fmt: skip
"""The choices of a training that a script makes as the search did; one that is not named here must have its default.
The model's own are not among them: a script has its config and its code as a whole."""
_FITS: Final = {"image": "fit_images", "sequence": "fit_sequences"}
_STORY: Final = '''"""Trains trial {label} of search {search} again: {libraries}, nothing else.

    python {name} [--data FILE]{test} [--seed N] [--save FILE]

Recorded by the search: {metric} {validation:.6f} on validation, {recorded} on the sealed test.
The rows are the search's, by their numbers in {rows}, which belongs beside this file.
What was chosen is at the end. What is in front of it is the code that trained, with scikit-learn's transformers where
they do the same. With the seed that is given here, scores differ from the recorded ones by rounding, which grows in
training: by as much as two seeds do, at most. It trains on the CPU. Each run reads the test rows: what is chosen by
their score is not measured by it.

Written by automl for {versions}.
"""
'''


@dataclass(frozen=True, slots=True)
class Script:
    """A script that was written.

    Args:
        rows: the file beside it with the part of every row.
        difference: the largest between its prepared values and the search's.
    """

    path: Path
    rows: Path
    difference: float


def write_script(
    path: Path,
    record: TrialRecord,
    config: ExperimentConfig,
    root: Path,
    prepared: Prepared,
    *,
    recorded_test: str,
) -> Script:
    """Write the script and its file of rows; they appear only if it prepares the training and the validation part as
    the search did.

    Args:
        config: the search's.
        root: folder that the data's paths start from.
        recorded_test: what the sealed test said of the trial, in words.

    Raises:
        InputError: the data has changed, or cannot be read by a script, with the reason.
    """
    for settings in (*_groups(record.config), config.train):
        _refuse_unknown(settings)
    source, data = _read(config, root)
    read = _reader(source, data)
    target, split, _ = divide(config.data, data, with_test=config.data.test is None)
    if split.digest != prepared.split_hash:
        raise InputError("the data is not what the search divided", "put it back as it was", file=config.data.source)
    rows = path.with_suffix(".rows.npz")
    parts = {"part": np.zeros(len(data), dtype=np.int8)}
    parts["part"][split.validation], parts["part"][split.test] = 1, 2
    if split.folds is not None:
        parts["fold"] = np.zeros(len(data), dtype=np.int8)
        parts["fold"][split.train] = split.folds
    plan = dataclasses.replace(
        _plan(record, config, root, source, prepared, recorded_test), labels=target.labels, rows=rows.name
    )
    fit, family = _fit(plan), FAMILIES[record.family]
    build: Any = family.build
    used = [read, fit, build.__name__]
    roots = [
        (reading.__name__, read),
        (preparing.__name__, fit),
        (family.config.__module__, family.config.__qualname__),
        (build.__module__, build.__name__),
        (main.__name__, "main"),
        (Plan.__module__, "Plan"),
    ]
    if plan.augmentation != AugmentationConfig():
        used.append(augmenting.changed_images.__name__)
        roots.append((augmenting.__name__, used[-1]))
    text = _text(path, record, plan, bundle(roots), used)
    staged = path.with_name(f".{path.stem}-staged.py")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        staged.write_text(text, encoding="utf-8")
        difference = check_rows(staged, plan, _found(plan.data, root), prepared, parts, (read, fit))
    finally:
        staged.unlink(missing_ok=True)
    with rows.open("wb") as file:
        np.savez_compressed(file, **parts)  # type: ignore[arg-type]
    write_atomic(path, text.encode())
    return Script(path, rows, difference)


def _groups(config: TrialConfig) -> list[BaseModel]:
    """The groups of choices that a trial's training consists of, whichever there are."""
    values = (getattr(config, name) for name in type(config).model_fields)
    return [value for value in values if isinstance(value, BaseModel) and not isinstance(value, ModelConfig)]


def _refuse_unknown(settings: BaseModel) -> None:
    """Raises InputError for a choice that the script's training does not know, so that it is never left out unsaid."""
    known = TRAINS_WITH.get(type(settings), set())
    for name, entry in type(settings).model_fields.items():
        value = getattr(settings, name)
        if name not in known and value != entry.get_default(call_default_factory=True):
            raise InputError(f"a script cannot train with {name}: {value!r}", "export a trial without it")


def _read(config: ExperimentConfig, root: Path) -> tuple[Located, Dataset]:
    located = locate(config.data.source, root)
    return located, read_located(located, config.data.target, None if config.data.kind == "auto" else config.data.kind)


def _reader(source: Located, data: Dataset) -> str:
    """The script's reader for a source.

    Raises:
        InputError: a script cannot read it.
    """
    readers: dict[Callable[..., Dataset], str] = {
        read_csv: "read_delimited",
        read_parquet: "read_parquet",
        read_jsonl: "read_records" if data.kind == "tabular" else "read_record_sequences",
        read_npz: "read_npz",
        read_ts: "read_ts",
        read_idx: "read_idx",
        read_sklearn: "read_sklearn",
    }
    if source.reader not in readers or (source.reader is read_parquet and data.kind == "image"):
        raise InputError(
            f"a script cannot read {source.source}: image files need Pillow, which it does without",
            "save the images as arrays x and y of an npz file",
        )
    return readers[source.reader]


def _plan(
    record: TrialRecord,
    config: ExperimentConfig,
    root: Path,
    source: Located,
    prepared: Prepared,
    recorded_test: str,
) -> Plan:
    spec, fitted, train = prepared.spec, prepared.preprocessor, config.train
    columns = Columns()
    if isinstance(fitted, TabularPreprocessor):
        columns = Columns(
            numeric=tuple(column.name for column in fitted.numeric),
            categorical=tuple(column.name for column in fitted.categorical),
            datetime=tuple((column.name, column.format) for column in fitted.datetime),
            text=tuple(column.name for column in fitted.text),
        )
    files = [config.data.source, *([] if config.data.test is None else [config.data.test])]
    target, features = config.data.target, None
    delimiter, encoding = ",", "utf-8"
    if source.reader is read_csv:
        delimiter, encoding = dialect(source.path)
        for other in files[1:]:
            if dialect(locate(other, root).path) != (delimiter, encoding):
                raise InputError(
                    f"a script reads all files alike, but {other} has another delimiter or encoding than {files[0]}",
                    "write one of them again",
                )
    if source.reader is read_npz:
        with np.load(source.path, allow_pickle=False) as arrays:
            features, target = array_names(arrays.files, Request(source.path, target))
    assert record.objective is not None, "a completed trial has a score"
    stopped = record.best_epoch is not None and record.curve[-1].epoch - record.best_epoch >= train.patience
    return Plan(
        data=config.data.source,
        test=config.data.test,
        sha256=tuple(reading.sha256_of(_found(file, root)) for file in files),
        rows="",
        target=target,
        features=features,
        delimiter=delimiter,
        encoding=encoding,
        kind=spec.kind,
        task=spec.task,
        labels=spec.labels,
        columns=columns,
        n_folds=spec.n_folds,
        model=record.config.model,
        optimisation=record.config.optimisation,
        augmentation=record.config.augmentation,
        seed=record.config.seed,
        max_epochs=train.max_epochs,
        patience=train.patience,
        n_epochs=train.max_epochs if stopped else record.curve[-1].epoch,
        bf16=train.precision == "bf16",
        metric=record.metric,
        calibrated=config.evaluate.calibrate and spec.task != "regression" and not spec.n_folds,
        recorded_validation=record.objective,
        recorded_test=recorded_test,
    )


def _found(source: str, root: Path) -> str:
    """A source's path from the root; one that is no file as it is."""
    located = locate(source, root)
    return str(located.path) if located.files else source


def _fit(plan: Plan) -> str:
    """The script's preprocessing for a kind of data.

    Raises:
        InputError: it has none.
    """
    if plan.kind == "tabular":
        return "fit_dates_and_words" if plan.columns.datetime or plan.columns.text else "fit_table"
    if plan.kind not in _FITS:
        raise InputError(f"a script cannot prepare {plan.kind} data", "")
    return _FITS[plan.kind]


def _text(path: Path, record: TrialRecord, plan: Plan, definitions: str, used: list[str]) -> str:
    libraries = "torch, pandas, numpy and scikit-learn" + (" with pyarrow" if "import pyarrow" in definitions else "")
    versions = library_versions()
    story = _STORY.format(
        label=record.label,
        search=record.search,
        libraries=libraries,
        name=path.name,
        test=" [--test FILE]" if plan.test is not None else "",
        metric=plan.metric,
        validation=plan.recorded_validation,
        recorded=plan.recorded_test,
        rows=plan.rows,
        versions=", ".join(f"{name} {versions[name]}" for name in ("torch", "pandas", "numpy", "scikit-learn")),
    )
    return (
        f"{story}\n{definitions}\n\n# What the search chose, and what it found in the data.\n"
        f'PLAN = {literal(plan)}\n\nif __name__ == "__main__":\n    main(PLAN, {", ".join(used)})\n'
    )
