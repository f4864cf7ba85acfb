"""A cross-validated trial: a member a fold, none of which sees its own fold's rows, and one on all rows."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from pipeline.data.tensors import Development, Part
from pipeline.training.folded import FoldedLearner, build_learner
from pipeline.training.learner import SoloLearner
from pipeline.training.metrics import validation_metrics
from pipeline.training.trainer import Verdict
from tests.training.cohorts import (
    CPU,
    STACKED,
    alone,
    assert_same,
    assert_same_as_alone,
    cohort_of,
    cross_validated,
    make,
    settings,
    together,
)  # fmt: skip

pytestmark = pytest.mark.usefixtures("float64")


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("family", "task"), [(f, t) for f in STACKED for t in ("multiclass", "regression")])
def test_trials_equal_themselves_alone(tmp_path: Path, family: str, task: str, seed: int) -> None:
    """Folds of three trials as one stack against folds one after the other, with a trial pruned and one finished."""
    data = cross_validated(make("image", task))
    configs = cohort_of(family, data, 3, seed)
    plan: dict[int, tuple[int, Verdict]] = {0: (2, "prune"), 1: (3, "finish")}
    assert_same_as_alone(configs, data, tmp_path, plan)


def test_folds_that_walk_forward_train_together_as_alone(tmp_path: Path) -> None:
    """Each fold trains on as many rows as the first one has, other ones each epoch."""
    data, n_folds = make("forecast", "forecast"), 3
    moments = torch.arange(len(data.train))
    folds = (moments - 45).div(15, rounding_mode="floor").clamp(min=-1)
    spec = data.spec.model_copy(update={"n_folds": n_folds})
    data = replace(data, spec=spec, validation=data.train, folds=folds, moments=moments)
    assert [data.rest(fold).tolist() for fold in range(n_folds)] == [
        list(range(first - spec.horizon + 1)) for first in (45, 60, 75)
    ]
    configs = cohort_of("mlp", data, 2, 1)
    assert_same_as_alone(configs, data, tmp_path)


@pytest.mark.parametrize("family", STACKED)
def test_a_suspended_trial_goes_on_in_either_form(tmp_path: Path, family: str) -> None:
    data = cross_validated(make("image", "multiclass"))
    configs = cohort_of(family, data, 2, 7)
    folder = tmp_path / "cut"
    together(configs, range(2), data, folder, dict.fromkeys(range(2), (2, "suspend")))
    first = alone(configs[0], 0, data, folder, {0: (3, "suspend")})
    assert not first.outcomes
    rest = together([configs[1], configs[0]], (1, 0), data, folder, {})
    for trial, config in enumerate(configs):
        theirs = alone(config, trial, data, tmp_path / "alone", {})
        assert_same(rest, theirs, trial, folder, tmp_path / "alone")


def trained(data: Development, *, stacked: bool) -> FoldedLearner:
    config = cohort_of("mlp", cross_validated(make("tabular", "regression")), 1, 3)[0]
    learner = build_learner([config], data, settings(data), CPU, together=stacked)
    assert isinstance(learner, FoldedLearner)
    learner.train_epoch()
    return learner


@pytest.mark.parametrize("stacked", [False, True])
def test_no_fold_learns_from_the_rows_that_it_is_measured_on(stacked: bool) -> None:
    """Other targets in fold 1 change every member but fold 1's own."""
    data = cross_validated(make("tabular", "regression"))
    assert data.folds is not None
    target = torch.where(data.folds == 1, 50.0, data.train.target)
    other = replace(data, train=Part(data.train.inputs, target))
    ours, theirs = (trained(d, stacked=stacked).state(0) for d in (data, other))

    def same(member: str) -> bool:
        names = [name for name in ours if name.startswith(f"{member}.model.")]
        assert names
        return all(torch.equal(ours[name], theirs[name]) for name in names)

    assert {name: same(name) for name in ("fold0", "fold1", "fold2", "full")} == {
        "fold0": False, "fold1": True, "fold2": False, "full": False,
    }  # fmt: skip


def test_the_score_is_the_mean_over_folds_with_its_standard_error() -> None:
    data = cross_validated(make("tabular", "multiclass"))
    assert data.folds is not None
    config = cohort_of("mlp", data, 1, 3)[0]
    learner = build_learner([config], data, settings(data), CPU, together=True)
    learner.train_epoch()
    validated, state = learner.validate(data), learner.state(0)
    scores: list[Tensor] = []
    for fold in range(3):
        rows = torch.nonzero(data.folds == fold)[:, 0]
        solo = SoloLearner(config, data.train, data.spec, settings(data), CPU)
        solo.load_state(
            0, {k.removeprefix(f"fold{fold}."): v for k, v in state.items() if k.startswith(f"fold{fold}.")}
        )
        held = data.train.take(rows)
        scores.append(validation_metrics(solo.outputs(held), held.target, data.spec)["accuracy"])
    by_fold = torch.cat(scores)
    assert validated.metrics["accuracy"].item() == pytest.approx(by_fold.mean().item())
    assert validated.standard_errors["accuracy"].item() == pytest.approx(by_fold.std().item() / 3**0.5)


def test_the_trials_weights_are_those_trained_on_all_rows() -> None:
    data = cross_validated(make("tabular", "multiclass"))
    config = cohort_of("mlp", data, 1, 3)[0]
    folded = build_learner([config], data, settings(data), CPU, together=True)
    plain = SoloLearner(config, data.train, data.spec, settings(data), CPU)
    folded.train_epoch()
    torch.manual_seed(config.seed)
    plain = SoloLearner(config, data.train, data.spec, settings(data), CPU)
    plain.train_epoch()
    for name, value in plain.weights(0).items():
        assert torch.equal(folded.weights(0)[name], value), name
