"""A learner: K trials of one family trained together. Axes: K members, N rows, C outputs.

`SoloLearner` is the cohort of one: an ordinary module. The training loop knows only `Learner`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Final, Protocol

import torch
from torch import Tensor

from pipeline.data.spec import DataSpec
from pipeline.data.tensors import Development, Inputs, Part
from pipeline.models import FAMILIES
from pipeline.training.augmentation import make_augmenter, partners
from pipeline.training.config import TrainSettings, TrialConfig
from pipeline.training.losses import plain_loss, training_loss
from pipeline.training.schedule import rate_factor
from pipeline.training.updates import ModuleOptimizer
from pipeline.training.validation import Validated, hold_out

SHUFFLE_AT_ONCE_BYTES = 2**29
"""Below this the epoch's rows are gathered once and sliced (one gather for an epoch is 1.8 times faster on small sets);
above it they are gathered batch by batch, so that no second copy of the data is made."""

EVALUATION_VALUES = 2**21
"""Input values a member and evaluation batch: large enough to be efficient, small enough for activations to fit."""


class Learner(Protocol):
    """K members of one cohort. Members are numbered by position; `keep` renumbers them."""

    @property
    def size(self) -> int:
        """K."""
        ...

    def train_epoch(self) -> Tensor:
        """One pass over the training part; the mean training loss of each member, ``(K,)`` on the CPU."""
        ...

    def validate(self, data: Development) -> Validated:
        """Losses and metrics of each trial on the validation part, or over its folds."""
        ...

    def outputs(self, part: Part) -> Tensor:
        """Outputs on every row of a part, ``(K, N, C)``, in evaluation mode."""
        ...

    def own_outputs(self, part: Part, rows_KM: Tensor) -> Tensor:
        """Outputs of each member on rows of its own, ``(K, M, C)``, in evaluation mode."""
        ...

    def losses(self, outputs_KNC: Tensor, target_N: Tensor) -> Tensor:
        """Each member's own loss without label smoothing, ``(K,)`` on the CPU."""
        ...

    def keep(self, members: Sequence[int]) -> None:
        """Go on with these members only, in this order."""
        ...

    def weights(self, member: int) -> dict[str, Tensor]:
        """A copy of a member's parameters and buffers on the CPU, named as in its ordinary module."""
        ...

    def state(self, member: int) -> dict[str, Tensor]:
        """Everything needed to go on with this member alone: weights, optimiser, position, random generators."""
        ...

    def load_state(self, member: int, state: dict[str, Tensor]) -> None:
        """Go on from a `state`."""
        ...

    def n_params(self, member: int) -> int:
        """Trainable parameters of a member."""
        ...


def batches(part: Part, order: Tensor, batch_size: int) -> Iterator[Part]:
    """The rows of a part in the given order, `batch_size` at a time. A last batch of a single row is left out, because
    batch normalisation has no variance there."""
    n = len(order)
    size = min(batch_size, n)
    starts = [start for start in range(0, n, size) if n - start > 1 or n == 1]
    x = part.inputs.x
    if x.numel() * x.element_size() <= SHUFFLE_AT_ONCE_BYTES:
        shuffled = part.take(order)
        for start in starts:
            yield shuffled.take(slice(start, start + size))
    else:
        for start in starts:
            yield part.take(order[start : start + size])


POOL_BATCHES: Final = 32
"""Batches among which texts of like length are brought together."""
EMBEDDED: Final = 64
"""Values that a word becomes in a model, for `EVALUATION_VALUES`."""


def bucketed(order: Tensor, lengths_N: Tensor, batch_size: int, generator: torch.Generator) -> Tensor:
    """The same rows in batches of like length, in an order that is still random: within pools of `POOL_BATCHES` batches
    rows are sorted, and then the batches change places. A batch costs what its longest text costs."""
    pool = torch.arange(len(order)) // (POOL_BATCHES * batch_size)
    length = lengths_N.cpu()[order]
    order = order[torch.argsort(pool * (int(length.max()) + 1) + length, stable=True)]
    n_full = len(order) // batch_size
    whole = order[: n_full * batch_size].view(n_full, batch_size)
    return torch.cat([whole[torch.randperm(n_full, generator=generator)].flatten(), order[n_full * batch_size :]])


def n_batches(n_rows: int, batch_size: int) -> int:
    """How many batches `batches` yields."""
    size = min(batch_size, n_rows)
    full, rest = divmod(n_rows, size)
    return full + (rest > 1) if full else 1


def autocast(device: torch.device, settings: TrainSettings, spec: DataSpec) -> AbstractContextManager[object]:
    """bf16 autocast where the settings ask for it. ``auto`` takes it for images on a GPU that has bf16 units; CPUs
    without them were up to five times slower with it."""
    able = device.type == "cuda" and torch.cuda.is_bf16_supported()
    enabled = settings.precision == "bf16" or (settings.precision == "auto" and able and spec.kind == "image")
    return torch.autocast(device.type, dtype=torch.bfloat16) if enabled else nullcontext()


class SoloLearner:
    """A cohort of one. Equal config, data, device and thread count give equal weights.

    Args:
        epoch_rows: an epoch is so many of the rows, drawn anew each time; all of them where it is None.
    """

    def __init__(
        self,
        config: TrialConfig,
        train: Part,
        spec: DataSpec,
        settings: TrainSettings,
        device: torch.device,
        *,
        epoch_rows: int | None = None,
    ) -> None:
        torch.manual_seed(config.seed)
        family = FAMILIES[config.family]
        self._config = config.optimisation
        self._train = train
        self._device = device
        self._is_text = spec.kind == "text"
        self._model = family.build(config.model, spec).to(device)
        self._parameters = [p for p in self._model.parameters() if p.requires_grad]
        self._optimizer = ModuleOptimizer(self._parameters, self._config)
        self._loss = training_loss(self._config, spec, device)
        self._plain_loss = plain_loss(self._config, spec, device)
        self._autocast = autocast(device, settings, spec)
        self._augmenter = make_augmenter([config], spec, device)
        self._order = torch.Generator().manual_seed(config.seed)
        self._step = 0
        self._epoch_rows = len(train) if epoch_rows is None else epoch_rows
        self._n_steps = settings.max_epochs * n_batches(self._epoch_rows, self._config.batch_size)

    size = 1

    def train_epoch(self) -> Tensor:
        self._model.train()
        config, optimizer = self._config, self._optimizer
        constant = config.schedule == "constant" and config.warmup == 0
        losses: list[Tensor] = []
        sizes: list[int] = []
        for batch in batches(self._train, self._rows(), config.batch_size):
            for parameter in self._parameters:
                parameter.grad = None
            inputs, own_share = self._changed(batch.inputs)
            with self._autocast:
                output = self._model(inputs)
                loss = self._loss(output, batch.target)
                if own_share is not None:
                    loss = torch.lerp(self._loss(output, partners(batch.target[None])[0]), loss, own_share)
            loss.backward()  # type: ignore[no-untyped-call]
            if config.l1:
                for parameter in self._parameters:
                    if parameter.grad is not None:
                        parameter.grad.add_(parameter.detach().sign(), alpha=config.l1)
            if config.clip_norm is not None:
                torch.nn.utils.clip_grad_norm_(self._parameters, config.clip_norm)
            optimizer.step(config.lr if constant else config.lr * rate_factor(config, self._step, self._n_steps))
            losses.append(loss.detach())
            sizes.append(len(batch))
            self._step += 1
        return (torch.stack(losses).cpu() * torch.tensor(sizes)).sum()[None] / sum(sizes)

    def _rows(self) -> Tensor:
        """The rows of an epoch in a new order."""
        order = torch.randperm(len(self._train), generator=self._order)[: self._epoch_rows]
        lengths_N = self._train.inputs.lengths
        if self._is_text and lengths_N is not None:
            order = bucketed(order, lengths_N, min(self._config.batch_size, len(order)), self._order)
        return order.to(self._device)

    def _changed(self, inputs: Inputs) -> tuple[Inputs, Tensor | None]:
        """A training batch as the trial's augmentation leaves it, and the share of its own rows where it mixes them."""
        if self._augmenter is None:
            return inputs, None
        x_1BCHW, own_11 = self._augmenter(inputs.x[None], [self._step])
        return inputs._replace(x=x_1BCHW[0]), None if own_11 is None else own_11[0, 0]

    def validate(self, data: Development) -> Validated:
        return hold_out(self, data)

    def own_outputs(self, part: Part, rows_KM: Tensor) -> Tensor:
        return self.outputs(part.take(rows_KM[0].to(self._device)))

    @torch.inference_mode()
    def outputs(self, part: Part) -> Tensor:
        self._model.eval()
        if self._is_text:
            return self._outputs_by_length(part)
        rows = max(1, EVALUATION_VALUES // max(1, part.inputs.x[0].numel()))
        with self._autocast:
            chunks = [self._model(part.inputs.take(slice(i, i + rows))) for i in range(0, len(part), rows)]
        return torch.cat(chunks).to(self._parameters[0].dtype)[None]

    def _outputs_by_length(self, part: Part) -> Tensor:
        """`outputs` of texts, the short ones among themselves."""
        lengths_N = part.inputs.lengths
        assert lengths_N is not None, "texts come with lengths"
        order = torch.argsort(lengths_N, stable=True)
        rows = max(1, EVALUATION_VALUES // (EMBEDDED * part.inputs.x.shape[1]))
        with self._autocast:
            outputs = torch.cat([self._model(part.inputs.take(chunk)) for chunk in torch.split(order, rows)])
        return torch.empty_like(outputs).index_copy_(0, order, outputs).to(self._parameters[0].dtype)[None]

    def losses(self, outputs_KNC: Tensor, target_N: Tensor) -> Tensor:
        return self._plain_loss(outputs_KNC[0], target_N).cpu()[None]

    def keep(self, members: Sequence[int]) -> None:
        assert list(members) == [0], "a cohort of one has nothing to drop"

    def weights(self, member: int) -> dict[str, Tensor]:
        return {name: value.detach().cpu().clone() for name, value in self._model.state_dict().items()}

    def state(self, member: int) -> dict[str, Tensor]:
        state = {f"model.{name}": value for name, value in self.weights(member).items()}
        state |= {f"optimizer.{name}": value for name, value in self._optimizer.state().items()}
        state["step"] = torch.tensor(self._step)
        state["order"] = self._order.get_state()
        state["rng.cpu"] = torch.get_rng_state()
        if self._device.type == "cuda":
            state["rng.cuda"] = torch.cuda.get_rng_state(self._device)
        return state

    def load_state(self, member: int, state: dict[str, Tensor]) -> None:
        self._model.load_state_dict({k.removeprefix("model."): v for k, v in state.items() if k.startswith("model.")})
        self._step = int(state["step"])
        slots = {k.removeprefix("optimizer."): v for k, v in state.items() if k.startswith("optimizer.")}
        self._optimizer.load_state(slots, self._step)
        self._order.set_state(state["order"])
        torch.set_rng_state(state["rng.cpu"])
        if "rng.cuda" in state and self._device.type == "cuda":
            torch.cuda.set_rng_state(state["rng.cuda"], self._device)

    def n_params(self, member: int) -> int:
        return sum(p.numel() for p in self._parameters)
