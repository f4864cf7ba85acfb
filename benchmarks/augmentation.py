"""Does changing images help? The default CNN on a few of CIFAR-10's images, with and without.

    AUTOML_DATA=... python -m benchmarks augmentation [--rows 4000] [--epochs 40] [--seeds 0 1 2]

Equal rows, architecture, optimisation and epochs; accuracy on the first 4,000 test images after the last epoch, and the
seconds of CPU that an epoch took.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
import torch

from pipeline.data.assemble import assemble
from pipeline.data.config import DataConfig
from pipeline.data.source import read_source
from pipeline.data.tensors import Part
from pipeline.training.config import AugmentationConfig, TrainSettings
from pipeline.training.learner import SoloLearner
from search_spaces import default_trial

N_TEST: Final = 4_000
CHOICES: Final = {
    "as they are": AugmentationConfig(),
    "shift 4": AugmentationConfig(shift=4),
    "mirrored": AugmentationConfig(flip="horizontal"),
    "mirrored, shift 2": AugmentationConfig(flip="horizontal", shift=2),
    "mirrored, shift 2, cutout 8": AugmentationConfig(flip="horizontal", shift=2, cutout=8),
    "mixup 0.2": AugmentationConfig(mixup=0.2),
}


def main(arguments: Sequence[str]) -> None:
    """Train and print a Markdown table."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks augmentation", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("--rows", type=int, default=4_000)
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    chosen = parser.parse_args(arguments)
    folder = Path(os.environ["AUTOML_DATA"]) / "cifar10"
    config = DataConfig(source=str(folder / "train.parquet"), target="label")
    rows = np.arange(round(chosen.rows / 0.8))  # a fifth is the validation part
    train = read_source(config.source, Path(), config.target).take(rows)
    test = read_source(str(folder / "test.parquet"), Path(), config.target).take(np.arange(N_TEST))
    made = assemble(config, train, test)
    data = made.development
    assert test.target is not None
    sealed = Part(made.preprocessor.transform(test.features), torch.from_numpy(test.target.astype(np.int64)))
    settings = TrainSettings(metric="accuracy", max_epochs=chosen.epochs, patience=chosen.epochs)
    torch.set_num_threads(1)
    print(f"| {len(data.train):,} images, {chosen.epochs} epochs | test accuracy | CPU s an epoch |\n|---|---|---|")
    for name, augmentation in CHOICES.items():
        scores, seconds = [], []
        for seed in chosen.seeds:
            trial = default_trial("cnn", data.spec, seed).model_copy(update={"augmentation": augmentation})
            learner = SoloLearner(trial, data.train, data.spec, settings, torch.device("cpu"))
            score, cost = _train(learner, chosen.epochs, sealed)
            scores.append(score)
            seconds.append(cost / chosen.epochs)
        spread = f"{statistics.median(scores):.4f} ({min(scores):.4f}, {max(scores):.4f})"
        print(f"| {name} | {spread} | {statistics.median(seconds):.2f} |", flush=True)


def _train(learner: SoloLearner, n_epochs: int, test: Part) -> tuple[float, float]:
    """Accuracy on the test after all epochs, and the seconds of CPU that they took."""
    started = time.process_time()
    for _ in range(n_epochs):
        learner.train_epoch()
    seconds = time.process_time() - started
    outputs_NC = learner.outputs(test)[0]
    return float((outputs_NC.argmax(1) == test.target).double().mean()), seconds
