"""Does training in cohorts cost search quality? The same searches with cohorts and one trial at a time.

    python -m benchmarks quality [--trials 60] [--seeds 0 1 2 3 4] [--json FILE]

Equal data, space, budget in trials, epochs and seeds; what differs is who was asked for with whose results. The best
validation score after each share of the trials is compared; time is not.
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

from pipeline.objective import METRICS
from pipeline.records import read_records

SHARES = (0.25, 0.5, 1.0)
EXPERIMENT = """
name: quality
data: {source: "sklearn:digits", split: {validation: 0.3}}
search:
  families: [mlp]
  metric: log_loss
  pruner: none
  budget: {trials: 60}
train: {max_epochs: 10, patience: 10}
"""


def main(arguments: Sequence[str]) -> None:
    """Run the searches and print a Markdown table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks quality", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--trials", type=int, default=60)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--json", type=Path)
    chosen = parser.parse_args(arguments)
    found: dict[str, list[list[float]]] = {"auto": [], "1": []}
    for seed in chosen.seeds:
        for cohort, curves in found.items():
            curves.append(_best_so_far(cohort, chosen.trials, seed))
    print("| trials | in cohorts: median best log loss (min, max) | one at a time | cohorts better, of seeds |")
    print("|---|---|---|---|")
    for share in SHARES:
        at = max(1, round(share * chosen.trials)) - 1
        ours, theirs = ([curve[at] for curve in found[cohort]] for cohort in ("auto", "1"))
        wins = sum(a <= b for a, b in zip(ours, theirs, strict=True))
        print(f"| {at + 1} | {_spread(ours)} | {_spread(theirs)} | {wins} of {len(ours)} |")
    if chosen.json:
        chosen.json.write_text(json.dumps(found, indent=1))


def _spread(values: list[float]) -> str:
    return f"{statistics.median(values):.4f} ({min(values):.4f}, {max(values):.4f})"


def _best_so_far(cohort: str, trials: int, seed: int) -> list[float]:
    """The best validation score among the first n trials, for every n."""
    with tempfile.TemporaryDirectory(prefix="quality-") as folder:
        file = Path(folder) / "quality.yaml"
        file.write_text(EXPERIMENT)
        command = [str(Path(sys.executable).with_name("automl")), "run", str(file), "--json", "--no-prefect"]
        command += ["--trials", str(trials), "--set", f"search.seed={seed}", "--set", f"resources.cohort={cohort}"]
        subprocess.run(command, cwd=folder, check=True, capture_output=True)
        (search,) = (Path(folder) / "mlruns" / "searches").iterdir()
        records = list(read_records(search))
    objective = METRICS["log_loss"]
    best, curve = objective.worst, []
    for record in sorted(records, key=lambda record: record.number):
        best = objective.best_of([best, objective.worst if record.objective is None else record.objective])
        curve.append(best)
    return curve
