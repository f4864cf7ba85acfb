"""Validation metrics equal scikit-learn's, for every member of a cohort."""

from __future__ import annotations

import math

import pytest
import sklearn.metrics as reference
import torch

from pipeline.data.spec import DataSpec
from pipeline.objective import metrics_for
from pipeline.training.metrics import metrics_of, row_statistics, validation_metrics

K, N = 3, 200


def spec(task: str) -> DataSpec:
    labels = {"binary": (0, 1), "multiclass": (0, 1, 2, 3), "regression": ()}[task]
    return DataSpec(kind="tabular", task=task, n_numeric=1, labels=labels, target_scale=2.5, n_train=1, n_validation=1)


@pytest.mark.parametrize("task", ["binary", "multiclass"])
def test_classification_metrics_equal_scikit_learns(task: str) -> None:
    torch.manual_seed(0)
    data = spec(task)
    outputs = torch.randn(K, N, data.n_outputs).round(decimals=1)  # rounded: ties in the ranking
    target = torch.randint(data.n_outputs, (N,))
    seen = validation_metrics(outputs, target, data)
    assert set(seen) == set(metrics_for(data.task))
    for k in range(K):
        probabilities = outputs[k].double().softmax(1).numpy()
        predicted = outputs[k].argmax(1).numpy()
        expected = {
            "accuracy": reference.accuracy_score(target, predicted),
            "balanced_accuracy": reference.balanced_accuracy_score(target, predicted),
            "f1_macro": reference.f1_score(target, predicted, average="macro"),
            "log_loss": reference.log_loss(target, probabilities),
        }
        if task == "binary":
            expected["roc_auc"] = reference.roc_auc_score(target, probabilities[:, 1])
        assert {name: float(values[k]) for name, values in seen.items()} == pytest.approx(expected, abs=1e-9)


def test_regression_metrics_are_in_the_targets_units() -> None:
    torch.manual_seed(0)
    data = spec("regression")
    outputs, target = torch.randn(K, N, 1), torch.randn(N)
    seen = validation_metrics(outputs, target, data)
    assert set(seen) == set(metrics_for("regression"))
    for k in range(K):
        scaled, predicted = 2.5 * target.double(), 2.5 * outputs[k, :, 0].double()
        assert float(seen["rmse"][k]) == pytest.approx(reference.root_mean_squared_error(scaled, predicted))
        assert float(seen["mae"][k]) == pytest.approx(reference.mean_absolute_error(scaled, predicted))
        assert float(seen["r2"][k]) == pytest.approx(reference.r2_score(scaled, predicted))


def test_every_member_may_have_rows_of_its_own() -> None:
    torch.manual_seed(0)
    data = spec("binary")
    outputs, target = torch.randn(K, N, 2), torch.randint(2, (K, N))
    together = validation_metrics(outputs, target, data)
    for k in range(K):
        alone = validation_metrics(outputs[k : k + 1], target[k], data)
        for name, values in alone.items():
            assert float(values[0]) == pytest.approx(float(together[name][k]), abs=1e-12)


@pytest.mark.parametrize("task", ["binary", "multiclass", "regression"])
def test_rows_that_are_drawn_again_need_not_be_looked_at_again(task: str) -> None:
    torch.manual_seed(0)
    data = spec(task)
    outputs = torch.randn(1, N, data.n_outputs).round(decimals=1)
    target = torch.randn(N) if task == "regression" else torch.randint(data.n_outputs, (N,))
    drawn = torch.randint(N, (N // 2,))
    of_all = {name: row[:, drawn] for name, row in row_statistics(outputs, target, data).items()}
    of_drawn = validation_metrics(outputs[:, drawn], target[drawn], data)
    assert {name: float(value) for name, value in metrics_of(of_all, data).items()} == pytest.approx(
        {name: float(value) for name, value in of_drawn.items()}, abs=1e-12
    )


def test_what_is_undefined_is_nan_and_nothing_else() -> None:
    data = spec("binary")
    seen = validation_metrics(torch.randn(1, 5, 2), torch.zeros(5, dtype=torch.int64), data)
    assert math.isnan(float(seen["roc_auc"][0]))
    assert math.isfinite(float(seen["accuracy"][0]))
