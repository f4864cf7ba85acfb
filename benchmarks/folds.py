"""Does cross-validation choose better than one small validation part? The same searches both ways, over several tests.

    python -m benchmarks folds [--trials 100] [--seeds 0 1 2 3 4] [--data sklearn:breast_cancer] [--json FILE]

Each seed draws another sealed test. Shown are the winner's score as the search saw it, what the sealed test says of it,
and the difference, by which the search flatters. The default configuration alone (one trial) is the bar for both.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

EXPERIMENT = """
name: folds
search: {{families: [mlp], metric: log_loss, budget: {{trials: {trials}}}, seed: {seed}}}
data: {{source: "{source}", split: {{by: {by}, seed: {seed}}}}}
train: {{max_epochs: 40, patience: 10}}
"""
WAYS = {
    "one default, one validation part": ("stratified", 1),
    "search, one validation part": ("stratified", 0),
    "search, 5 folds": ("kfold", 0),
}


def main(arguments: Sequence[str]) -> None:
    """Run the searches and print a Markdown table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks folds", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--trials", type=int, default=100)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--data", default="sklearn:breast_cancer")
    parser.add_argument("--json", type=Path)
    chosen = parser.parse_args(arguments)
    found: dict[str, list[dict[str, float]]] = {way: [] for way in WAYS}
    for seed in chosen.seeds:
        for way, (by, trials) in WAYS.items():
            found[way].append(_winner(chosen.data, by, trials or chosen.trials, seed))
    print(f"| {chosen.data}, {len(chosen.seeds)} tests | validation log loss | sealed test | flattered by | seconds |")
    print("|---|---|---|---|---|")
    for way, results in found.items():
        columns = [_spread([result[name] for result in results]) for name in ("validation", "test", "optimism")]
        seconds = statistics.median(result["seconds"] for result in results)
        print(f"| {way} | {' | '.join(columns)} | {seconds:.0f} |")
    if chosen.json:
        chosen.json.write_text(json.dumps(found, indent=1))


def _spread(values: list[float]) -> str:
    return f"{statistics.median(values):.3f} ({min(values):.3f}, {max(values):.3f})"


def _winner(source: str, by: str, trials: int, seed: int) -> dict[str, float]:
    with tempfile.TemporaryDirectory(prefix="folds-") as folder:
        file = Path(folder) / "folds.yaml"
        file.write_text(EXPERIMENT.format(source=source, by=by, trials=trials, seed=seed))
        command = [str(Path(sys.executable).with_name("automl")), "run", str(file), "--json", "--no-prefect"]
        done = subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True)
        result: dict[str, Any] = json.loads(done.stdout)
    winner = result["winner"]
    test = winner["test"]["log_loss"]["value"]
    return {
        "validation": winner["validation"],
        "test": test,
        "optimism": test - winner["validation"],
        "seconds": result["seconds"]["search"],
    }
