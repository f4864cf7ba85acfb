"""``automl leaderboard`` and ``automl trial``: read from the records, so they answer while a search runs."""

from __future__ import annotations

from typing import Any

from rich.console import Console

from flows.commands.loading import experiment_name, find_search
from flows.commands.shown import Shown, table
from flows.leaderboard import Row, leaderboard, pareto, to_csv
from flows.live import clock
from flows.workspace import find_workspace
from pipeline.errors import InputError
from pipeline.records import read_record, read_records, trial_directory
from pipeline.text import one_line, visible


def show_leaderboard(experiment: str, search: str | None, limit: int | None, as_csv: bool, front: bool) -> Shown:
    """Trials of a search in rank order.

    Args:
        front: only those that no other trial beats in score and in size.
    """
    workspace = find_workspace()
    state = find_search(workspace, experiment_name(experiment), search)
    records = list(read_records(workspace.search(state.id)))
    rows = leaderboard(records)
    if front and records:
        rows = pareto(rows, records[0].metric)
    rows = rows[:limit]
    value = [row.model_dump() for row in rows]
    if as_csv:
        return Shown(value, lambda console: print(to_csv(rows), end=""))
    metric = records[0].metric if records else "score"
    headings = ["rank", "trial", "family", "state", metric, "best epoch", "parameters", "train s"]
    body = [
        [
            "" if row.rank is None else str(row.rank),
            f"#{row.trial:03d}",
            row.family,
            row.state + (f": {one_line(row.error, 60)}" if row.error else ""),
            _score(row),
            "" if row.best_epoch is None else f"{row.best_epoch}/{row.epochs}",
            f"{row.n_params:,}",
            f"{row.train_s:.1f}",
        ]
        for row in rows
    ]

    def text(console: Console) -> None:
        console.print(
            f"search {state.id}: {state.status}{', ' + state.reason if state.reason else ''}, {len(records)} trials in "
            f"{clock(state.elapsed)}",
            markup=False,
        )
        console.print(table(headings, body, frozenset({"rank", metric, "best epoch", "parameters", "train s"})))

    return Shown(value, text)


def _score(row: Row) -> str:
    """``0.9743``, or with the standard error over the folds ``0.9743 ± 0.0061``."""
    error = "" if row.se is None else f" ± {row.se:.4f}"
    return "" if row.score is None else f"{row.score:.4f}{error}"


def show_trial(experiment: str, number: int, search: str | None) -> Shown:
    """Everything on record about one trial.

    Raises:
        InputError: no such finished trial.
    """
    workspace = find_workspace()
    state = find_search(workspace, experiment_name(experiment), search)
    directory = trial_directory(workspace.search(state.id), number)
    record = read_record(directory)
    if record is None:
        raise InputError(
            f"search {state.id} has no finished trial {number}", f"see `automl leaderboard {state.experiment}`"
        )
    value: dict[str, Any] = record.model_dump(mode="json") | {"directory": str(directory)}

    def text(console: Console) -> None:
        score = "no score" if record.objective is None else f"{record.metric} {record.objective:.4f}"
        console.print(
            f"{record.label}: {record.state}, {score}, {record.n_params:,} parameters, {record.train_s:.1f} s",
            markup=False,
        )
        if record.error:
            console.print(visible(f"why: {record.error}"), markup=False)
        if record.traceback:
            console.print(visible(record.traceback), markup=False)
        for name, chosen in record.params.items():
            console.print(f"  {name}: {chosen}", markup=False)
        metrics = list(record.curve[0].metrics) if record.curve else []
        body = [
            [str(m.epoch) + ("*" if m.epoch == record.best_epoch else ""), f"{m.train_loss:.4f}", f"{m.val_loss:.4f}"]
            + [f"{m.metrics[name]:.4f}" if name in m.metrics else "" for name in metrics]
            for m in record.curve
        ]
        headings = ["epoch", "train loss", "val loss", *metrics]
        console.print(table(headings, body, frozenset(headings)))
        console.print(f"files: {directory}", markup=False)

    return Shown(value, text)
