"""Do the stores agree, and does the champion serve what was reported? For finished experiments of this folder.

    python -m benchmarks totals NAME [NAME ...]

For each: Optuna's trials (opened with Optuna's own storage) against MLflow's child runs and our records, state by
state; the champion, loaded by MLflow in a fresh process and scored by scikit-learn on the raw sealed rows, against the
reported score.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence

import optuna
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

from flows.workspace import find_workspace
from pipeline.records import read_records
from pipeline.search.directory import states_of
from pipeline.tracking.mlflow import MLflowTracker

SCORE = """
import json, sys
import mlflow, numpy as np, pyarrow.parquet as pq
from pathlib import Path
from sklearn import metrics
uri, name, folder, metric = sys.argv[1:]
mlflow.set_tracking_uri(uri)
sealed = Path(folder) / "sealed"
if (sealed / "rows.parquet").exists():
    rows = pq.read_table(sealed / "rows.parquet").to_pandas()
else:
    arrays = np.load(sealed / "rows.npz")
    rows = arrays["images"] if "images" in arrays else np.split(arrays["steps"], np.cumsum(arrays["lengths"])[:-1])
target = pq.read_table(sealed / "target.parquet")["target"].to_pandas().to_numpy()
out = mlflow.pyfunc.load_model(f"models:/{name}@champion").predict(rows)
if metric == "roc_auc":
    column = [c for c in out.columns if c.startswith("probability_")][1]
    score = metrics.roc_auc_score(target.astype(str) == column.removeprefix("probability_"), out[column])
elif metric == "rmse":
    score = metrics.root_mean_squared_error(target.astype(float), out["prediction"])
else:
    score = metrics.accuracy_score(target.astype(str), out["prediction"].astype(str))
print(json.dumps({"score": float(score), "rows": len(out)}))
"""


def main(arguments: Sequence[str]) -> None:
    """Print one row an experiment; exit 1 where something disagrees."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks totals", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("names", nargs="+")
    workspace = find_workspace()
    uri = workspace.tracking_uri("sqlite:///mlruns/mlflow.db")
    print("| experiment | Optuna | MLflow | records | champion, loaded by MLflow | reported | agree |")
    print("|---|---|---|---|---|---|---|")
    agreed = True
    for name in parser.parse_args(arguments).names:
        state = states_of(workspace.state, name)[-1]
        folder = workspace.search(state.id)
        storage = JournalStorage(JournalFileBackend(str(folder / "optuna.journal")))
        study = optuna.load_study(study_name=state.id, storage=storage)
        ours = Counter(trial.state.name for trial in study.trials)
        runs = Counter(MLflowTracker(uri, workspace.artifacts).trial_states(state.id).values())
        records = Counter(record.state for record in read_records(folder))
        evaluation = json.loads((folder / "evaluation.json").read_text())
        metric = evaluation["metric"]
        prepared = next(
            path.parent for path in workspace.data.glob("*/prepared.json") if state.fingerprint in path.read_text()
        )
        command = [sys.executable, "-c", SCORE, uri, name, str(prepared), metric]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        served = json.loads(done.stdout.splitlines()[-1])
        reported = evaluation["finalists"][0]["test"][metric]["value"]
        same = ours == runs == records and abs(served["score"] - reported) <= 1e-6 * max(1.0, abs(reported))
        agreed &= same
        print(
            f"| {name} | {_counts(ours)} | {_counts(runs)} | {_counts(records)} | {metric} {served['score']:.6f} on "
            f"{served['rows']} raw rows | {reported:.6f} | {'yes' if same else 'NO'} |"
        )
    if not agreed:
        sys.exit(1)


def _counts(states: Counter[str]) -> str:
    return ", ".join(f"{n} {state}" for state, n in sorted(states.items()))
