"""The training loop: the same training as a plain loop, and every way a trial can end."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file

from pipeline.data.tensors import Development
from pipeline.models import FAMILIES
from pipeline.training.checkpoint import CHECKPOINT, load_checkpoint
from pipeline.training.config import OptimisationConfig, TrainSettings, TrialConfig
from pipeline.training.learner import SoloLearner
from pipeline.training.measurement import Measurement, Outcome
from pipeline.training.trainer import WEIGHTS, Job, Verdict, train_cohort

CPU = torch.device("cpu")


class Recorder:
    """A monitor that remembers, and says `verdict` after epoch `at`."""

    def __init__(self, verdict: Verdict | None = None, at: int = 0) -> None:
        self.verdict, self.at = verdict, at
        self.measurements: list[Measurement] = []
        self.outcomes: list[Outcome] = []
        self.stopped: list[int] = []

    def report(self, measurements: Sequence[Measurement]) -> Mapping[int, Verdict]:
        self.measurements += measurements
        return {m.trial: self.verdict for m in measurements if self.verdict and m.epoch >= self.at}

    def ended(self, outcome: Outcome) -> None:
        self.outcomes.append(outcome)

    def suspended(self, trial: int) -> None:
        self.stopped.append(trial)


def config(data: Development, **optimisation: object) -> TrialConfig:
    family = FAMILIES["mlp"]
    chosen = {"batch_size": 32, "lr": 1e-2, **optimisation}
    return TrialConfig(
        family="mlp", model=family.default(data.spec), optimisation=OptimisationConfig.model_validate(chosen), seed=3
    )


def settings(**choices: object) -> TrainSettings:
    return TrainSettings.model_validate({"metric": "accuracy", "max_epochs": 5, "patience": 50, **choices})


def run(
    data: Development, directory: Path, chosen: TrialConfig, shared: TrainSettings, monitor: Recorder | None = None,
    trial: int = 0,
) -> Recorder:  # fmt: skip
    monitor = monitor or Recorder()
    learner = SoloLearner(chosen, data.train, data.spec, shared, CPU)
    train_cohort([Job(trial, chosen, directory)], learner, data, shared, monitor)
    return monitor


def test_a_cohort_of_one_is_bit_for_bit_a_plain_pytorch_loop(development: Development, tmp_path: Path) -> None:
    chosen = config(development, optimizer="adamw", weight_decay=0.01, label_smoothing=0.1, clip_norm=1.0)
    seen = run(development, tmp_path, chosen, settings())

    torch.manual_seed(chosen.seed)
    model = FAMILIES["mlp"].build(chosen.model, development.spec)
    optimizer = torch.optim.AdamW(model.parameters(), 1e-2, betas=(0.9, 0.999), weight_decay=0.01, fused=True)
    order = torch.Generator().manual_seed(chosen.seed)
    for epoch in range(5):
        model.train()
        total, rows = 0.0, torch.randperm(len(development.train), generator=order)
        for start in range(0, len(rows), 32):
            batch = development.train.take(rows[start : start + 32])
            optimizer.zero_grad()
            loss = F.cross_entropy(model(batch.inputs), batch.target, label_smoothing=0.1)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            total += loss.item() * len(batch)
        model.eval()
        with torch.no_grad():
            val_loss = F.cross_entropy(model(development.validation.inputs), development.validation.target).item()
        assert seen.measurements[epoch].train_loss == pytest.approx(total / len(rows), rel=1e-6)
        assert seen.measurements[epoch].val_loss == val_loss


def test_the_weights_on_disk_are_those_of_the_best_epoch(development: Development, tmp_path: Path) -> None:
    chosen = config(development)
    seen = run(development, tmp_path, chosen, settings(max_epochs=12))
    (outcome,) = seen.outcomes
    assert outcome.state == "COMPLETE"
    scores = [m.metrics["accuracy"] for m in seen.measurements]
    assert outcome.best_epoch == 1 + scores.index(max(scores))
    model = FAMILIES["mlp"].build(chosen.model, development.spec)
    model.load_state_dict(load_file(tmp_path / WEIGHTS))
    model.eval()
    with torch.no_grad():
        right = model(development.validation.inputs).argmax(1) == development.validation.target
    assert right.float().mean().item() == pytest.approx(max(scores))


def test_patience_ends_a_trial_that_no_longer_improves(development: Development, tmp_path: Path) -> None:
    seen = run(development, tmp_path, config(development, lr=1e-8), settings(max_epochs=100, patience=4))
    assert seen.outcomes[0].state == "COMPLETE"
    assert len(seen.measurements) == (seen.outcomes[0].best_epoch or 0) + 4


@pytest.mark.parametrize(("verdict", "state"), [("prune", "PRUNED"), ("finish", "COMPLETE")])
def test_a_verdict_ends_a_trial_at_its_epochs_end(
    development: Development, tmp_path: Path, verdict: Verdict, state: str
) -> None:
    seen = run(development, tmp_path, config(development), settings(), Recorder(verdict, at=2))
    assert [outcome.state for outcome in seen.outcomes] == [state]
    assert [m.epoch for m in seen.measurements] == [1, 2]
    assert (tmp_path / WEIGHTS).exists() == (state == "COMPLETE")


def test_a_loss_that_is_not_finite_is_a_failure_with_a_reason(development: Development, tmp_path: Path) -> None:
    seen = run(
        development,
        tmp_path,
        config(development, optimizer="sgd", lr=10.0, momentum=0.99, loss="focal"),
        settings(max_epochs=60),
    )
    (outcome,) = seen.outcomes
    assert outcome.state == "FAIL"
    assert outcome.error is not None
    assert outcome.error.startswith("non_finite: ")
    assert all(math.isfinite(m.train_loss) and math.isfinite(m.val_loss) for m in seen.measurements)


@pytest.mark.parametrize("optimizer", ["adamw", "adam", "sgd", "rmsprop"])
def test_a_suspended_trial_goes_on_exactly_where_it_was(
    development: Development, tmp_path: Path, optimizer: str
) -> None:
    chosen = config(development, optimizer=optimizer, schedule="cosine", warmup=0.1, l1=1e-5, lr=3e-3)
    shared = settings(max_epochs=6)
    straight = run(development, tmp_path / "straight", chosen, shared)
    first = run(development, tmp_path / "twice", chosen, shared, Recorder("suspend", at=3))
    assert first.outcomes == []
    torch.manual_seed(99)  # whatever the process did in between
    second = run(development, tmp_path / "twice", chosen, shared)
    assert [m.epoch for m in second.measurements] == [1, 2, 3, 4, 5, 6]

    def curve(recorder: Recorder) -> list[tuple[float, float]]:
        return [(m.train_loss, m.val_loss) for m in recorder.measurements]

    assert curve(second) == curve(straight)
    ours, theirs = load_file(tmp_path / "twice" / WEIGHTS), load_file(tmp_path / "straight" / WEIGHTS)
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_a_checkpoint_outlives_the_training_so_that_an_end_nobody_heard_of_costs_a_moment(
    development: Development, tmp_path: Path
) -> None:
    """As after a kill of the controller before it put the outcome on record."""
    chosen, shared = config(development), settings(max_epochs=4, checkpoint_every=0.0)
    unheard = run(development, tmp_path, chosen, shared)
    assert load_checkpoint(tmp_path) is not None
    again = run(development, tmp_path, chosen, shared)
    assert [m.epoch for m in again.measurements] == [1, 2, 3, 4]
    assert again.measurements[0] == unheard.measurements[0], "its seconds too: it was not trained again"
    assert again.outcomes[0].best_epoch == unheard.outcomes[0].best_epoch


def test_who_goes_on_from_a_checkpoint_under_another_number_reports_under_that(
    development: Development, tmp_path: Path
) -> None:
    """Of a finalist's seeds the next start numbers those that are missing."""
    chosen, shared = config(development), settings()
    straight = run(development, tmp_path / "straight", chosen, shared)
    run(development, tmp_path / "twice", chosen, shared, Recorder("suspend", at=3), trial=1)
    again = run(development, tmp_path / "twice", chosen, shared, trial=0)
    assert [(m.trial, m.epoch) for m in again.measurements] == [(0, epoch) for epoch in range(1, 6)]
    assert [m.val_loss for m in again.measurements] == [m.val_loss for m in straight.measurements]


def test_a_damaged_checkpoint_costs_the_trials_epochs_and_nothing_else(
    development: Development, tmp_path: Path
) -> None:
    chosen, shared = config(development), settings()
    straight = run(development, tmp_path / "straight", chosen, shared)
    run(development, tmp_path / "torn", chosen, shared, Recorder("suspend", at=3))
    checkpoint = tmp_path / "torn" / CHECKPOINT
    checkpoint.write_bytes(checkpoint.read_bytes()[:-100])
    again = run(development, tmp_path / "torn", chosen, shared)
    assert [m.val_loss for m in again.measurements] == [m.val_loss for m in straight.measurements]
    assert again.outcomes[0].state == "COMPLETE"
