"""From the raw file to a trained model and its scores."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from pipeline.evaluation.calibration import fit_temperature
from pipeline.packaging.script.plan import Plan
from pipeline.packaging.script.preparing import Fit, labelled, prepare, take
from pipeline.packaging.script.reading import Raw, sha256_of
from pipeline.packaging.script.scoring import score
from pipeline.packaging.script.training import Build, Changes, outputs, train

Read = Callable[[str, Plan], Raw]


def main(plan: Plan, read: Read, fit: Fit, build: Build, changes: Changes | None = None) -> None:
    """Train again and say what came of it."""
    asked = arguments(plan)
    files = [asked.data, *([asked.test] if plan.test is not None else [])]
    for path, expected in zip(files, plan.sha256, strict=True):
        if sha256_of(path) != expected:
            sys.exit(f"error: {path}: this is not the file that the search trained on; rows would be other rows")
    raw, rows = read(asked.data, plan), rows_of(plan)
    data = prepare(plan, raw, rows, fit)
    trained = train(plan, data, build, asked.seed, changes)
    where = f"over {plan.n_folds} folds" if plan.n_folds else f"of {len(data.validation)} rows"
    print(f"best epoch {trained.epoch}")
    print(f"validation {plan.metric} {trained.score:.6f} {where} (recorded {plan.recorded_validation:.6f})")
    # The test rows are touched last, when nothing is left to choose.
    sealed = labelled(read(asked.test, plan)) if plan.test is not None else labelled(raw)
    test = data.part(sealed if plan.test is not None else take(sealed, np.flatnonzero(rows["part"] == 2)))
    logits, temperature = outputs(trained.model, test.inputs, plan), 1.0
    if plan.calibrated:
        held = data.validation
        temperature = fit_temperature(outputs(trained.model, held.inputs, plan), held.target)
        print(f"temperature {temperature:.4f}, to divide the logits by")
    value = score(plan.metric, logits / temperature, test.target, data.spec)
    print(f"test {plan.metric} {value:.6f} of {len(test)} rows (recorded {plan.recorded_test})")
    if asked.save is not None:
        torch.save(trained.model.state_dict(), asked.save)
        print(f"weights are in {asked.save}")


def arguments(plan: Plan) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description="Train a model as a search trained it.")
    parser.add_argument("--data", default=plan.data, help="the raw data")
    if plan.test is not None:
        parser.add_argument("--test", default=plan.test, help="the raw test rows")
    parser.add_argument("--seed", type=int, default=plan.seed, help="of weights, batches and dropout")
    parser.add_argument("--save", metavar="FILE", help="where the weights go")
    return parser.parse_args()


def rows_of(plan: Plan) -> dict[str, npt.NDArray[Any]]:
    """The part of every row, and its fold."""
    with np.load(Path(__file__).with_name(plan.rows), allow_pickle=False) as arrays:
        return dict(arrays)
