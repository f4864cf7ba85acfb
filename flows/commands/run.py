"""``automl run``: the whole way from a file to a champion."""

from __future__ import annotations

import logging
import time
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from rich.console import Console

from flows.commands.loading import load
from flows.commands.shown import Shown
from flows.environment import configure
from flows.live import clock, progress_view, summary
from flows.notify import tell_of_move
from flows.stages import Experiment
from flows.vetting import vet
from pipeline.search.progress import Progress


def run_experiment(file: Path, overrides: tuple[str, ...], *, new: bool, prefect: bool, quiet: bool) -> Shown:
    """Run (or go on with) an experiment. Progress goes to stderr when the result is to be JSON."""
    began = time.monotonic()
    config, root, workspace = load(file, overrides)
    configure(workspace.prefect_home)
    vet(Experiment(config, root, workspace), new=new)
    # These load MLflow, which a wrong file need not wait for.
    from flows.run import open_run, run_plainly

    imported = time.monotonic()
    console = Console(stderr=quiet, highlight=False, soft_wrap=True)
    view = nullcontext(_nothing) if quiet and not console.is_terminal else progress_view(console)
    with view as show, open_run(config, root, workspace, show, new=new) as run:
        opened = time.monotonic()
        run.seconds.update(imports=imported - began, stores=opened - imported)
        if prefect:
            logging.getLogger("prefect").setLevel(logging.WARNING)
            from flows.search_flow import run_with_prefect

            result = run_with_prefect(run, on_start=lambda: run.seconds.update(prefect=time.monotonic() - opened))
        else:
            result = run_plainly(run)
        deliver = time.monotonic()
    seconds = {**run.seconds, "deliver": time.monotonic() - deliver, "total": time.monotonic() - began}
    if result.promotion.promoted:
        move = result.promotion.move(config.registered_model, workspace.ledger)
        tell_of_move(config.notify, "promoted", config.name, result.outcome.line, move)
    evaluation = result.evaluation
    value: dict[str, Any] = {
        "experiment": config.name,
        "search": result.state.id,
        "trials": {
            "complete": result.progress.complete,
            "pruned": result.progress.pruned,
            "failed": result.progress.failed,
        },
        "metric": evaluation.metric,
        "winner": evaluation.winner.model_dump(exclude={"sliced"}),
        "promotion": {
            "promoted": result.promotion.promoted,
            "line": result.promotion.line,
            "version": result.promotion.version,
        },
        "model": config.registered_model,
        "seconds": {name: round(spent, 2) for name, spent in seconds.items()},
        "train_s": round(result.progress.train_s, 2),
        "optuna_s": round(result.progress.optuna_s, 2),
        "report": str(result.report),
    }

    def text(out: Console) -> None:
        winner = evaluation.winner
        score = winner.test[evaluation.metric]
        out.print(summary(result.progress), markup=False)
        out.print(
            f"winner #{winner.trial:03d} {winner.family}: {evaluation.metric} {winner.score} "
            f"{evaluation.over}, "
            f"{score} on the sealed test ({evaluation.n_rows} rows)",
            markup=False,
        )
        if evaluation.forecast is not None:
            out.print(f"it {evaluation.forecast.line}", markup=False)
        out.print(result.promotion.line, markup=False)
        out.print(
            f"took {clock(seconds['total'])}; see `automl leaderboard {config.name}`, `automl ui`, and "
            f"{_short(result.report)}",
            markup=False,
        )

    return Shown(value, text)


def _nothing(_progress: Progress) -> None:
    """No view."""


def _short(path: Path) -> Path:
    """Relative to the current folder where that is shorter to read."""
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
