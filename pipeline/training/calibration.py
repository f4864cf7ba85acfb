"""How many trials to train together: measured, because it depends on family, size, batch and device.

Small dense nets gain tenfold; a cohort whose activations leave the cache, or a family without stacked kernels worth
having, gains nothing. So each class is timed for a fraction of a second with growing cohorts, and a cohort of one,
which is the ordinary module, stays the answer wherever stacking does not pay.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass

import torch

from pipeline.data.spec import DataSpec
from pipeline.data.tensors import Development
from pipeline.models import FAMILIES
from pipeline.models.outline import outline
from pipeline.training.config import TrainSettings, TrialConfig
from pipeline.training.learner import Learner, SoloLearner
from pipeline.training.stacked import StackedLearner, shape_class

SIZES = (4, 8, 16, 32, 64)
BATCHES = 4
"""Steps that are timed for each size, after as many that warm up."""
SURE_S = 0.05
"""What takes so long is timed once, what is shorter twice; the better time counts."""
WORTH = 1.3
"""Training together must be this much faster to be preferred: below it, trials one by one spread better over the slots
when the budget ends."""
NEARLY = 0.9
"""Of the best gain, with which a smaller cohort is preferred: the sampler sees its results sooner, and timings are that
uncertain."""
LONGEST_S = 0.3
"""Larger cohorts are not timed once the steps of one take this long: what is slow to time gains little. Its first steps
do not count: a GPU loads its libraries in them, and a busy machine may stop anywhere, but a calibration is kept."""
MEMORY_SHARE = 0.5
"""Of the free memory, what a cohort's parameters, gradients, optimiser state and activations may take."""


@dataclass(frozen=True, slots=True)
class CostClass:
    """Trials that are timed once for all."""

    family: str
    device: str
    """Kind of device: ``cpu``, ``cuda``."""
    work: int
    """Power of two of parameters times rows in a batch."""
    limit: int
    """The size up to which cohorts are timed."""


def size_limit(most: int) -> int:
    """The size that is timed last where cohorts may have `most` trials."""
    return next((size for size in SIZES if size >= most), SIZES[-1])


def cost_class(config: TrialConfig, spec: DataSpec, device: str, limit: int) -> CostClass:
    """The class in which a trial is timed."""
    work = round(math.log2(max(1, _n_params(config, spec)) * config.optimisation.batch_size))
    return CostClass(config.family, device.split(":")[0], work, limit)


def measure_gains(
    config: TrialConfig, data: Development, settings: TrainSettings, device: torch.device, limit: int
) -> dict[int, float]:
    """Trial-epochs a second relative to one trial alone, by cohort size.

    Sizes grow until one is slower than the one before, or would not fit into memory.
    """
    gains = {1: 1.0}
    if shape_class(config, data.spec) is None or limit < SIZES[0]:
        return gains
    rows = min(len(data.train), BATCHES * config.optimisation.batch_size)
    part = data.train.take(slice(0, rows))
    last = alone = _seconds(SoloLearner(config, part, data.spec, settings, device), device)
    for size in SIZES:
        if last > LONGEST_S or size > limit or not _fits(config, data.spec, size, device):
            break
        configs = [config.model_copy(update={"seed": config.seed + i}) for i in range(size)]
        last = _seconds(StackedLearner(configs, part, data.spec, settings, device), device)
        gains[size] = alone * size / last
        if gains[size] < max(gains.values()):
            break
    return gains


def best_size(gains: Mapping[int, float]) -> int:
    """The size with the largest gain, 1 where no gain is worth it."""
    best = max(gains, key=lambda size: gains[size])
    return best if gains[best] >= WORTH else 1


def choose(gains: Mapping[int, float]) -> int:
    """The smallest size that gains nearly as much as the best, 1 where no gain is worth it."""
    enough = max(WORTH, NEARLY * max(gains.values()))
    return min((size for size, gain in gains.items() if gain >= enough), default=1)


def time_together(gains: Mapping[int, float], size: int) -> float:
    """How long so many trials take as one cohort, in units of one alone. Between timed sizes the gain is taken as
    linear, beyond the largest as constant."""
    below = max(timed for timed in gains if timed <= size)
    above = min((timed for timed in gains if timed >= size), default=below)
    share = (size - below) / (above - below) if above > below else 0.0
    return size / (gains[below] + share * (gains[above] - gains[below]))


def _seconds(learner: Learner, device: torch.device) -> float:
    """A short epoch, after one that warms up. On a CPU it is CPU time: what else the machine does at
    that moment must not decide for hours (measured by wall, cohorts seemed three times slower than alone)."""
    clock = time.process_time if device.type == "cpu" else time.perf_counter
    learner.train_epoch()
    times: list[float] = []
    while not times or (len(times) < 2 and times[0] < SURE_S):
        _wait(device)
        started = clock()
        learner.train_epoch()
        _wait(device)
        times.append(clock() - started)
    return min(times)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _fits(config: TrialConfig, spec: DataSpec, size: int, device: torch.device) -> bool:
    """Sixteen bytes a parameter (weights, gradient, two moments) and twice the inputs of a batch, a member."""
    learner_bytes = 16 * _n_params(config, spec)
    values = spec.n_numeric + len(spec.cardinalities) + spec.channels * spec.height * spec.width
    values += spec.n_steps * spec.n_features
    needed = size * (learner_bytes + 8 * values * config.optimisation.batch_size)
    return needed <= MEMORY_SHARE * _free_bytes(device)


def _n_params(config: TrialConfig, spec: DataSpec) -> int:
    module = outline(FAMILIES[config.family], config.model, spec)
    return sum(parameter.numel() for parameter in module.parameters())


def _free_bytes(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    with open("/proc/meminfo") as file:
        available = next(line for line in file if line.startswith("MemAvailable"))
    return int(available.split()[1]) * 1024
