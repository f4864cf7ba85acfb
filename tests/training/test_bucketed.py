"""Texts of like length train together, in an order that is still random, and a trial resumes as if never stopped."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from pipeline.data.tensors import Development
from pipeline.training.learner import SoloLearner, bucketed
from pipeline.training.stacked import shape_class
from pipeline.training.trainer import WEIGHTS
from search_spaces import default_trial
from tests.models.examples import SPECS, make_batch
from tests.training.cohorts import CPU, alone, cross_validated, settings

SIZE = 16


def texts(n: int = 2_000) -> Development:
    spec = SPECS["text"].model_copy(update={"n_steps": 40, "n_train": n, "n_validation": 100})
    train, validation = make_batch(spec, n), make_batch(spec, 100, seed=1)
    return Development(spec, train, validation, "made-here")


def test_batches_are_of_like_length_and_every_row_is_in_one() -> None:
    lengths = texts().train.inputs.lengths
    assert lengths is not None
    order = torch.randperm(2_000, generator=torch.Generator().manual_seed(0))
    rows = bucketed(order, lengths, SIZE, torch.Generator().manual_seed(0))
    assert torch.equal(rows.sort().values, torch.arange(2_000))

    def read(order: torch.Tensor) -> int:
        """Steps that are read, padding included."""
        return sum(int(lengths[batch].max()) * len(batch) for batch in order.split(SIZE))

    assert read(order) > 1.8 * int(lengths.sum())
    assert read(rows) < 1.1 * int(lengths.sum())


def test_batches_differ_from_epoch_to_epoch_and_long_ones_come_at_any_time() -> None:
    lengths = texts().train.inputs.lengths
    assert lengths is not None
    generator = torch.Generator().manual_seed(0)
    epochs = [bucketed(torch.randperm(2_000, generator=generator), lengths, SIZE, generator) for _ in range(2)]
    batches = [{frozenset(batch.tolist()) for batch in rows.split(SIZE)} for rows in epochs]
    assert not batches[0] & batches[1]
    first, second = (lengths[half].double().mean() for half in epochs[0].split(1_000))
    assert float(abs(first - second)) < 5  # of a mean of 20: sorted rows would differ by 20
    longest = torch.stack([lengths[batch].max() for batch in epochs[0].split(SIZE)])
    assert 0.3 < float((longest.diff() > 0).double().mean()) < 0.6, "batches do not go from short to long"


@pytest.mark.parametrize("family", ["mlp", "lstm", "cnn"])
def test_a_text_trial_that_was_suspended_ends_as_one_that_was_not(tmp_path: Path, family: str) -> None:
    data = texts(300)
    config = default_trial(family, data.spec, 5)
    alone(config, 0, data, tmp_path / "cut", {0: (2, "suspend")})
    cut = alone(config, 0, data, tmp_path / "cut", {})
    whole = alone(config, 0, data, tmp_path / "whole", {})
    assert [m.train_loss for m in cut.curves[0]] == [m.train_loss for m in whole.curves[0]]
    ours, theirs = (load_file(tmp_path / name / "0" / WEIGHTS) for name in ("cut", "whole"))
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_outputs_are_in_the_order_of_the_rows() -> None:
    data = texts(300)
    learner = SoloLearner(default_trial("cnn", data.spec, 0), data.train, data.spec, settings(data), CPU)
    together = learner.outputs(data.validation)[0]
    one_by_one = torch.cat([learner.outputs(data.validation.take(slice(i, i + 1)))[0] for i in range(100)])
    torch.testing.assert_close(together, one_by_one, atol=1e-5, rtol=1e-4)


def test_a_text_trial_is_cross_validated_and_resumes(tmp_path: Path) -> None:
    data = cross_validated(texts(60))
    config = default_trial("mlp", data.spec, 5)
    alone(config, 0, data, tmp_path / "cut", {0: (2, "suspend")})
    cut = alone(config, 0, data, tmp_path / "cut", {})
    whole = alone(config, 0, data, tmp_path / "whole", {})
    assert whole.outcomes[0].state == "COMPLETE"
    assert [m.val_loss for m in cut.curves[0]] == [m.val_loss for m in whole.curves[0]]


def test_texts_train_one_by_one() -> None:
    data = texts(50)
    config = default_trial("mlp", data.spec, 0)
    assert shape_class(config, data.spec) is None
    assert shape_class(config, replace(data, spec=SPECS["image"]).spec) is not None
