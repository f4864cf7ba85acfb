"""What numbers too small for a full mantissa cost a training on a CPU, and whether flushing them to zero changes it.

    python -m benchmarks denormals [--epochs 100] [--cohort 8]

Two trainings of one seed on scikit-learn's digits, epoch by epoch in turn: one with the processor as it is, one with it
set as workers set it (`pipeline.training.process.set_up_training`). CPU milliseconds an epoch and member.
"""

from __future__ import annotations

import argparse
import itertools
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
from pipeline.data.tensors import Development
from pipeline.models.mlp import MLPConfig
from pipeline.training.config import OptimisationConfig, TrainSettings, TrialConfig
from pipeline.training.folded import build_learner
from pipeline.training.learner import Learner
from pipeline.training.process import set_up_training

MODEL: Final = MLPConfig(n_layers=3, width=232, dropout=0.2)
OPTIMISATION: Final = OptimisationConfig(lr=4e-3, weight_decay=3e-5, batch_size=64)
"""A net as the race's searches end with."""
PARTS: Final = 10
"""Rows of the table."""


def main(arguments: Sequence[str]) -> None:
    """Train and print a Markdown table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks denormals", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--epochs", type=int, default=100)
    parser.add_argument("--cohort", type=int, default=8)
    chosen = parser.parse_args(arguments)
    set_up_training(1)
    data = _digits()
    sizes = (1, chosen.cohort)
    trainings = {size: [_Training(size, data, chosen.epochs) for _ in range(2)] for size in sizes}
    times: dict[tuple[int, int], list[float]] = {(size, flushed): [] for size in sizes for flushed in (0, 1)}
    for _, size, flushed in itertools.product(range(chosen.epochs), sizes, (0, 1)):
        torch.set_flush_denormal(bool(flushed))
        times[size, flushed].append(trainings[size][flushed].epoch_ms() / size)
    torch.set_flush_denormal(False)

    print(f"| epochs | alone | alone, flushed | {chosen.cohort} together | {chosen.cohort} together, flushed |")
    print("|---|---|---|---|---|")
    step = max(1, chosen.epochs // PARTS)
    for first in range(0, chosen.epochs, step):
        cells = [f"{statistics.median(ms[first : first + step]):.1f}" for ms in times.values()]
        print(f"| {first + 1} to {min(first + step, chosen.epochs)} | {' | '.join(cells)} |")
    sums = [f"{sum(ms):.0f}" for ms in times.values()]
    print(f"| all | {' | '.join(sums)} |\n")
    for size, (kept, cut) in trainings.items():
        print(f"{size}: " + ", ".join(_compared(kept.learner, cut.learner, data)))


def _digits() -> Development:
    config = DataConfig(source="sklearn:digits")
    rows = read_source(config.source, Path(), config.target)
    n_development = round(0.8 * len(rows))
    test = rows.take(np.arange(n_development, len(rows)))
    return assemble(config, rows.take(np.arange(n_development)), test).development


class _Training:
    """One of several that take turns in a process, so that each keeps torch's random state for itself."""

    def __init__(self, size: int, data: Development, epochs: int) -> None:
        configs = [TrialConfig(family="mlp", model=MODEL, optimisation=OPTIMISATION, seed=seed) for seed in range(size)]
        settings = TrainSettings(metric="accuracy", max_epochs=epochs, patience=epochs)
        self.learner = build_learner(configs, data, settings, torch.device("cpu"), together=size > 1)
        self._random = torch.get_rng_state()

    def epoch_ms(self) -> float:
        torch.set_rng_state(self._random)
        started = time.process_time()
        self.learner.train_epoch()
        taken = time.process_time() - started
        self._random = torch.get_rng_state()
        return 1e3 * taken


def _compared(kept: Learner, flushed: Learner, data: Development) -> list[str]:
    """What the two trainings ended with."""
    pairs = [(kept.weights(k), flushed.weights(k)) for k in range(kept.size)]
    largest = max(float((a[name] - b[name]).abs().max()) for a, b in pairs for name in a)
    small = [_share_too_small(learner) for learner in (kept, flushed)]
    scores = [float(learner.validate(data).metrics["accuracy"].mean()) for learner in (kept, flushed)]
    return [
        f"largest difference of a weight {largest:.1e}",
        f"accuracy {scores[0]:.4f} and {scores[1]:.4f}",
        f"too small, of weights and moments, {small[0]:.1%} and {small[1]:.1%}",
    ]


def _share_too_small(learner: Learner) -> float:
    """Of what is kept from step to step."""
    states = [learner.state(k) for k in range(learner.size)]
    values = torch.cat([value.flatten() for state in states for value in state.values() if value.is_floating_point()])
    return float(((values != 0) & (values.abs() < torch.finfo(values.dtype).tiny)).float().mean())
