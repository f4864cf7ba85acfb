"""Cohorts of random members, trained together and alone, and what it takes for them to be the same."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from pipeline.data.spec import DataSpec
from pipeline.data.tensors import Development, Inputs, Part
from pipeline.models import FAMILIES
from pipeline.training.config import TrainSettings, TrialConfig
from pipeline.training.folded import build_learner
from pipeline.training.measurement import Measurement, Outcome
from pipeline.training.stacked import shape_class
from pipeline.training.trainer import WEIGHTS, Job, Verdict, train_cohort
from search_spaces import suggest_trial
from tests.helpers import RandomSuggester

CPU = torch.device("cpu")
STACKED = [name for name, family in FAMILIES.items() if family.stack is not None]
EPOCHS = 4


def make(kind: str, task: str) -> Development:
    """Random data of any kind, 90 rows to train on: the last batch is a short one."""
    torch.manual_seed(0)
    n_train, n_validation = 90, 40
    n = n_train + n_validation
    labels = {"multiclass": (0, 1, 2), "binary": (0, 1)}.get(task, ())
    edges = tuple(torch.linspace(-2, 2, 9).tolist())
    knots = tuple(torch.linspace(-2, 2, 21).pow(3).tolist())
    shapes: dict[str, dict[str, object]] = {
        "tabular": {"n_numeric": 4, "cardinalities": (3, 7), "bins": (edges,) * 4, "scales": (knots, (), knots, knots)},
        "image": {"channels": 1, "height": 8, "width": 8},
        "sequence": {"n_steps": 6, "n_features": 3},
        "forecast": {"n_steps": 6, "n_features": 3, "horizon": 4, "season": 2, "naive_error": 1.0},
    }
    counts = {"multiclass": (48, 26, 16), "binary": (70, 20)}.get(task, ())  # so that classes get weights
    spec = DataSpec.model_validate(
        {"kind": kind, "task": task, "labels": labels, "class_counts": counts, "n_train": n_train,
         "n_validation": n_validation, **shapes[kind]}
    )  # fmt: skip
    match kind:
        case "tabular":
            categories = torch.stack([torch.randint(3, (n,)), torch.randint(7, (n,))], dim=1)
            inputs = Inputs(torch.randn(n, 4), categories)
        case "image":
            inputs = Inputs(torch.randn(n, 1, 8, 8))
        case "forecast":
            inputs = Inputs(torch.randn(n, 6, 3), None, torch.full((n,), 6))
        case _:
            inputs = Inputs(torch.randn(n, 6, 3), None, torch.randint(1, 7, (n,)))
    target = torch.randn(n, spec.n_outputs).squeeze(1) if spec.is_quantity else torch.randint(len(labels), (n,))
    part = Part(inputs, target)
    return Development(spec, part.take(slice(0, n_train)), part.take(slice(n_train, n)), "made-here")


def cross_validated(data: Development, n_folds: int = 3) -> Development:
    """The training rows in folds of unequal sizes."""
    folds = torch.arange(len(data.train)) % n_folds
    folds[:2] = 1
    spec = data.spec.model_copy(update={"n_folds": n_folds})
    return replace(data, spec=spec, validation=data.train, folds=folds)


def cohort_of(family: str, data: Development, size: int, seed: int) -> list[TrialConfig]:
    """Random members of the family's own search space that share a shape class: the first is drawn freely, the others
    share what decides the class, and take part in every optimiser."""
    stack = FAMILIES[family].stack
    assert stack is not None
    shared = (*stack.class_parameters, "train.batch_size", "loss.name")
    first = RandomSuggester(seed, {"lstm.d_hidden": 8 + seed % 5, "lstm.d_projection": 0 if seed % 2 else 32})
    configs = [suggest_trial(first, data.spec, (family,), seed)]
    attempt = seed
    while len(configs) < size:
        attempt += 1000
        suggester = RandomSuggester(
            attempt, {k: v for k, v in first.asked.items() if k in shared and k != f"{family}.width"}
        )
        candidate = suggest_trial(suggester, data.spec, (family,), attempt)
        if shape_class(candidate, data.spec) == shape_class(configs[0], data.spec):
            configs.append(candidate)
    return [_well_conditioned(config) for config in configs]


def _well_conditioned(config: TrialConfig) -> TrialConfig:
    """The same member without the places where a rounding error decides: adaptive optimisers divide by a gradient that
    may truly be 0 (eps is 1e-2 here, not 1e-8), L1 takes the sign of weights that may lie a rounding error from 0, and
    weights of classes enlarge both (these two have tests of their own). No two matrix shapes agree there, not even in
    two plain loops."""
    changes = {"eps": 1e-2, "l1": 0.0, "class_weight_power": 0.0}
    return config.model_copy(update={"optimisation": config.optimisation.model_copy(update=changes)})


class Monitor:
    """Says what a plan says: trial -> (epoch, verdict)."""

    def __init__(self, plan: Mapping[int, tuple[int, Verdict]] | None = None) -> None:
        self.plan = plan or {}
        self.curves: dict[int, list[Measurement]] = {}
        self.outcomes: dict[int, Outcome] = {}

    def report(self, measurements: Sequence[Measurement]) -> Mapping[int, Verdict]:
        verdicts: dict[int, Verdict] = {}
        for m in measurements:
            curve = self.curves.setdefault(m.trial, [])
            if not curve or m.epoch > curve[-1].epoch:
                curve.append(m)
            at, verdict = self.plan.get(m.trial, (0, "prune"))
            if at and m.epoch >= at:
                verdicts[m.trial] = verdict
        return verdicts

    def ended(self, outcome: Outcome) -> None:
        self.outcomes[outcome.trial] = outcome

    def suspended(self, trial: int) -> None:
        pass


def settings(data: Development, epochs: int = EPOCHS) -> TrainSettings:
    metric = "rmse" if data.spec.is_quantity else "log_loss"
    return TrainSettings(metric=metric, max_epochs=epochs, patience=50)


def alone(
    config: TrialConfig,
    trial: int,
    data: Development,
    folder: Path,
    plan: Mapping[int, tuple[int, Verdict]],
    device: torch.device = CPU,
) -> Monitor:
    monitor, shared = Monitor(plan), settings(data)
    learner = build_learner([config], data, shared, device, together=False)
    train_cohort([Job(trial, config, folder / str(trial))], learner, data, shared, monitor)
    return monitor


def together(
    configs: Sequence[TrialConfig],
    trials: Sequence[int],
    data: Development,
    folder: Path,
    plan: Mapping[int, tuple[int, Verdict]],
    device: torch.device = CPU,
) -> Monitor:
    """The data lies on the device already."""
    monitor, shared = Monitor(plan), settings(data)
    learner = build_learner(configs, data, shared, device, together=True)
    jobs = [Job(t, c, folder / str(t)) for t, c in zip(trials, configs, strict=True)]
    train_cohort(jobs, learner, data, shared, monitor)
    return monitor


def assert_same(ours: Monitor, theirs: Monitor, trial: int, our_folder: Path, their_folder: Path) -> None:
    assert ours.outcomes[trial].state == theirs.outcomes[trial].state
    assert len(ours.curves.get(trial, [])) == len(theirs.curves.get(trial, []))
    for a, b in zip(ours.curves.get(trial, []), theirs.curves.get(trial, []), strict=True):
        assert a.train_loss == pytest.approx(b.train_loss, abs=1e-9, rel=1e-9)
        assert a.val_loss == pytest.approx(b.val_loss, abs=1e-9, rel=1e-9)
    if ours.outcomes[trial].state == "COMPLETE":
        a, b = load_file(our_folder / str(trial) / WEIGHTS), load_file(their_folder / str(trial) / WEIGHTS)
        assert a.keys() == b.keys()
        for name in a:
            assert torch.allclose(a[name].double(), b[name].double(), rtol=1e-9, atol=1e-9), name


def assert_same_as_alone(
    configs: Sequence[TrialConfig],
    data: Development,
    folder: Path,
    plan: Mapping[int, tuple[int, Verdict]] | None = None,
    device: torch.device = CPU,
) -> None:
    """Each member ends as it would have alone. The data lies on the device already."""
    ours = together(configs, range(len(configs)), data, folder / "together", plan or {}, device)
    for trial, config in enumerate(configs):
        theirs = alone(config, trial, data, folder / "alone", plan or {}, device)
        assert_same(ours, theirs, trial, folder / "together", folder / "alone")
