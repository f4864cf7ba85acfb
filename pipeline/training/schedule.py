"""Learning-rate schedules as a factor on the peak rate, a pure function of the step: nothing to store for a resume."""

from __future__ import annotations

import math

from pipeline.training.config import OptimisationConfig

STEP_DECAY, STEP_AT = 0.1, (0.5, 0.75)
"""The rate falls tenfold at half and three quarters of the training (He et al., arXiv 1512.03385, section 4.2)."""
ONE_CYCLE_WARMUP, ONE_CYCLE_START, ONE_CYCLE_END = 0.3, 1 / 25, 1e-4
"""Shape of torch's OneCycleLR defaults, after Smith and Topin (arXiv 1708.07120)."""


def rate_factor(config: OptimisationConfig, step: int, n_steps: int) -> float:
    """What the peak learning rate is multiplied with in step ``0 .. n_steps - 1``: in (0, 1]."""
    progress = (step + 0.5) / n_steps
    if config.schedule == "one_cycle":
        return _one_cycle(progress)
    if progress < config.warmup:
        return progress / config.warmup
    after = (progress - config.warmup) / (1 - config.warmup)
    match config.schedule:
        case "constant":
            return 1.0
        case "cosine":
            return 0.5 * (1 + math.cos(math.pi * after))
        case "step":
            return float(STEP_DECAY ** sum(after >= at for at in STEP_AT))


def _one_cycle(progress: float) -> float:
    if progress < ONE_CYCLE_WARMUP:
        return _anneal(ONE_CYCLE_START, 1.0, progress / ONE_CYCLE_WARMUP)
    return _anneal(1.0, ONE_CYCLE_START * ONE_CYCLE_END, (progress - ONE_CYCLE_WARMUP) / (1 - ONE_CYCLE_WARMUP))


def _anneal(start: float, end: float, progress: float) -> float:
    return end + (start - end) / 2 * (1 + math.cos(math.pi * progress))
