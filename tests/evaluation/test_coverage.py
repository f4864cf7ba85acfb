"""Conformal intervals and sets hold what was asked for, and what they come to is measured where nothing was chosen."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from pipeline.data.spec import DataSpec
from pipeline.errors import ConfigError
from pipeline.evaluation.coverage import check_conformal, measure_coverage
from pipeline.packaging.conformal import Conformal, fit_conformal, rows_needed

CLASSES = DataSpec(
    kind="image", task="multiclass", channels=1, height=2, width=2, labels=("a", "b", "c"), n_train=1, n_validation=40
)
VALUES = CLASSES.model_copy(update={"task": "regression", "labels": (), "target_mean": 100.0, "target_scale": 10.0})
N_FIT, N_FRESH, DRAWS = 99, 500, 400


def drawn(spec: DataSpec, n: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Outputs of an imperfect model, and what happened."""
    outputs = 2 * torch.randn(n, spec.n_outputs, generator=generator)
    if spec.task == "regression":
        return outputs, outputs[:, 0] + 0.5 + torch.randn(n, generator=generator)  # biased: that costs width only
    # It is surer than it should be: that costs size only.
    return 2 * outputs, torch.multinomial(outputs.softmax(1), 1, generator=generator)[:, 0]


@pytest.mark.parametrize("spec", [CLASSES, VALUES], ids=["sets", "intervals"])
@pytest.mark.parametrize("level", [0.8, 0.9])
def test_as_many_fresh_rows_are_held_as_was_asked_for(spec: DataSpec, level: float) -> None:
    """Over draws of 99 calibration rows the share is Beta with a mean of `level` and a standard deviation of 0.04 at
    0.8; of the mean over 400 draws it is 0.002. A right fit is outside of 0.01 once in a million."""
    generator = torch.Generator().manual_seed(0)
    held = []
    for _ in range(DRAWS):
        fitted = fit_conformal(*drawn(spec, N_FIT, generator), spec, level)
        held.append(measure_coverage(fitted, *drawn(spec, N_FRESH, generator), spec, 0.95).held.value)
    mean = sum(held) / DRAWS
    assert mean > level - 0.01
    # The most probable label is always held, which adds to what was asked for.
    assert mean < level + (0.01 if spec is VALUES else 0.03)


def test_rows_that_were_fitted_on_are_held_by_rank() -> None:
    target = torch.tensor([1.0, -2.0, 3.0, -4.0, 5.0, -6.0, 7.0, -8.0, 9.0])
    fitted = fit_conformal(torch.zeros(9, 1), target, VALUES, 0.9)
    assert (fitted.threshold, fitted.n_rows) == (9.0, 9), "9 rows of ten: the one to come is the tenth"
    assert fit_conformal(torch.zeros(9, 1), target, VALUES, 0.5).threshold == 5.0
    low, high = fitted.interval(torch.tensor([[0.0], [1.0]]), VALUES)
    assert (low.tolist(), high.tolist()) == ([10.0, 20.0], [190.0, 200.0])


@pytest.mark.parametrize(("level", "rows"), [(0.5, 1), (0.8, 4), (0.9, 9), (0.95, 19), (0.99, 99), (0.999, 999)])
def test_so_many_rows_are_needed(level: float, rows: int) -> None:
    assert rows_needed(level) == rows


def test_a_set_has_every_label_that_is_probable_enough_and_is_never_empty() -> None:
    logits = torch.tensor([[0.5, 0.3, 0.2], [0.98, 0.01, 0.01], [0.4, 0.3, 0.3]]).log()
    assert Conformal(level=0.9, threshold=0.75, n_rows=9).sets(logits).tolist() == [
        [True, True, False],
        [True, False, False],
        [True, True, True],
    ]
    assert Conformal(level=0.9, threshold=0.001, n_rows=9).sets(logits).sum(1).tolist() == [1, 1, 1]


def test_what_is_held_and_how_large_it_is_come_with_intervals() -> None:
    outputs = torch.tensor([[0.6, 0.4, 1e-9]] * 60 + [[1.0, 1e-9, 1e-9]] * 40).log()
    target = torch.tensor([1] * 60 + [0] * 30 + [2] * 10)
    measured = measure_coverage(Conformal(level=0.9, threshold=0.7, n_rows=9), outputs, target, CLASSES, 0.95)
    assert (measured.held.value, measured.size.value, measured.unit) == (
        pytest.approx(0.9),
        pytest.approx(1.6),
        "labels",
    )
    assert measured.held.low < 0.9 < measured.held.high
    assert measured.size.high - 1.6 == pytest.approx(1.96 * (0.24 / 99) ** 0.5, rel=0.01)
    assert measured.story.startswith("sets were to hold 0.9 of the rows and hold 0.9000 [0.8")
    fitted, target = Conformal(level=0.9, threshold=0.5, n_rows=9), torch.tensor([0.1, -0.4, 0.6, 2.0])
    values = measure_coverage(fitted, torch.zeros(4, 1), target, VALUES, 0.95)
    assert values.story.endswith("10 wide.")
    assert (values.held.value, values.size.value, values.size.low, values.unit) == (0.5, 10.0, 10.0, "wide")


@pytest.mark.parametrize(
    ("level", "changed", "said"),
    [
        (0.9, {"n_folds": 5}, "in 5 folds every row is; set data.split.by"),
        (0.99, {}, "needs >= 99 validation rows, but there are 40"),
    ],
)
def test_without_rows_to_fit_on_it_is_refused_before_anything_is_trained(
    level: float, changed: dict[str, int], said: str
) -> None:
    with pytest.raises(ConfigError, match=said):
        check_conformal(level, CLASSES.model_copy(update=changed))
    check_conformal(None, CLASSES.model_copy(update=changed))
    check_conformal(0.9, CLASSES)
