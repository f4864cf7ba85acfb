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
                best_epoch=record.best_epoch,
                epochs=len(record.curve),
                n_params=record.n_params,
                train_s=round(record.train_s, 3),
                error=record.error,
            )
        )
    return rows


def to_csv(rows: Iterable[Row]) -> str:
    """The rows as CSV. Cells that a spreadsheet would take for a formula get a leading apostrophe."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(Row.model_fields)
    for row in rows:
        writer.writerow([inert(value) for value in row.model_dump().values()])
    return text.getvalue()
