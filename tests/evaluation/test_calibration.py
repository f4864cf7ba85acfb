"""Calibration: what the probabilities say is what happens; what a model costs; where it is wrong."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from pipeline.data.dataset import Features
from pipeline.data.spec import DataSpec
from pipeline.evaluation.calibration import fit_temperature, reliability
from pipeline.evaluation.cost import measure_cost
from pipeline.evaluation.mistakes import confusion, residuals

CLASSES = DataSpec(
    kind="image", task="multiclass", channels=1, height=2, width=2, labels=("a", "b", "c"), n_train=1, n_validation=1
)
VALUES = CLASSES.model_copy(update={"task": "regression", "labels": (), "target_mean": 100.0, "target_scale": 10.0})


def honest(n: int = 20_000) -> tuple[Tensor, Tensor]:
    """Logits of a model that is right as often as it says, and the classes that happened."""
    generator = torch.Generator().manual_seed(0)
    logits = 2 * torch.randn(n, 3, generator=generator, dtype=torch.float64)
    return logits, torch.multinomial(logits.softmax(1), 1, generator=generator)[:, 0]


@pytest.mark.parametrize("overconfidence", [0.5, 1.0, 3.0])
def test_the_fitted_temperature_takes_overconfidence_back(overconfidence: float) -> None:
    logits, target = honest()
    # The standard error of the fit is about 0.01 on so many rows.
    assert fit_temperature(logits * overconfidence, target) == pytest.approx(overconfidence, rel=0.05)


def test_calibrating_makes_the_probabilities_honest_and_changes_no_prediction() -> None:
    logits, target = honest()
    sure = logits * 3
    calibrated = sure / fit_temperature(sure, target)
    assert reliability(sure, target).ece > 0.1
    assert reliability(calibrated, target).ece < 0.02
    assert torch.equal(sure.argmax(1), calibrated.argmax(1))


def test_a_model_that_is_always_right_stays_finite() -> None:
    target = torch.tensor([0, 1, 2] * 5)
    assert 0.04 < fit_temperature(torch.nn.functional.one_hot(target, 3).double(), target) < 1


def test_the_expected_calibration_error_is_the_gap_weighted_by_rows() -> None:
    # Ten rows at 0.9, of which six are right, and ten at nearly 1, of which all are.
    logits = torch.tensor([[0.9, 0.1, 1e-9]] * 10 + [[1.0, 1e-9, 1e-9]] * 10).log()
    target = torch.tensor([0] * 6 + [1] * 4 + [0] * 10)
    measured = reliability(logits, target)
    assert measured.ece == pytest.approx(0.15)
    assert [(b.n_rows, round(b.confidence, 3), b.accuracy) for b in measured.bins] == [(10, 0.9, 0.6), (10, 1.0, 1.0)]


def test_the_cost_of_a_model_is_timed_a_row_at_a_time_and_in_a_batch() -> None:
    seen: list[int] = []

    def predict(rows: Features) -> None:
        seen.append(len(rows))

    cost = measure_cost(predict, np.zeros((7, 1, 2, 2)), 2_500_000)
    assert set(seen) == {1, 1024}
    assert 0 <= cost.latency_ms_p50 <= cost.latency_ms_p95
    assert cost.rows_per_s > 0
    assert cost.size_mb == 2.5


def test_the_confusion_matrix_counts_rows_by_true_and_predicted_class() -> None:
    outputs = torch.nn.functional.one_hot(torch.tensor([0, 1, 1, 2]), 3).float()
    counted = confusion(outputs, torch.tensor([0, 0, 1, 2]), CLASSES)
    assert counted is not None
    assert counted.rows == ((1, 1, 0), (0, 1, 0), (0, 0, 1))


def test_residuals_are_in_the_targets_units_and_few_enough_to_draw() -> None:
    target = torch.linspace(-1, 1, 1000)
    seen = residuals(target[:, None] + 0.1, target, VALUES)
    assert seen.bias == pytest.approx(1.0, rel=1e-5)
    assert seen.error_p50 == pytest.approx(1.0, rel=1e-5)
    assert len(seen.true) == len(seen.predicted) == 400
    assert (seen.true[0], seen.true[-1]) == (90.0, 110.0)
