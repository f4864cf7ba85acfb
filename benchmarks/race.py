"""A race against a hand-written Optuna + DataLoader + MLflow script: the same data, space, trials, epochs and pruner.

    python -m benchmarks race path/to/handrolled.py [--trials 300] [--seeds 0 1 2] [--models all|best] [--json FILE]

Both sides run as whole processes, in turn, seed by seed, and are timed from their start to their end. The hand-written
script must print one JSON line with ``wall`` (without its imports), ``trials``, ``best_val`` and ``test``, as the one
that the README quotes does. On a virtual machine each side also says what share of its time the host gave to others: a
race in which that is much tells little.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

EXPERIMENT = Path(__file__).with_name("race.yaml")


def main(arguments: Sequence[str]) -> None:
    """Run the race and print a Markdown table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks race", description=__doc__.splitlines()[0])
    parser.add_argument("script", type=Path)
    parser.add_argument("--trials", type=int, default=300)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--models", default="all", help="which models we store: all, top-N or best, as the script does")
    parser.add_argument("--pruner", choices=["none", "median"], default="none", help="of both sides")
    parser.add_argument("--json", type=Path)
    chosen = parser.parse_args(arguments)
    rows = []
    for seed in chosen.seeds:
        with tempfile.TemporaryDirectory(prefix="race-") as folder:
            ours = _ours(Path(folder), chosen, seed)
        with tempfile.TemporaryDirectory(prefix="race-") as folder:
            theirs = _theirs(Path(folder), chosen, seed)
        rows.append({"seed": seed, "ours": ours, "theirs": theirs})
        print(json.dumps(rows[-1]), flush=True)
    print(_table(rows))
    if chosen.json:
        chosen.json.write_text(json.dumps(rows, indent=1))


def _run(command: list[str], folder: Path) -> tuple[dict[str, Any], dict[str, float]]:
    """What a side printed, and what it took."""
    started, used, stolen = time.monotonic(), _cpu_s(), _stolen_s()
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True)
    took = {"total_s": time.monotonic() - started, "cpu_s": _cpu_s() - used, "stolen_s": _stolen_s() - stolen}
    text = done.stdout.strip()
    return json.loads(text if text.startswith("{\n") else text.splitlines()[-1]), took


def _cpu_s() -> float:
    """Of all processes that were started here and have ended."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def _stolen_s() -> float:
    """Seconds in which a core of this virtual machine had work and was not run, since it started (``man 5 proc``)."""
    try:
        ticks = Path("/proc/stat").read_text().split("\n", 1)[0].split()[8]
    except OSError:  # not Linux
        return 0.0
    return int(ticks) / os.sysconf("SC_CLK_TCK")


def _ours(folder: Path, chosen: argparse.Namespace, seed: int) -> dict[str, float]:
    automl = Path(sys.executable).with_name("automl")
    sets = [f"search.seed={seed}", f"data.split.seed={seed}", f"search.pruner={chosen.pruner}"]
    sets += [f"tracking.models={chosen.models}"]
    sets += [f"train.max_epochs={chosen.epochs}", f"train.patience={chosen.epochs}"]
    command = [str(automl), "run", str(EXPERIMENT), "--json", "--no-prefect", "--trials", str(chosen.trials)]
    for item in sets:
        command += ["--set", item]
    result, took = _run(command, folder)
    metric = result["metric"]
    return {
        **took,
        "validation": result["winner"]["validation"],
        "test": result["winner"]["test"][metric]["value"],
        "trials": sum(result["trials"].values()),
    }


def _theirs(folder: Path, chosen: argparse.Namespace, seed: int) -> dict[str, float]:
    command = [sys.executable, str(chosen.script.absolute()), "--dataset", "digits", "--n-trials", str(chosen.trials)]
    command += ["--epochs", str(chosen.epochs), "--pruner", chosen.pruner, "--seed", str(seed), "--threads", "1"]
    result, took = _run(command, folder)
    return {
        **took,
        "own_clock_s": result["wall"],
        "validation": result["best_val"],
        "test": result["test"],
        "trials": result["trials"],
    }


def _share(side: dict[str, float]) -> str:
    """Stolen time, in per cent of the time that it asked for."""
    return f"{100 * side['stolen_s'] / (side['cpu_s'] + side['stolen_s']):.0f} %"


def _given_back(ours: dict[str, float], theirs: dict[str, float]) -> float:
    """The ratio had the host taken nothing: the script has one thread, and what was taken of us was spread over all
    cores."""
    return theirs["cpu_s"] / (ours["total_s"] - ours["stolen_s"] / (os.cpu_count() or 1))


def _table(rows: list[dict[str, Any]]) -> str:
    ratios = [row["theirs"]["total_s"] / row["ours"]["total_s"] for row in rows]
    without = [row["theirs"]["own_clock_s"] / row["ours"]["total_s"] for row in rows]
    lines = [
        "| seed | by hand, s | automl, s | trials an hour | CPU s, by hand / automl | stolen, by hand / automl "
        "| given back | validation, by hand / automl | test, by hand / automl |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row, ratio in zip(rows, ratios, strict=True):
        ours, theirs = row["ours"], row["theirs"]
        lines.append(
            f"| {row['seed']} | {theirs['total_s']:.1f} | {ours['total_s']:.1f} | x{ratio:.1f} | "
            f"{theirs['cpu_s']:.0f} / {ours['cpu_s']:.0f} | {_share(theirs)} / {_share(ours)} | "
            f"x{_given_back(ours, theirs):.1f} | "
            f"{theirs['validation']:.4f} / {ours['validation']:.4f} | {theirs['test']:.4f} / {ours['test']:.4f} |"
        )
    lines.append("")
    lines.append(
        f"median x{statistics.median(ratios):.1f} (min x{min(ratios):.1f}, max x{max(ratios):.1f}); "
        f"median x{statistics.median(without):.1f} by the script's own clock, which leaves its imports out"
    )
    return "\n".join(lines)
