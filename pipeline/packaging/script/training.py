"""One training: batches, optimiser, schedule, early stopping, cross-validation."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable, Sequence
from contextlib import nullcontext
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from pipeline.data.spec import DataSpec
from pipeline.data.tensors import Inputs, Part
from pipeline.models.base import Model
from pipeline.packaging.script.plan import Plan
from pipeline.packaging.script.preparing import Prepared
from pipeline.packaging.script.scoring import MINIMISED, score
from pipeline.training.augmentation import partners
from pipeline.training.config import OptimisationConfig
from pipeline.training.folded import FOLD_STRIDE
from pipeline.training.learner import EVALUATION_VALUES, batches, n_batches
from pipeline.training.losses import training_loss
from pipeline.training.schedule import rate_factor

Build = Callable[[Any, DataSpec], Model]
Change = Callable[[Tensor, Sequence[int]], tuple[Tensor, Tensor | None]]
"""From batches ``(1, B, C, H, W)`` and the step of each to changed ones, and where they mix rows, each one's share."""
Changes = Callable[[Plan, int], Change]
"""By the seed of a training."""


class Trained(NamedTuple):
    """A model of its best epoch."""

    model: Model
    score: float
    """On the validation part; the mean over the folds under cross-validation."""
    epoch: int


class Training:
    """A model on its way, with its own order of rows and its own random numbers."""

    def __init__(
        self, plan: Plan, spec: DataSpec, build: Build, part: Part, seed: int, epoch_rows: int, changes: Changes | None
    ) -> None:
        torch.manual_seed(seed)
        self.plan, self.part, self.epoch_rows = plan, part, epoch_rows
        self.model = build(plan.model, spec)
        self.parameters = [p for p in self.model.parameters() if p.requires_grad]
        self.optimizer = make_optimizer(plan.optimisation, self.parameters)
        self.loss = training_loss(plan.optimisation, spec, torch.device("cpu"))
        self.change = None if changes is None else changes(plan, seed)
        self.order = torch.Generator().manual_seed(seed)
        self.random = torch.get_rng_state()
        self.step, self.n_steps = 0, plan.max_epochs * n_batches(epoch_rows, plan.optimisation.batch_size)

    def epoch(self) -> None:
        """One pass over the rows."""
        config = self.plan.optimisation
        torch.set_rng_state(self.random)
        self.model.train()
        rows = torch.randperm(len(self.part), generator=self.order)[: self.epoch_rows]
        for batch in batches(self.part, rows, config.batch_size):
            self.optimizer.zero_grad()
            inputs, own_share = self.changed(batch.inputs)
            with autocast(self.plan):
                output = self.model(inputs)
                loss = self.loss(output, batch.target)
                if own_share is not None:
                    loss = torch.lerp(self.loss(output, partners(batch.target[None])[0]), loss, own_share)
            loss.backward()  # type: ignore[no-untyped-call]
            if config.l1:
                for parameter in self.parameters:
                    if parameter.grad is not None:
                        parameter.grad.add_(parameter.detach().sign(), alpha=config.l1)
            if config.clip_norm is not None:
                torch.nn.utils.clip_grad_norm_(self.parameters, config.clip_norm)
            for group in self.optimizer.param_groups:
                group["lr"] = config.lr * rate_factor(config, self.step, self.n_steps)
            self.optimizer.step()
            self.step += 1
        self.random = torch.get_rng_state()

    def changed(self, inputs: Inputs) -> tuple[Inputs, Tensor | None]:
        """A batch as augmentation leaves it, and the share of its own rows where it mixes them."""
        if self.change is None:
            return inputs, None
        x_1BCHW, own_11 = self.change(inputs.x[None], [self.step])
        return inputs._replace(x=x_1BCHW[0]), None if own_11 is None else own_11[0, 0]


def make_optimizer(config: OptimisationConfig, parameters: Iterable[torch.nn.Parameter]) -> torch.optim.Optimizer:
    """torch's own, with the search's settings."""
    lr, decay = config.lr, config.weight_decay
    betas = (config.momentum, config.beta2)
    match config.optimizer:
        case "adamw":
            return torch.optim.AdamW(parameters, lr, betas, config.eps, decay, fused=True)
        case "adam":
            return torch.optim.Adam(parameters, lr, betas, config.eps, decay, fused=True)
        case "rmsprop":
            return torch.optim.RMSprop(parameters, lr, config.beta2, config.eps, decay, config.momentum)
        case "sgd":
            nesterov = config.momentum > 0
            return torch.optim.SGD(parameters, lr, config.momentum, weight_decay=decay, nesterov=nesterov, fused=True)


def train(plan: Plan, data: Prepared, build: Build, seed: int, changes: Changes | None) -> Trained:
    """Train until the validation score has not become better for `Plan.patience` epochs; the best epoch counts.

    Under cross-validation there is a model a fold, whose mean score decides, and one on all rows, which is kept.
    """
    trainings, held_out = start(plan, data, build, seed, changes)
    kept = trainings[-1].model
    best = Trained(kept, math.nan, 0)
    for epoch in range(1, plan.n_epochs + 1):
        for training in trainings:
            training.epoch()
        scores = [
            score(plan.metric, outputs(training.model, part.inputs, plan), part.target, data.spec)
            for training, part in zip(trainings, held_out, strict=False)
        ]
        value = float(np.nanmean(scores))
        better = value < best.score if plan.metric in MINIMISED else value > best.score
        if math.isfinite(value) and (better or math.isnan(best.score)):
            best = Trained(copy.deepcopy(kept), value, epoch)
        elif epoch - best.epoch >= plan.patience:
            break
    return Trained(best.model.eval(), best.score, best.epoch)


def start(
    plan: Plan, data: Prepared, build: Build, seed: int, changes: Changes | None
) -> tuple[list[Training], list[Part]]:
    """The trainings, that on all rows last, and the rows that the first ones are validated on."""
    everything = Training(plan, data.spec, build, data.train, seed, len(data.train), changes)
    if data.folds is None:
        return [everything], [data.validation]
    held = [torch.nonzero(data.folds == fold)[:, 0] for fold in range(plan.n_folds)]
    rest = [torch.nonzero(data.folds != fold)[:, 0] for fold in range(plan.n_folds)]
    epoch_rows = min(map(len, rest))
    seeds = [(seed + (fold + 1) * FOLD_STRIDE) % 2**63 for fold in range(plan.n_folds)]
    folds = [
        Training(plan, data.spec, build, data.train.take(rows), own, epoch_rows, changes)
        for rows, own in zip(rest, seeds, strict=True)
    ]
    return [*folds, everything], [data.train.take(rows) for rows in held]


@torch.inference_mode()
def outputs(model: Model, inputs: Inputs, plan: Plan) -> Tensor:
    """Logits, or standardised values, of prepared rows."""
    model.eval()
    n = max(1, EVALUATION_VALUES // max(1, inputs.x[0].numel()))
    with autocast(plan):
        return torch.cat([model(inputs.take(slice(i, i + n))).float() for i in range(0, len(inputs.x), n)])


def autocast(plan: Plan) -> Any:
    """bfloat16 where the experiment asks for it."""
    return torch.autocast("cpu", dtype=torch.bfloat16) if plan.bf16 else nullcontext()
