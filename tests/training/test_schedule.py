"""Schedules start where they should, stay in (0, 1], and equal torch's where torch has them."""

from __future__ import annotations

import pytest
import torch

from pipeline.training.config import OptimisationConfig
from pipeline.training.schedule import rate_factor

STEPS = 1000


def curve(**choices: object) -> list[float]:
    config = OptimisationConfig.model_validate(choices)
    return [rate_factor(config, step, STEPS) for step in range(STEPS)]


@pytest.mark.parametrize("schedule", ["constant", "cosine", "one_cycle", "step"])
@pytest.mark.parametrize("warmup", [0.0, 0.1])
def test_the_factor_is_positive_and_peaks_at_one(schedule: str, warmup: float) -> None:
    seen = curve(schedule=schedule, warmup=warmup)
    assert all(0 < factor <= 1 for factor in seen)
    assert max(seen) == pytest.approx(1, abs=1e-2)


def test_warmup_rises_linearly() -> None:
    seen = curve(schedule="constant", warmup=0.1)
    assert seen[49] == pytest.approx(0.495, abs=1e-9)
    assert seen[100:] == [1.0] * 900


def test_one_cycle_is_torchs() -> None:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1.0, total_steps=STEPS, cycle_momentum=False)
    expected = []
    for _ in range(STEPS):
        expected.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    # torch evaluates at the start of a step, we in its middle.
    assert curve(schedule="one_cycle") == pytest.approx(expected, abs=5e-3)
