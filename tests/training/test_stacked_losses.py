"""The losses of a cohort are each member's own, and so are their gradients."""

from __future__ import annotations

from typing import Literal

import pytest
import torch
from torch import Tensor

from pipeline.data.spec import DataSpec
from pipeline.training.augmentation import partners
from pipeline.training.config import OptimisationConfig
from pipeline.training.losses import plain_loss, training_loss
from pipeline.training.stacked_losses import StackedLoss

CPU = torch.device("cpu")
N_MEMBERS, N_ROWS, N_CLASSES = 3, 12, 4

ClassLoss = Literal["cross_entropy", "focal"]


pytestmark = pytest.mark.usefixtures("float64")


def classes() -> DataSpec:
    counts = (60, 30, 9, 1)
    return DataSpec(
        kind="tabular", task="multiclass", n_numeric=1, labels=(0, 1, 2, 3), class_counts=counts, n_train=100,
        n_validation=9,
    )  # fmt: skip


def quantity() -> DataSpec:
    return DataSpec(kind="tabular", task="regression", n_numeric=1, n_train=100, n_validation=9)


def quantities_and_target(spec: DataSpec) -> tuple[Tensor, Tensor]:
    """Some of the errors are large."""
    generator = torch.Generator().manual_seed(0)
    outputs = 2 * torch.randn(N_MEMBERS, spec.n_outputs, N_ROWS, generator=generator).transpose(1, 2)
    target = torch.randn(N_MEMBERS, N_ROWS, spec.n_outputs, generator=generator)
    return outputs, target if spec.task == "forecast" else target[:, :, 0]


def forecast() -> DataSpec:
    return DataSpec(
        kind="forecast", task="forecast", n_features=1, n_steps=6, horizon=3, season=2, n_train=100, n_validation=9
    )  # fmt: skip


def members(name: ClassLoss, *, smoothing: bool, weights: bool) -> list[OptimisationConfig]:
    """The first has neither, as members may."""
    return [
        OptimisationConfig(loss=name, label_smoothing=0.1 * k * smoothing, class_weight_power=0.5 * k * weights)
        for k in range(N_MEMBERS)
    ]


def outputs_and_target() -> tuple[Tensor, Tensor]:
    """Outputs with the rows last in memory, as dense stacks give them."""
    generator = torch.Generator().manual_seed(0)
    outputs = torch.randn(N_MEMBERS, N_CLASSES, N_ROWS, generator=generator).transpose(1, 2)
    return outputs, torch.randint(N_CLASSES, (N_MEMBERS, N_ROWS), generator=generator)


@pytest.mark.parametrize("weights", [False, True])
@pytest.mark.parametrize("smoothing", [False, True])
@pytest.mark.parametrize("name", ["cross_entropy", "focal"])
def test_every_member_has_its_own_loss_and_gradient(name: ClassLoss, smoothing: bool, weights: bool) -> None:
    configs = members(name, smoothing=smoothing, weights=weights)
    outputs, target = outputs_and_target()
    together, gradient = StackedLoss(configs, classes(), CPU).descend(outputs, target)
    for k, config in enumerate(configs):
        own = outputs[k].clone().requires_grad_()
        alone = training_loss(config, classes(), CPU)(own, target[k])
        alone.backward()
        assert own.grad is not None
        torch.testing.assert_close(together[k], alone)
        torch.testing.assert_close(gradient[k], own.grad)


@pytest.mark.parametrize("weights", [False, True])
@pytest.mark.parametrize("name", ["cross_entropy", "focal"])
def test_rows_that_are_mixed_count_for_both_of_their_targets(name: ClassLoss, weights: bool) -> None:
    configs = members(name, smoothing=True, weights=weights)
    outputs, target = outputs_and_target()
    check_mixing(StackedLoss(configs, classes(), CPU), outputs, target)


def check_mixing(loss: StackedLoss, outputs: Tensor, target: Tensor) -> None:
    share = torch.tensor([1.0, 0.7, 0.2])
    mixed, gradient = loss.descend(outputs, target, share[:, None])
    own, to_own = loss.descend(outputs, target)
    other, to_other = loss.descend(outputs, partners(target))
    torch.testing.assert_close(mixed, share * own + (1 - share) * other)
    share = share[:, None, None]
    torch.testing.assert_close(gradient, share * to_own + (1 - share) * to_other)


@pytest.mark.parametrize("spec", [quantity(), forecast()], ids=lambda spec: spec.task)
@pytest.mark.parametrize("name", ["mse", "mae", "huber"])
def test_so_do_the_errors_of_quantities(name: Literal["mse", "mae", "huber"], spec: DataSpec) -> None:
    config = OptimisationConfig(loss=name)
    outputs, target = quantities_and_target(spec)
    together, gradient = StackedLoss([config] * N_MEMBERS, spec, CPU).descend(outputs, target)
    assert not together.requires_grad, "a step's losses keep no graph"
    outputs.requires_grad_()
    alone = torch.stack([training_loss(config, spec, CPU)(o, t) for o, t in zip(outputs, target, strict=True)])
    torch.testing.assert_close(together, alone)
    torch.testing.assert_close(gradient, torch.autograd.grad(alone.sum(), outputs)[0])


@pytest.mark.parametrize("name", ["mse", "mae", "huber"])
def test_rows_of_quantities_are_mixed_as_those_of_classes(name: Literal["mse", "mae", "huber"]) -> None:
    outputs, target = quantities_and_target(quantity())
    check_mixing(StackedLoss([OptimisationConfig(loss=name)] * N_MEMBERS, quantity(), CPU), outputs, target)


def test_validation_knows_neither_smoothing_nor_weights() -> None:
    configs = members("cross_entropy", smoothing=True, weights=True)
    outputs, target = outputs_and_target()
    plain = [plain_loss(c, classes(), CPU)(o, t) for c, o, t in zip(configs, outputs, target, strict=True)]
    torch.testing.assert_close(StackedLoss(configs, classes(), CPU).unweighted(outputs, target), torch.stack(plain))


def test_in_a_narrow_type_the_loss_is_computed_in_a_wide_one() -> None:
    torch.set_default_dtype(torch.float32)
    outputs, target = outputs_and_target()
    loss = StackedLoss(members("cross_entropy", smoothing=True, weights=True), classes(), CPU)
    with torch.autocast("cpu", torch.bfloat16):
        losses, gradient = loss.descend(outputs.to(torch.bfloat16), target)
    assert (losses.dtype, gradient.dtype) == (torch.float32, torch.bfloat16)
