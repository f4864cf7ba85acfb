"""Cross-validated trials: each is a member a fold, and one more on all rows whose weights are the trial's.

The members of K trials and F folds train as one stack of K * F, at little more than the price of one where stacking
pays. Epoch by epoch a trial's score is the mean over its folds, and so is the epoch that is kept. Axes: K trials,
F folds, N rows, M rows of the largest fold, C outputs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from pipeline.data.tensors import Development, Part
from pipeline.training.config import TrainSettings, TrialConfig
from pipeline.training.learner import Learner, SoloLearner
from pipeline.training.metrics import validation_metrics
from pipeline.training.stacked import StackedLearner
from pipeline.training.validation import Validated

_FULL = "full"
FOLD_STRIDE = 2_654_435_761
"""Between the seeds of a trial's folds, which lies far from those of other trials: they are consecutive."""


def build_learner(
    configs: Sequence[TrialConfig],
    data: Development,
    settings: TrainSettings,
    device: torch.device,
    *,
    together: bool,
) -> Learner:
    """The learner of a cohort, or of a single trial where `together` is False."""
    assert together or len(configs) == 1, "several trials train as one computation or one by one"
    if data.folds is not None:
        return FoldedLearner(configs, data, settings, device, together=together)
    if together:
        return StackedLearner(configs, data.train, data.spec, settings, device)
    return SoloLearner(configs[0], data.train, data.spec, settings, device)


class FoldedLearner:
    """K trials under cross-validation. Implements `pipeline.training.learner.Learner`.

    Args:
        together: train the folds of all trials as one stack; else, for a single trial, one after the other.
    """

    def __init__(
        self,
        configs: Sequence[TrialConfig],
        data: Development,
        settings: TrainSettings,
        device: torch.device,
        *,
        together: bool,
    ) -> None:
        assert data.folds is not None, "only cross-validated data comes here"
        n_folds = data.spec.n_folds
        self._spec = data.spec
        self._held = [data.held(fold) for fold in range(n_folds)]
        rest = [data.rest(fold) for fold in range(n_folds)]
        # Members of one stack take equally many steps: a row too many is left out, each epoch another one.
        epoch_rows = min(len(rows) for rows in rest)
        members = [_of_fold(config, fold) for config in configs for fold in range(n_folds)]
        self._folds: Learner
        self._full: Learner
        if together:
            self._folds = StackedLearner(
                members, data.train, data.spec, settings, device, pools=rest * len(configs), epoch_rows=epoch_rows
            )
        else:
            parts = [data.train.take(rows.to(device)) for rows in rest]
            self._folds = _InTurn(
                [
                    lambda config=config, part=part: SoloLearner(  # type: ignore[misc]
                        config, part, data.spec, settings, device, epoch_rows=epoch_rows
                    )
                    for config, part in zip(members, parts, strict=True)
                ]
            )
        if together and len(configs) > 1:
            self._full = StackedLearner(configs, data.train, data.spec, settings, device)
        else:
            self._full = _InTurn([lambda: SoloLearner(configs[0], data.train, data.spec, settings, device)])

    @property
    def size(self) -> int:
        return self._full.size

    def train_epoch(self) -> Tensor:
        losses_KF = self._folds.train_epoch().view(self.size, -1)
        self._full.train_epoch()
        return losses_KF.mean(1)

    def validate(self, data: Development) -> Validated:
        held_FM = torch.nn.utils.rnn.pad_sequence(self._held, batch_first=True)
        outputs = self._folds.own_outputs(data.train, held_FM.repeat(self.size, 1))
        outputs_KFMC = outputs.view(self.size, len(self._held), *outputs.shape[1:])
        losses, metrics = [], []
        for fold, rows in enumerate(self._held):
            outputs_KNC = outputs_KFMC[:, fold, : len(rows)]
            target_N = data.train.target[rows.to(data.train.target.device)]
            losses.append(self._full.losses(outputs_KNC, target_N))
            metrics.append(validation_metrics(outputs_KNC, target_N, self._spec))
        by_fold = {name: torch.stack([of_fold[name] for of_fold in metrics], dim=1) for name in metrics[0]}
        return Validated(
            losses=torch.stack(losses, dim=1).mean(1),
            # A metric may be undefined on a fold, as ROC AUC is without one of the classes.
            metrics={name: values_KF.nanmean(1) for name, values_KF in by_fold.items()},
            standard_errors={name: _standard_error(values_KF) for name, values_KF in by_fold.items()},
        )

    def own_outputs(self, part: Part, rows_KM: Tensor) -> Tensor:
        return self._full.own_outputs(part, rows_KM)

    def outputs(self, part: Part) -> Tensor:
        return self._full.outputs(part)

    def losses(self, outputs_KNC: Tensor, target_N: Tensor) -> Tensor:
        return self._full.losses(outputs_KNC, target_N)

    def keep(self, members: Sequence[int]) -> None:
        self._folds.keep([member for k in members for member in self._members(k)])
        self._full.keep(members)

    def weights(self, member: int) -> dict[str, Tensor]:
        return self._full.weights(member)

    def state(self, member: int) -> dict[str, Tensor]:
        learners = {_FULL: (self._full, member)}
        learners |= {f"fold{f}": (self._folds, k) for f, k in enumerate(self._members(member))}
        return {
            f"{name}.{key}": value for name, (learner, k) in learners.items() for key, value in learner.state(k).items()
        }

    def load_state(self, member: int, state: dict[str, Tensor]) -> None:
        states: dict[str, dict[str, Tensor]] = {}
        for key, value in state.items():
            name, rest = key.split(".", 1)
            states.setdefault(name, {})[rest] = value
        self._full.load_state(member, states[_FULL])
        for fold, k in enumerate(self._members(member)):
            self._folds.load_state(k, states[f"fold{fold}"])

    def n_params(self, member: int) -> int:
        return self._full.n_params(member)

    def _members(self, trial: int) -> range:
        """Positions of a trial's folds."""
        return range(trial * self._spec.n_folds, (trial + 1) * self._spec.n_folds)


def _of_fold(config: TrialConfig, fold: int) -> TrialConfig:
    """Every fold starts from weights of its own."""
    return config.model_copy(update={"seed": (config.seed + (fold + 1) * FOLD_STRIDE) % 2**63})


def _standard_error(values_KF: Tensor) -> Tensor:
    """Of the mean over folds: sample deviation over the root of their number."""
    known_KF = ~values_KF.isnan()
    n_K = known_KF.sum(1)
    deviation_KF = torch.where(known_KF, values_KF - values_KF.nanmean(1, keepdim=True), 0)
    return (deviation_KF.square().sum(1) / (n_K - 1).clamp(min=1) / n_K.clamp(min=1)).sqrt()


class _InTurn:
    """Learners of one member each, trained one after the other; each finds torch's generators as it left them."""

    def __init__(self, builders: Sequence[Callable[[], SoloLearner]]) -> None:
        self._learners: list[SoloLearner] = []
        self._random: list[list[Tensor]] = []
        for build in builders:
            self._learners.append(build())
            self._random.append(_generators())

    @property
    def size(self) -> int:
        return len(self._learners)

    def train_epoch(self) -> Tensor:
        losses = []
        for k, learner in enumerate(self._learners):
            _set_generators(self._random[k])
            losses.append(learner.train_epoch())
            self._random[k] = _generators()
        return torch.cat(losses)

    def validate(self, data: Development) -> Validated:
        raise AssertionError("folds are validated together")

    def own_outputs(self, part: Part, rows_KM: Tensor) -> Tensor:
        return torch.cat([one.own_outputs(part, rows[None]) for one, rows in zip(self._learners, rows_KM, strict=True)])

    def outputs(self, part: Part) -> Tensor:
        return torch.cat([learner.outputs(part) for learner in self._learners])

    def losses(self, outputs_KNC: Tensor, target_N: Tensor) -> Tensor:
        return torch.cat([self._learners[0].losses(outputs_NC[None], target_N) for outputs_NC in outputs_KNC])

    def keep(self, members: Sequence[int]) -> None:
        self._learners = [self._learners[k] for k in members]
        self._random = [self._random[k] for k in members]

    def weights(self, member: int) -> dict[str, Tensor]:
        return self._learners[member].weights(0)

    def state(self, member: int) -> dict[str, Tensor]:
        _set_generators(self._random[member])
        return self._learners[member].state(0)

    def load_state(self, member: int, state: dict[str, Tensor]) -> None:
        self._learners[member].load_state(0, state)
        self._random[member] = _generators()

    def n_params(self, member: int) -> int:
        return self._learners[member].n_params(0)


def _generators() -> list[Tensor]:
    """The state of torch's global generators: the CPU's, then each GPU's in use."""
    on_gpu = torch.cuda.get_rng_state_all() if torch.cuda.is_available() and torch.cuda.is_initialized() else []  # type: ignore[no-untyped-call]
    return [torch.get_rng_state(), *on_gpu]


def _set_generators(states: Sequence[Tensor]) -> None:
    torch.set_rng_state(states[0])
    if len(states) > 1:
        torch.cuda.set_rng_state_all(states[1:])
