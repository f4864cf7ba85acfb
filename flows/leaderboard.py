"""The leaderboard: finished trials in rank order, read from the records, never from a store."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable

from pydantic import BaseModel, ConfigDict

from pipeline.objective import METRICS
from pipeline.records import TrialRecord
from pipeline.text import inert


class Row(BaseModel):
    """One trial of the leaderboard."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    rank: int | None
    """1 is best; None for trials that did not complete."""
    trial: int
    family: str
    state: str
    score: float | None
    se: float | None
    """Standard error of the score over the folds; None without cross-validation."""
    best_epoch: int | None
    epochs: int
    n_params: int
    train_s: float
    error: str | None


def leaderboard(records: Iterable[TrialRecord]) -> list[Row]:
    """Completed trials by score, then pruned ones by score, then failures; ties by number."""
    order = {"COMPLETE": 0, "PRUNED": 1, "FAIL": 2}

    def key(record: TrialRecord) -> tuple[int, float, int]:
        score = float("nan") if record.objective is None else record.objective
        return order[record.state], METRICS[record.metric].rank_key(score), record.number

    rows = []
    for position, record in enumerate(sorted(records, key=key), 1):
        rows.append(
            Row(
                rank=position if record.state == "COMPLETE" else None,
                trial=record.number,
                family=record.family,
                state=record.state,
                score=record.objective,
                se=record.objective_se,
                best_epoch=record.best_epoch,
                epochs=len(record.curve),
                n_params=record.n_params,
                train_s=round(record.train_s, 3),
                error=record.error,
            )
        )
    return rows


def pareto(rows: Iterable[Row], metric: str) -> list[Row]:
    """Completed trials that no other one beats in score without more parameters, nor in parameters with a score as
    good, best score first."""
    key = METRICS[metric].rank_key
    front: list[Row] = []
    complete = [row for row in rows if row.rank is not None and row.score is not None]
    for row in sorted(complete, key=lambda r: (key(r.score or 0.0), r.n_params, r.trial)):
        if not front or row.n_params < front[-1].n_params:
            front.append(row)
    return front


def to_csv(rows: Iterable[Row]) -> str:
    """The rows as CSV. Cells that a spreadsheet would take for a formula get a leading apostrophe."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(Row.model_fields)
    for row in rows:
        writer.writerow([inert(value) for value in row.model_dump().values()])
    return text.getvalue()
