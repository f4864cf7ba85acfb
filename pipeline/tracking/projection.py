"""What a person sees of a search in the tracker: names, tags, params and metrics as pure functions of our records.

Both trackers write exactly this, so a run can be written again from its record at any time and comes out the same:
timestamps are the record's, never the clock's.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final, Literal

from pipeline.records import TrialRecord
from pipeline.redaction import redacted
from pipeline.text import markdown
from pipeline.tracking.base import FinalistInfo, SearchInfo
from pipeline.training.measurement import State

RunStatus = Literal["RUNNING", "FINISHED", "FAILED", "KILLED"]
Role = Literal["search", "trial", "finalist"]

STATUS: Final[dict[State, RunStatus]] = {"COMPLETE": "FINISHED", "PRUNED": "KILLED", "FAIL": "FAILED"}

KEY, ROLE, SEARCH, TRIAL = "automl.key", "automl.role", "automl.search", "automl.trial"
FAMILY, STATE, ERROR, PACKAGE = "automl.family", "automl.state", "automl.error", "automl.package"
DUPLICATE, COHORT = "automl.duplicate_of", "automl.cohort"
NOTE = "mlflow.note.content"

MODEL_PATH = "model"
"""Artifact folder of a run's loadable model."""
CONFIG_PATH = "experiment.yaml"
TRACEBACK_PATH = "error/traceback.txt"

MAX_TEXT = 5_000
"""Longest tag or param in characters; MLflow keeps 8,000 of a tag and 6,000 of a param and cuts the rest silently."""


@dataclass(frozen=True, slots=True)
class Point:
    """One metric value. `timestamp` is in milliseconds since 1970, as MLflow has it."""

    key: str
    value: float
    step: int
    timestamp: int


def search_key(search: str) -> str:
    """The idempotency key of a parent run."""
    return search


def trial_key(search: str, number: int) -> str:
    """The idempotency key of a trial's run."""
    return f"{search}/{number}"


def finalist_key(search: str, number: int) -> str:
    """The idempotency key of a finalist's run."""
    return f"{search}/finalist/{number}"


def trial_name(number: int, family: str) -> str:
    """``#012 mlp``."""
    return f"#{number:03d} {family}"


def finalist_name(number: int, family: str) -> str:
    """``finalist #012 mlp``."""
    return f"finalist {trial_name(number, family)}"


def search_tags(info: SearchInfo) -> dict[str, str]:
    """Tags of the parent run from its start."""
    return {
        KEY: search_key(info.id),
        ROLE: "search",
        SEARCH: info.id,
        "automl.metric": info.metric,
        "automl.direction": info.direction,
        "automl.data": info.data_fingerprint,
        NOTE: search_note(info),
    }


def search_note(info: SearchInfo) -> str:
    """The parent run's description: filters to paste into the search box of MLflow's run table."""
    best = "DESC" if info.direction == "maximize" else "ASC"
    of_search = f"tags.`{SEARCH}` = '{info.id}'"
    rows = (
        ("all trials", f"{of_search} AND tags.`{ROLE}` = 'trial'"),
        ("completed", f"{of_search} AND tags.`{STATE}` = 'COMPLETE'"),
        ("pruned", f"{of_search} AND tags.`{STATE}` = 'PRUNED'"),
        ("failed, with reasons", f"{of_search} AND tags.`{STATE}` = 'FAIL'"),
        ("finalists on the sealed test", f"{of_search} AND tags.`{ROLE}` = 'finalist'"),
    )
    table = "\n".join(f"| {what} | `{query}` |" for what, query in rows)
    return (
        f"Search `{info.id}` of `{info.experiment}`: {info.metric}, {info.direction}, "
        f"{info.n_rows:,} rows of {markdown(info.data_source)}.\n\n"
        f"Sort by `metrics.objective` {best} for the leaderboard.\n\n| show | filter |\n|---|---|\n{table}\n"
    )


def trial_tags(search: str, number: int, family: str) -> dict[str, str]:
    """Tags of a trial's run from its start."""
    return {KEY: trial_key(search, number), ROLE: "trial", SEARCH: search, TRIAL: str(number), FAMILY: family}


def finalist_tags(search: str, info: FinalistInfo) -> dict[str, str]:
    """Tags of a finalist's run."""
    return {
        KEY: finalist_key(search, info.trial),
        ROLE: "finalist",
        SEARCH: search,
        TRIAL: str(info.trial),
        FAMILY: info.family,
    }


def end_tags(record: TrialRecord) -> dict[str, str]:
    """Tags that a trial's end adds."""
    tags: dict[str, str] = {STATE: record.state}
    if record.error is not None:
        tags[ERROR] = shortened(record.error)
    if record.duplicate_of is not None:
        tags[DUPLICATE] = str(record.duplicate_of)
    if record.cohort is not None:
        tags[COHORT] = record.cohort
    return tags


def texts(params: Mapping[str, object]) -> dict[str, str]:
    """Params as MLflow stores them: text, of bounded length. Numbers, most of what trials have, are no secrets."""
    return {
        name: str(value) if isinstance(value, int | float) else shortened(str(value)) for name, value in params.items()
    }


def shortened(text: str) -> str:
    """The text without secrets, or its beginning with a note of how much is missing."""
    text = redacted(text)
    if len(text) <= MAX_TEXT:
        return text
    return f"{text[:MAX_TEXT]}... [{len(text) - MAX_TEXT:,} of {len(text):,} characters cut]"


def trial_points(record: TrialRecord) -> tuple[Point, ...]:
    """Curve and summary of a trial; non-finite values are left out.

    By epoch: both losses and the metric that is optimised. The other metrics of the data set appear as
    ``val/<metric>_best``, their value at the best epoch: a point costs MLflow 0.2 ms of CPU on SQLite.
    """
    curve = [
        Point(key, value, measurement.epoch, milliseconds(record.started + measurement.seconds))
        for measurement in record.curve
        for key, value in (
            ("train/loss", measurement.train_loss),
            ("val/loss", measurement.val_loss),
            (f"val/{record.metric}", measurement.metrics.get(record.metric, math.nan)),
        )
    ]
    summary: dict[str, float] = {f"val/{name}_best": value for name, value in record.best().items()}
    if record.objective is not None:
        summary["objective"] = record.objective
    if record.objective_se is not None:
        summary["objective_se"] = record.objective_se
    if record.best_epoch is not None:
        summary["best_epoch"] = record.best_epoch
    if record.n_params:
        summary["n_params"] = record.n_params
    summary["time/train_s"] = record.train_s
    if record.peak_mb:
        summary["memory/peak_mb"] = record.peak_mb
    return finite((*curve, *points(summary, record.finished)))


def points(metrics: Mapping[str, float], at: float) -> tuple[Point, ...]:
    """Metrics without a history, as of Unix time `at`."""
    return tuple(Point(key, float(value), 0, milliseconds(at)) for key, value in metrics.items())


def finite(values: Iterable[Point]) -> tuple[Point, ...]:
    """Without NaN and infinities: MLflow stores an infinity as 1.8e308, and then it tops or ends every table."""
    return tuple(point for point in values if math.isfinite(point.value))


def milliseconds(seconds: float) -> int:
    """Unix seconds as MLflow's timestamps."""
    return round(seconds * 1000)
