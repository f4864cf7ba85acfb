"""A cohort of one trains as an ordinary loop with torch's own optimisers does, and goes on from a state as if it had
never stopped."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from pipeline.data.tensors import Development
from pipeline.models import FAMILIES
from pipeline.models.mlp import MLPConfig
from pipeline.training.config import OptimisationConfig, OptimizerName, TrainSettings, TrialConfig
from pipeline.training.learner import SoloLearner
from tests.conftest import make_development

CPU = torch.device("cpu")
EPOCHS, BATCH_SIZE, RATE, DECAY = 3, 32, 3e-3, 1e-2

OPTIMIZERS: dict[str, tuple[OptimizerName, float, Callable[[Sequence[Tensor]], torch.optim.Optimizer]]] = {
    "adamw": ("adamw", 0.9, lambda p: torch.optim.AdamW(p, RATE, weight_decay=DECAY)),
    "adam": ("adam", 0.9, lambda p: torch.optim.Adam(p, RATE, weight_decay=DECAY)),
    "sgd": ("sgd", 0.0, lambda p: torch.optim.SGD(p, RATE, weight_decay=DECAY)),
    "sgd-momentum": ("sgd", 0.9, lambda p: torch.optim.SGD(p, RATE, 0.9, weight_decay=DECAY, nesterov=True)),
    "rmsprop": ("rmsprop", 0.0, lambda p: torch.optim.RMSprop(p, RATE, alpha=0.999, weight_decay=DECAY)),
    "rmsprop-momentum": (
        "rmsprop",
        0.9,
        lambda p: torch.optim.RMSprop(p, RATE, alpha=0.999, weight_decay=DECAY, momentum=0.9),
    ),
}


pytestmark = pytest.mark.usefixtures("float64")


def learner(name: str, data: Development) -> SoloLearner:
    optimizer, momentum, _ = OPTIMIZERS[name]
    config = TrialConfig(
        family="mlp",
        model=MLPConfig(n_layers=2, width=16, dropout=0, activation="tanh"),
        optimisation=OptimisationConfig(
            optimizer=optimizer, momentum=momentum, lr=RATE, weight_decay=DECAY, batch_size=BATCH_SIZE, clip_norm=0.5
        ),
        seed=7,
    )
    return SoloLearner(config, data.train, data.spec, TrainSettings(metric="log_loss", max_epochs=EPOCHS), CPU)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_cohort_of_one_equals_an_ordinary_loop(name: str) -> None:
    data = make_development()
    ours = learner(name, data)
    torch.manual_seed(7)
    model = FAMILIES["mlp"].build(MLPConfig(n_layers=2, width=16, dropout=0, activation="tanh"), data.spec)
    optimizer = OPTIMIZERS[name][2](list(model.parameters()))
    order = torch.Generator().manual_seed(7)
    for _ in range(EPOCHS):
        total = 0.0
        for rows in torch.randperm(len(data.train), generator=order).split(BATCH_SIZE):
            batch = data.train.take(rows)
            optimizer.zero_grad()
            loss = F.cross_entropy(model(batch.inputs), batch.target)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 0.5)
            optimizer.step()
            total += float(loss.detach()) * len(rows)
        assert float(ours.train_epoch()) == pytest.approx(total / len(data.train), rel=1e-10)
    for parameter, value in model.state_dict().items():
        assert torch.allclose(ours.weights(0)[parameter], value, rtol=1e-10, atol=1e-12), parameter


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_state_holds_all_that_the_optimiser_knows(name: str) -> None:
    data = make_development()
    whole, cut = learner(name, data), learner(name, data)
    whole.train_epoch()
    cut.load_state(0, whole.state(0))
    assert torch.equal(cut.train_epoch(), whole.train_epoch())
    assert all(torch.equal(value, whole.weights(0)[key]) for key, value in cut.weights(0).items())
