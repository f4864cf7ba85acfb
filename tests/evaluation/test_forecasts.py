"""Forecasts beside the naive one, and intervals of windows that overlap."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor

from pipeline.data.dataset import Dataset
from pipeline.data.spec import DataSpec
from pipeline.evaluation.forecasts import block_length, read_forecasts
from pipeline.evaluation.intervals import Resampling, score_intervals
from pipeline.objective import METRICS
from pipeline.training.metrics import validation_metrics

HORIZON, SEASON, CONTEXT = 6, 4, 8


def spec_of(horizon: int = HORIZON, **changes: object) -> DataSpec:
    return DataSpec(
        kind="forecast", task="forecast", n_steps=CONTEXT, n_features=1, horizon=horizon, season=SEASON,
        naive_error=2.0, target_mean=0.5, target_scale=4.0, n_train=1, n_validation=1,
    ).model_copy(update=changes)  # fmt: skip


def windows(n: int, names: tuple[str, ...] = ("",), horizon: int = HORIZON) -> tuple[Dataset, np.ndarray]:
    """Windows of series that repeat themselves but for noise, in the order of time; and what truly came."""
    rng = np.random.default_rng(0)
    values = {
        name: np.arange(n + CONTEXT + horizon) % SEASON + rng.normal(size=n + CONTEXT + horizon) for name in names
    }
    rows = [(start, name) for start in range(n) for name in names]
    inputs = [values[name][start : start + CONTEXT, None] for start, name in rows]
    ahead = np.stack([values[name][start + CONTEXT : start + CONTEXT + horizon] for start, name in rows])
    naive = np.stack([window[-SEASON:, 0][np.arange(horizon) % SEASON] for window in inputs])
    steps = [start + CONTEXT - 1 for start, _ in rows]
    origins = pd.DataFrame({"series": [name for _, name in rows], "step": steps, "time": [f"t{s}" for s in steps]})
    return Dataset("forecast", inputs, ahead - naive, "made here", origins=origins), ahead


def encoded(values: np.ndarray, spec: DataSpec) -> Tensor:
    return torch.from_numpy((values - spec.target_mean) / spec.target_scale).float()


def test_metrics_of_forecasts_are_over_all_steps_in_the_targets_units() -> None:
    spec, rng = spec_of(), np.random.default_rng(1)
    truth, forecast = rng.normal(size=(20, HORIZON)), rng.normal(size=(20, HORIZON))
    found = validation_metrics(encoded(forecast, spec)[None], encoded(truth, spec), spec)
    error = np.abs(truth - forecast)
    assert float(found["mae"]) == pytest.approx(error.mean(), rel=1e-5)
    assert float(found["rmse"]) == pytest.approx(np.sqrt((error**2).mean()), rel=1e-5)
    assert float(found["mase"]) == pytest.approx(error.mean() / spec.naive_error, rel=1e-5)


def test_the_naive_forecast_is_scored_in_the_targets_units_and_skill_is_against_it() -> None:
    spec, (data, ahead) = spec_of(), windows(60, ("a", "b"))
    assert data.target is not None
    assert isinstance(data.features, list)
    half = encoded(data.target / 2, spec)  # half of the naive forecast's error is taken away
    reading = read_forecasts(data, half, encoded(data.target, spec), spec, METRICS["mae"], Resampling(0.95, 200, 0))
    assert reading.naive["mae"].value == pytest.approx(np.abs(data.target).mean(), rel=1e-5)
    assert reading.skill == pytest.approx(0.5, rel=1e-4)
    assert reading.versus_naive.probability_better == 1.0
    assert reading.line.startswith("beats the naive forecast")
    assert [step.step for step in reading.by_step] == list(range(1, HORIZON + 1))
    # What is drawn is the truth itself, window after window.
    shown = reading.shown[0]
    assert shown.series == "a"
    last = [row for row, name in enumerate(data.origins["series"]) if name == "a"][-1]  # type: ignore[index]
    assert shown.truth[-HORIZON:] == pytest.approx(ahead[last], rel=1e-5)
    assert shown.past[-1] == data.features[last - 2 * 2 * HORIZON][-1, 0]


def test_the_winner_is_held_against_the_best_of_the_naive_forecasts() -> None:
    spec, (data, ahead) = spec_of(season=1, seasons=(SEASON, 2)), windows(60)
    assert isinstance(data.features, list)
    last = np.stack([np.repeat(window[-1, 0], HORIZON) for window in data.features])
    target = encoded(ahead - last, spec)  # as a model that starts from the last value has it
    reading = read_forecasts(data, target, target, spec, METRICS["mae"], Resampling(0.95, 200, 0))
    assert data.target is not None
    assert reading.season == SEASON
    assert sorted(reading.tried) == [1, 2, SEASON]
    assert reading.naive["mae"].value == pytest.approx(np.abs(data.target).mean(), rel=1e-5)
    assert reading.tried[1] == pytest.approx(np.abs(ahead - last).mean(), rel=1e-5)
    assert reading.naive["mae"].value < min(reading.tried[1], reading.tried[2])


@pytest.mark.parametrize(("gain", "said"), [(0.0, "does not beat"), (1e-9, "is not surely better than")])
def test_a_forecast_that_is_no_better_is_said_to_be_none(gain: float, said: str) -> None:
    spec, (data, _) = spec_of(target_mean=0.0), windows(60)
    assert data.target is not None
    rng = np.random.default_rng(2)
    outputs = encoded(rng.normal(size=data.target.shape) * gain, spec)
    reading = read_forecasts(data, outputs, encoded(data.target, spec), spec, METRICS["mae"], Resampling(0.95, 200, 0))
    better = reading.versus_naive.difference.value > 0
    assert reading.line.startswith(said if better or not gain else "does not beat")


def test_blocks_hold_all_series_of_two_horizons() -> None:
    assert block_length(windows(200)[0], spec_of()) == 2 * HORIZON
    assert block_length(windows(200, ("a", "b", "c"))[0], spec_of()) == 3 * 2 * HORIZON
    assert block_length(windows(12)[0], spec_of()) == 4, "a short test has three blocks at least"
    rows = Dataset("tabular", pd.DataFrame({"x": range(9)}), np.arange(9), "rows")
    assert block_length(rows, spec_of()) == 1


def test_intervals_of_overlapping_windows_cover_when_blocks_are_drawn_and_not_when_rows_are() -> None:
    """120 tests of 150 windows with a horizon of 6 over white noise; the error of a window is the mean of 6 steps that
    it shares with its neighbours. By simulation intervals at 90 % cover 86 % in blocks, and 49 % row by row."""
    n, true = 150, float(np.sqrt(2 / np.pi))
    spec = spec_of(target_mean=0.0, target_scale=1.0)
    covered = {1: 0, 2 * HORIZON: 0}
    for seed in range(120):
        noise = torch.randn(n + HORIZON - 1, generator=torch.Generator().manual_seed(seed))
        target = noise.unfold(0, HORIZON, 1)
        for block in covered:
            mae = score_intervals(torch.zeros_like(target), target, spec, Resampling(0.9, 150, seed, block))["mae"]
            covered[block] += mae.low <= true <= mae.high
    assert covered[2 * HORIZON] / 120 >= 0.76
    assert covered[1] / 120 <= 0.66
