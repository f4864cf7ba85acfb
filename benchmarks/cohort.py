"""Trial-epochs per CPU second of one core: cohorts against a plain PyTorch loop, one trial at a time.

Every configuration is measured once a round, in turn, so that what else the machine does hits all alike; speed-ups are
taken within a round. Medians with smallest and largest. CPU time of one thread, but for the row of processes, one a
core, which is wall time.
"""

from __future__ import annotations

import argparse
import json
import math
import multiprocessing
import os
import platform
import statistics
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Final

import torch
from threadpoolctl import threadpool_limits
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.plain import WORKLOADS, PlainLoop, Workload
from pipeline.models import FAMILIES
from pipeline.training.config import OptimisationConfig, TrainSettings, TrialConfig
from pipeline.training.learner import Learner, SoloLearner
from pipeline.training.process import set_up_training
from pipeline.training.stacked import StackedLearner

COHORTS: Final = (4, 8, 16, 32, 64)
BATCH_SIZES: Final = (64, 256)
CPU: Final = torch.device("cpu")
PLAIN, FUSED, PROCESSES, SOLO = "plain", "plain, fused AdamW", "plain, a process a core", "K=1"

Samples = dict[str, list[float]]
"""Configuration -> trial-epochs per second of one core, one a round."""


def learner(workload: Workload, batch_size: int, size: int) -> Learner:
    """A cohort whose members differ in rate, decay and seed."""
    data, settings = workload.data(), TrainSettings(metric="log_loss")
    configs = [
        TrialConfig(
            family=workload.family,
            model=workload.config,
            optimisation=OptimisationConfig(lr=1e-3 * 1.02**k, weight_decay=1e-2 / (1 + k), batch_size=batch_size),
            seed=k,
        )
        for k in range(size)
    ]
    if size == 1:
        return SoloLearner(configs[0], data, workload.spec(), settings, CPU)
    return StackedLearner(configs, data, workload.spec(), settings, CPU)


def measure(train_epoch: Callable[[], object], size: int, seconds: float) -> float:
    """Trial-epochs per CPU second, over so many epochs as take at least `seconds`."""
    start, n_epochs = time.process_time(), 0
    while True:
        train_epoch()
        n_epochs += 1
        if (taken := time.process_time() - start) >= seconds:
            return size * n_epochs / taken


_barrier: Barrier
"""In a worker process: where all wait, so that they are measured at the same time."""


def _start_worker(barrier: Barrier) -> None:
    global _barrier
    _barrier = barrier
    torch.set_num_threads(1)


def _train_in_worker(name: str, batch_size: int, n_epochs: int) -> tuple[float, float]:
    # By name: the module of a workload is a lambda, which does not pickle.
    loop = PlainLoop(next(w for w in WORKLOADS if w.name == name), batch_size)
    loop.train_epoch()
    _barrier.wait()
    start = time.monotonic()
    for _ in range(n_epochs):
        loop.train_epoch()
    return start, time.monotonic()


def measure_processes(pool: ProcessPoolExecutor, cores: int, name: str, batch_size: int, n_epochs: int) -> float:
    """Trial-epochs per wall second and core, one plain loop a core."""
    futures = [pool.submit(_train_in_worker, name, batch_size, n_epochs) for _ in range(cores)]
    starts, ends = zip(*(future.result() for future in futures), strict=True)
    return n_epochs / float(max(ends) - min(starts))


def measure_sgemm(seconds: float) -> float:
    """GFLOP per CPU second of a square product that fits the cache: what the core can do at best."""
    a, b, out = torch.randn(512, 512), torch.randn(512, 512), torch.empty(512, 512)
    return measure(lambda: torch.mm(a, b, out=out), 1, seconds) * 2 * 512**3 / 1e9


def flops(workload: Workload, batch_size: int) -> float:
    """Arithmetic of one trial-epoch of the plain loop, both passes; 0 for an LSTM, which torch cannot count."""
    if workload.family == "lstm":
        return 0.0
    loop = PlainLoop(workload, batch_size)
    with FlopCounterMode(display=False) as counter:
        loop.train_epoch()
    return float(counter.get_total_flops())


def run(
    workload: Workload, batch_size: int, pool: ProcessPoolExecutor, cores: int, rounds: int, seconds: float
) -> Samples:
    """All configurations of one workload, interleaved."""
    stack = FAMILIES[workload.family].stack
    stacks = stack is not None and "cpu" in stack.devices
    sizes = [1, *(k for k in COHORTS if stacks and k <= workload.largest)]
    plain, fused = PlainLoop(workload, batch_size), PlainLoop(workload, batch_size, fused=True)
    learners = {f"K={k}": learner(workload, batch_size, k) for k in sizes}
    n_ours = learners[SOLO].n_params(0)
    n_theirs = sum(p.numel() for p in plain.module.parameters())
    # torch's LSTM has a second bias, which is redundant; ours may do without.
    assert n_ours == n_theirs or workload.family == "lstm", f"{workload.name}: {n_ours} and {n_theirs} parameters"
    plain.train_epoch()
    n_epochs = math.ceil(measure(plain.train_epoch, 1, seconds) * seconds)
    samples: Samples = {}
    for _ in range(rounds):
        for name, loop in ((PLAIN, plain), (FUSED, fused)):
            samples.setdefault(name, []).append(measure(loop.train_epoch, 1, seconds))
        for name, cohort in learners.items():
            samples.setdefault(name, []).append(measure(cohort.train_epoch, cohort.size, seconds))
        processes = measure_processes(pool, cores, workload.name, batch_size, n_epochs)
        samples.setdefault(PROCESSES, []).append(processes)
        samples.setdefault("sgemm", []).append(measure_sgemm(seconds / 4))
    return samples


def spread(values: Sequence[float], digits: int = 2) -> str:
    """``median (smallest-largest)``."""
    return f"{statistics.median(values):.{digits}f} ({min(values):.{digits}f}-{max(values):.{digits}f})"


def speed_up(samples: Samples, name: str) -> list[float]:
    """Over the plain loop, within each round."""
    return [a / b for a, b in zip(samples[name], samples[PLAIN], strict=True)]


def row(workload: Workload, batch_size: int, samples: Samples) -> str:
    cells = [workload.name, str(batch_size), spread(samples[PLAIN])]
    cells += [f"x{spread(speed_up(samples, name))}" for name in (PROCESSES, FUSED, SOLO)]
    medians = {k: statistics.median(speed_up(samples, f"K={k}")) for k in COHORTS if f"K={k}" in samples}
    cells += [f"x{spread(speed_up(samples, f'K={k}'))}" if k in medians else "" for k in COHORTS]
    best = f"K={max(medians, key=lambda k: medians[k])}" if medians else SOLO
    work = flops(workload, batch_size) / 1e9 / statistics.median(samples["sgemm"])
    shares = [f"{100 * work * statistics.median(samples[name]):.0f} %" for name in (PLAIN, best)]
    cells.append(" -> ".join(shares) if work else "")
    bar = workload.bar if batch_size == 64 else None
    reached = statistics.median(speed_up(samples, best))
    cells.append("" if bar is None else f"x{bar:g}: {'met' if reached >= bar else 'missed'}")
    return f"| {' | '.join(cells)} |"


HEADER: Final = (
    "workload", "batch", "plain loop, trial-epochs/CPU s", "plain, a process a core (wall)", "plain, fused AdamW",
    "K=1", *(f"K={k}" for k in COHORTS), "share of sgemm: plain -> best", "bar",
)  # fmt: skip


def hardware() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    name = names[0] if names else platform.processor() or platform.machine()
    return f"{name}, {os.cpu_count()} cores, torch {torch.__version__}, Python {platform.python_version()}"


def main(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks cohort", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="shorter measurements, batch 64 only")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", default="", help="workloads whose name contains this")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every sample as JSON")
    options = parser.parse_args(arguments)
    seconds = 0.15 if options.quick else 0.6
    cores = os.cpu_count() or 1
    set_up_training(1)  # as the workers do; the plain loop in this process has the good of it too
    threadpool_limits(1)
    load = os.getloadavg()
    print(f"{hardware()}; load {load[0]:.1f}; n = {options.rounds} rounds of >= {seconds} s, median (min-max)\n")
    print(f"| {' | '.join(HEADER)} |\n|{'---|' * len(HEADER)}", flush=True)
    found: list[dict[str, object]] = []
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(cores, context, _start_worker, (context.Barrier(cores),)) as pool:
        for workload in WORKLOADS:
            for batch_size in BATCH_SIZES[:1] if options.quick else BATCH_SIZES:
                if options.only.lower() in workload.name.lower():
                    samples = run(workload, batch_size, pool, cores, options.rounds, seconds)
                    print(row(workload, batch_size, samples), flush=True)
                    found.append({"workload": workload.name, "batch": batch_size, "samples": samples})
    if options.json:
        options.json.write_text(json.dumps({"hardware": hardware(), "load": load, "results": found}, indent=2))
