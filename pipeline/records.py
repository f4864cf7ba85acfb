"""Result records: the truth about every trial, on disk before Optuna or MLflow hear of it.

``searches/<id>/trials/<number>/`` holds ``record.json`` (this file's `TrialRecord`), the best epoch's
``weights.safetensors`` and, while the trial is unfinished, its ``checkpoint.safetensors``.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from pipeline.errors import SearchError
from pipeline.files import write_atomic
from pipeline.redaction import Redacted
from pipeline.training.config import TrialConfig
from pipeline.training.measurement import Measurement, State

WEIGHTS = "weights.safetensors"
RECORD = "record.json"
_HEAD, _TAIL = b'{"sha256": "%s",\n "record": ', b"}\n"
"""Around the record's own JSON, whose bytes the checksum is of."""


class TrialRecord(BaseModel):
    """Everything that is known of one finished trial. Times are Unix seconds."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    search: str
    number: int
    state: State
    config: TrialConfig
    params: dict[str, Any]
    """What the sampler chose, named as in the search space."""
    metric: str
    objective: float | None
    """Best validation value of the metric; None unless the trial completed or was pruned after an epoch."""
    objective_se: float | None = None
    """Standard error of the objective over the folds; None without cross-validation."""
    best_epoch: int | None
    curve: tuple[Measurement, ...]
    n_params: int = 0
    train_s: float = 0.0
    peak_mb: float = 0.0
    cohort: str | None = None
    error: Redacted | None = None
    traceback: Redacted | None = None
    started: float
    finished: float
    worker: str = ""
    duplicate_of: int | None = None
    """The earlier trial with the same configuration whose result this is; None for one that was trained."""
    weights_sha256: str | None = None
    """Of `WEIGHTS` beside this record; None where the trial left no weights."""

    @property
    def family(self) -> str:
        return self.config.family

    @property
    def label(self) -> str:
        """``#012 mlp``: the trial's name wherever a person reads it."""
        return f"#{self.number:03d} {self.family}"

    def best(self) -> dict[str, float]:
        """Validation metrics of the best epoch; empty where there is none."""
        return next((m.metrics for m in self.curve if m.epoch == self.best_epoch), {})


def write_record(directory: Path, record: TrialRecord) -> None:
    """Store a finished trial in its directory, with a checksum over the record itself."""
    body = record.model_dump_json().encode()
    head = _HEAD % hashlib.sha256(body).hexdigest().encode()
    write_atomic(directory / RECORD, head + body + _TAIL)


def read_record(directory: Path) -> TrialRecord | None:
    """The finished trial in this directory, or None while it is unfinished.

    Raises:
        SearchError: the record is there but damaged.
    """
    path = directory / RECORD
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return None
    length = len(_HEAD % (b"0" * 64))
    head, body, tail = content[:length], content[length : -len(_TAIL)], content[-len(_TAIL) :]
    if head != _HEAD % hashlib.sha256(body).hexdigest().encode() or tail != _TAIL:
        raise SearchError(f"{path}: the record does not match its checksum; restore it, or delete it to train again")
    try:
        return TrialRecord.model_validate_json(body)
    except ValueError as error:
        raise SearchError(f"{path}: the record is of another version of automl; start afresh with --new") from error


def read_records(search: Path) -> Iterator[TrialRecord]:
    """All finished trials of a search directory, by number."""
    trials = search / "trials"
    if not trials.is_dir():
        return
    for directory in sorted(trials.iterdir(), key=lambda entry: entry.name):
        record = read_record(directory)
        if record is not None:
            yield record


def trial_directory(search: Path, number: int) -> Path:
    """Where a trial keeps its files; numbers sort as names up to a million trials."""
    return search / "trials" / f"{number:06d}"
