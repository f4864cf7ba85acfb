"""``automl check``: the file, the data and the models it would train, without leaving anything behind."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from flows.commands.loading import load
from flows.commands.shown import Shown, table
from flows.stages import check_against_data, settled_findings
from pipeline.data.findings import Finding
from pipeline.data.prepare import Prepared, prepare
from pipeline.text import one_line, visible
from pipeline.training.config import TrainSettings
from pipeline.training.devices import find_slots
from pipeline.training.learner import SoloLearner, n_batches
from search_spaces import default_trial

MAX_LINE = 2000


def check_experiment(file: Path, overrides: tuple[str, ...]) -> Shown:
    """Validate file and data; measure one batch of every family's default."""
    config, root, _ = load(file, overrides)
    with tempfile.TemporaryDirectory(prefix="automl-check-") as scratch:
        prepared = prepare(config.data, root, Path(scratch))
        checked = check_against_data(config, prepared)
        slots = find_slots(config.resources.devices, config.resources.slots_per_device)
        settings = TrainSettings(metric=checked.objective.metric, **config.train.model_dump())
        torch.set_num_threads(slots[0].threads)
        estimates = [_measure(family, prepared, settings, slots[0].device) for family in checked.families]
    spec = prepared.spec
    value: dict[str, Any] = {
        "experiment": config.name,
        "kind": spec.kind,
        "task": spec.task,
        "labels": list(spec.labels),
        "metric": checked.objective.metric,
        "direction": checked.objective.direction,
        "rows": _rows(prepared),
        "columns": dict(prepared.schema),
        "findings": [finding.model_dump() for finding in settled_findings(config, prepared)],
        "slots": [slot.name for slot in slots],
        "families": estimates,
    }
    return Shown(value, lambda console: _show(console, value))


def _show_findings(console: Console, findings: list[Finding]) -> None:
    """A table on a terminal, else a line each."""
    if not console.is_terminal:
        for finding in findings:
            console.print(one_line(str(finding), MAX_LINE), markup=False)
        return
    grid = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    for heading in ("severity", "check", "about", "finding", "what to do"):
        grid.add_column(heading, overflow="fold")
    for finding in findings:
        evidence = f" ({finding.evidence})" if finding.evidence else ""
        cells = (finding.severity, finding.check or "", finding.subject, finding.message + evidence, finding.remedy)
        style = "yellow" if finding.severity == "warning" else None
        grid.add_row(*(escape(one_line(cell, MAX_LINE)) for cell in cells), style=style)
    if findings:
        console.print(grid)


def _measure(family: str, prepared: Prepared, settings: TrainSettings, device_name: str) -> dict[str, Any]:
    """Parameters, and the time of an epoch from one timed batch (after one that warms up)."""
    device = torch.device(device_name)
    data = prepared.development()
    config = default_trial(family, prepared.spec, 0)
    size = config.optimisation.batch_size
    one = data.train.take(slice(0, size)).to(device)
    learner = SoloLearner(config, one, prepared.spec, settings, device)
    learner.train_epoch()
    started = time.perf_counter()
    learner.train_epoch()
    seconds = time.perf_counter() - started
    return {
        "family": family,
        "n_params": learner.n_params(0),
        "batch_size": size,
        "ms_per_batch": round(1000 * seconds, 2),
        "s_per_epoch": round(seconds * n_batches(prepared.spec.n_train, size) * max(1, prepared.spec.n_folds), 2),
    }


def _rows(prepared: Prepared) -> dict[str, int]:
    spec = prepared.spec
    how = {"folds": spec.n_folds} if spec.n_folds else {"validation": spec.n_validation}
    return {"train": spec.n_train, **how, "test": len(prepared.sealed)}


def _show(console: Console, value: dict[str, Any]) -> None:
    rows = value["rows"]
    console.print(
        f"{value['experiment']}: {value['kind']} data, {value['task']}, {value['direction']} {value['metric']}",
        markup=False,
    )
    validated = f"{rows['folds']} folds" if "folds" in rows else f"{rows['validation']} validation"
    console.print(f"rows: {rows['train']} train, {validated}, {rows['test']} sealed test")
    columns = value["columns"]
    shown = ", ".join(f"{name}: {kind}" for name, kind in list(columns.items())[:20])
    console.print(visible(f"columns: {shown}{' …' if len(columns) > 20 else ''}"), markup=False)
    _show_findings(console, [Finding.model_validate(finding) for finding in value["findings"]])
    console.print(f"slots: {', '.join(value['slots'])}")
    console.print(
        table(
            ["family", "parameters", "batch", "ms/batch", "s/epoch"],
            [
                [
                    e["family"],
                    f"{e['n_params']:,}",
                    str(e["batch_size"]),
                    f"{e['ms_per_batch']:.1f}",
                    f"{e['s_per_epoch']:.2f}",
                ]
                for e in value["families"]
            ],
            frozenset({"parameters", "batch", "ms/batch", "s/epoch"}),
        )
    )
