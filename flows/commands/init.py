"""``automl init``: an experiment file from a look at the data."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from typing import Any, Final, cast, get_args

import yaml

from flows.commands.shown import Shown, lines
from pipeline.config import ExperimentConfig, is_name
from pipeline.data.checks.policy import ChecksConfig
from pipeline.data.inspect import Inspection, inspect_source, test_beside
from pipeline.data.spec import Kind
from pipeline.errors import InputError
from pipeline.files import THEIRS, write_atomic
from pipeline.objective import metrics_for, objective_for
from pipeline.text import one_line, shown
from search_spaces import families_for

_NO_NAME: Final = {"train", "all", "data", "dataset", "images", "features"}
"""File names that say nothing: the folder's name is better."""
_ENDINGS: Final = re.compile(r"(\.(csv|tsv|parquet|jsonl|npz|ts)(\.gz)?|-images.*-ubyte(\.gz)?)$", re.IGNORECASE)
MAX_COMMENT: Final = 300


def init_experiment(data: str, target: str | None, output: Path, *, force: bool, kind: str | None = None) -> Shown:
    """Look at the data and write an experiment file that `automl check` accepts as it stands.

    Raises:
        InputError: the file is there already, or cannot be written.
        DataError: the data cannot be learned from.
    """
    if output.exists() and not force:
        raise InputError(f"the file {shown(str(output))} exists already", "name another with -o, or use --force")
    if not output.absolute().parent.is_dir() or output.is_dir():
        raise InputError(f"the file {shown(str(output))} cannot be written", "name a file in a folder that exists")
    if kind is not None and kind not in get_args(Kind):
        raise InputError(f"--kind must be one of {', '.join(get_args(Kind))}, but got {shown(kind)}", "correct it")
    source, test = find_parts(data)
    seen = inspect_source(source, test, Path.cwd(), target, cast("Kind | None", kind))
    text = experiment_text(name_of(source), source, test, target, seen)
    ExperimentConfig.model_validate(yaml.safe_load(text))  # what is written is read by nobody but us: it must be valid
    write_atomic(output, text.encode(), THEIRS)
    value: dict[str, Any] = {
        "file": str(output),
        "source": source,
        "test": test if seen.use_test else None,
        "kind": seen.kind,
        "task": seen.task,
        "rows": seen.n_rows,
        "split": seen.split,
        "findings": [finding.model_dump() for finding in seen.findings],
    }
    said = [f"wrote {output}: {seen.kind} data, {seen.task}, {seen.n_rows:,} rows"]
    said += [f"test rows from {test}" if seen.use_test else f"{test} is not used: {seen.test_reason}"] if test else []
    said += [f"split by {seen.split}: {seen.split_reason}"]
    if seen.is_series:
        said.append(
            f"{target} is predicted from the other columns of its row; the rows are series over time, too: add "
            "--kind forecast to predict it from its past"
        )
    said.append(f"next: automl check {output}")
    return lines(value, *(one_line(line, MAX_COMMENT) for line in said))


def find_parts(data: str) -> tuple[str, str | None]:
    """The source and the test beside it. A folder stands for the ``train`` (and ``test``) in it.

    Raises:
        InputError: a folder in which nothing is called so.
    """
    path = Path(data)
    if ":" in data or not path.is_dir():
        beside = None if ":" in data else test_beside(path)
        return data, None if beside is None else str(beside)
    inside = sorted(entry for entry in path.iterdir() if not entry.name.startswith("."))
    folders = [entry for entry in inside if entry.is_dir()]
    train = [entry for entry in inside if "train" in entry.name.lower() and test_beside(entry) is not None]
    if train and (train[0].is_dir() or not folders):
        return str(train[0]), str(test_beside(train[0]))
    if folders:
        return data, None  # a folder of class folders
    files = [entry for entry in inside if _ENDINGS.search(entry.name)]
    if len(files) == 1:
        return str(files[0]), None
    raise InputError(
        f"the folder {shown(data)} has {len(files)} data files",
        f"name one of them: {', '.join(entry.name for entry in files[:8])}" if files else "name a file or folder",
    )


def name_of(source: str) -> str:
    """A name for the experiment, from the data's."""
    path = Path(source.rpartition(":")[2])
    stem = _ENDINGS.sub("", path.name)
    stem = re.sub(r"[-_ .]?(train|TRAIN|Train)$", "", stem) or path.absolute().parent.name
    if stem.lower() in _NO_NAME:
        stem = path.absolute().parent.name
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", stem).strip("-._")[:63]
    return name if is_name(name) else "experiment"


def experiment_text(name: str, source: str, test: str | None, target: str | None, seen: Inspection) -> str:
    """The file: every line that could be otherwise says what else it could be, or why it is so."""
    families = families_for(seen.kind)
    metric = _metric(seen)
    bound = "min: 0.9" if objective_for(metric, seen.task).direction == "maximize" else "max: 0.5"
    split = {"by": seen.split, "validation": 0.2, "test": 0.2, "column": seen.split_column, "seed": 0}
    out = [
        f"# {_comment(f'automl init {source}')}",
        "# Look at what would be done with `automl check FILE`, then `automl run FILE`. Paths start from the folder",
        "# in which the command runs. What is left out has its default.",
        f"name: {_scalar(name)}",
        "data:",
        *_line("  ", "source", _path(source), _rows(seen)),
        *([] if target is None else _line("  ", "target", target, _target(seen))),
        *_line("  ", "kind", seen.kind, "tabular | image | sequence | text | forecast"),
        *_line("  ", "task", seen.task, "binary | multiclass | regression | forecast"),
        *_forecast(seen),
    ]
    if test is not None and seen.use_test:
        out += _line("  ", "test", _path(test), f"{seen.test_reason}; without it test rows are held out of the source")
    elif test is not None:
        out += [f"  # {_comment(f'test: {test} is there, but cannot be the test: {seen.test_reason}')}"]
    out += _line("  ", "split", {k: v for k, v in split.items() if v is not None}, seen.split_reason)
    if seen.forecast is None:
        out += ["  # split by: random | stratified | group | time | kfold; group and time need the name of a `column`"]
    out += _types(seen)
    out += [
        f"# checks: {{leakage: error}}  # error | warn | off, for {', '.join(ChecksConfig.model_fields)}",
        "search:",
        *_line("  ", "families", list(families), "fewer train more trials each"),
        *_line("  ", "metric", metric, " | ".join(metrics_for(seen.task))),
        "  budget: {trials: 60, time: 10m}  # totals; the first reached ends the search",
        "  # space: {optimizer.name: adamw}  # narrow or pin what is searched",
        "  seed: 0",
        "train: {max_epochs: 100, patience: 10}",
        "promotion: {gates: [{beats: champion}]}  # more gates: {metric: " + f"{metric}, {bound}}}",
    ]
    return "\n".join(out) + "\n"


def _metric(seen: Inspection) -> str:
    """The task's own metric; with rare classes one that counts all classes alike."""
    if seen.task == "multiclass" and seen.imbalanced:
        return "balanced_accuracy"
    return objective_for("auto", seen.task).metric


def _rows(seen: Inspection) -> str:
    kinds = Counter(seen.types.values())
    columns = ", ".join(f"{count} {kind}" for kind, count in kinds.items())
    return f"{seen.n_rows:,} rows" + (f"; columns: {columns}" if columns else "")


def _target(seen: Inspection) -> str:
    if not seen.labels:
        return "a quantity"
    ranked = sorted(zip(seen.counts, map(str, seen.labels), strict=True), reverse=True)
    shares = [f"{label} {count / seen.n_rows:.1%}" for count, label in (*ranked[:3], *ranked[3:][-1:])]
    return f"{len(seen.labels)} classes: {', '.join(shares)}{', imbalanced' if seen.imbalanced else ''}"


def _forecast(seen: Inspection) -> list[str]:
    """The settings of a forecast, each with its meaning; for other series, how they would be forecast."""
    if seen.forecast is None:
        if not seen.is_series:
            return []
        return [
            "  # The rows are regular series over time: with --kind forecast, init writes a file that forecasts them."
        ]
    meanings = {
        "time": "the column of times",
        "series": "the column that tells series apart; null: one series",
        "horizon": "steps ahead that are predicted at once",
        "context": "steps of the past that they are predicted from",
        "season": "steps after which values come again: the naive forecast repeats them; 1: the last value",
        "covariates": "numeric columns that are read beside the target; []: none",
    }
    lines = [_line("    ", key, getattr(seen.forecast, key), meaning) for key, meaning in meanings.items()]
    return ["  forecast:", *(line for written in lines for line in written)]


def _types(seen: Inspection) -> list[str]:
    """Types that are settled, and as comments those that were noticed."""
    kinds = {"drop", "datetime"} | ({"text"} if seen.kind == "tabular" else set())
    noticed = {name: kind for name, kind in seen.types.items() if kind in kinds}
    out = _line("  ", "types", dict(seen.settled), "the only feature") if seen.settled else []
    for name, kind in list(noticed.items())[:20]:
        why = next((f.message for f in seen.findings if f.subject == name), "")
        out.append(f"  # {_comment(f'{name}: {kind}: {why}')}")
    out += [] if seen.settled or seen.kind != "tabular" else ["  # types: {COLUMN: numeric | categorical | drop}"]
    return out


def _line(indent: str, key: str, value: object, comment: str) -> list[str]:
    return [f"{indent}{key}: {_scalar(value)}  # {_comment(comment)}"]


def _scalar(value: object) -> str:
    """A value as YAML has it on one line."""
    text = yaml.safe_dump(value, default_flow_style=True, allow_unicode=True, width=1 << 20, sort_keys=False)
    return text.removesuffix("\n").removesuffix("\n...")


def _path(text: str) -> str:
    """A path as the file has it."""
    return text.removeprefix("./")


def _comment(text: str) -> str:
    return one_line(text, MAX_COMMENT)
