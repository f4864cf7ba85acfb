"""Result records: the truth about every trial, on disk before Optuna or MLflow hear of it.

``searches/<id>/trials/<number>/`` holds ``record.json`` (this file's `TrialRecord`), the best epoch's
``weights.safetensors`` and, while the trial is unfinished, its ``checkpoint.safetensors``.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from pipeline.errors import SearchError
from pipeline.files import write_atomic
from pipeline.training.config import TrialConfig
from pipeline.training.measurement import Measurement, State

WEIGHTS = "weights.safetensors"
RECORD = "record.json"


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
    best_epoch: int | None
    curve: tuple[Measurement, ...]
    n_params: int = 0
    train_s: float = 0.0
    peak_mb: float = 0.0
    cohort: str | None = None
    error: str | None = None
    traceback: str | None = None
    started: float
    finished: float
    worker: str = ""
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
    body = record.model_dump(mode="json")
    digest = hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()
    write_atomic(directory / RECORD, json.dumps({"sha256": digest, "record": body}, indent=1).encode())


def read_record(directory: Path) -> TrialRecord | None:
    """The finished trial in this directory, or None while it is unfinished.

    Raises:
        SearchError: the record is there but damaged.
    """
    path = directory / RECORD
    try:
        stored = json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise SearchError(
            f"{path}: the record is not JSON ({error}); restore it, or delete it to train again"
        ) from error
    body = stored.get("record") if isinstance(stored, dict) else None
    if (
        not isinstance(body, dict)
        or hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest() != stored["sha256"]
    ):
        raise SearchError(f"{path}: the record does not match its checksum; restore it, or delete it to train again")
    return TrialRecord.model_validate(body)


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
