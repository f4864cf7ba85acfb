"""Losses with class weights: rare classes count more, all rows count as much as before; validation does not change."""

from __future__ import annotations

from typing import Literal

import pytest
import torch

from pipeline.data.spec import DataSpec
from pipeline.training.config import OptimisationConfig
from pipeline.training.losses import MAX_WEIGHT, class_weights, plain_loss, training_loss

CPU = torch.device("cpu")


def spec(*counts: int) -> DataSpec:
    labels = tuple(range(len(counts)))
    task = "binary" if len(counts) == 2 else "multiclass"
    return DataSpec(
        kind="tabular", task=task, n_numeric=1, labels=labels, class_counts=counts, n_train=sum(counts), n_validation=9
    )


def test_full_weights_are_those_that_scikit_learn_calls_balanced() -> None:
    weights = class_weights(OptimisationConfig(class_weight_power=1.0), spec(80, 20))
    assert weights == pytest.approx((100 / 160, 100 / 40))


@pytest.mark.parametrize("power", [0.5, 1.0])
@pytest.mark.parametrize("counts", [(80, 20), (500, 30, 3), (10_000, 1)])
def test_the_mean_weight_of_a_row_is_one_and_rarer_is_heavier(counts: tuple[int, ...], power: float) -> None:
    weights = class_weights(OptimisationConfig(class_weight_power=power), spec(*counts))
    assert weights is not None
    assert sum(w * n for w, n in zip(weights, counts, strict=True)) == pytest.approx(sum(counts))
    assert list(weights) == sorted(weights)


def test_two_rows_do_not_decide_every_step_that_they_are_in() -> None:
    weights = class_weights(OptimisationConfig(class_weight_power=1.0), spec(100_000, 2))
    assert weights is not None
    assert weights[1] / weights[0] <= 2 * MAX_WEIGHT


def test_a_class_without_training_rows_weighs_nothing() -> None:
    weights = class_weights(OptimisationConfig(class_weight_power=1.0), spec(50, 50, 0))
    assert weights == pytest.approx((1.0, 1.0, 0.0))


@pytest.mark.parametrize("name", ["cross_entropy", "focal"])
def test_weights_change_training_and_not_validation(name: Literal["cross_entropy", "focal"]) -> None:
    torch.manual_seed(0)
    output, target = torch.randn(64, 2), torch.arange(64) % 2
    plain = OptimisationConfig(loss=name)
    weighted = plain.model_copy(update={"class_weight_power": 1.0, "label_smoothing": 0.1})
    imbalanced = spec(90, 10)
    rows = torch.stack([plain_loss(plain, imbalanced, CPU)(output[i : i + 1], target[i : i + 1]) for i in range(64)])
    weights = torch.tensor(class_weights(weighted, imbalanced))[target]
    unsmoothed = weighted.model_copy(update={"label_smoothing": 0.0})
    assert training_loss(unsmoothed, imbalanced, CPU)(output, target) == pytest.approx(float((rows * weights).mean()))
    assert plain_loss(weighted, imbalanced, CPU)(output, target) == pytest.approx(float(rows.mean()))
