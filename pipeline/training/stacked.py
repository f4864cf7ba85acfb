"""The stacked learner: K trials of one shape class trained as one batched computation, each exactly as alone.

All parameters lie in one ``(K, P)`` buffer; the stacked net sees views of it, and the optimiser its rows. What
differs between members (rates, decay, dropout, smoothing, schedule, seed, data order, clipping) is a value a row; what
would change the operations is the shape class. Axes: K members, B rows of a batch, C outputs, P parameters.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence

import torch
from torch import Tensor

from pipeline.data.spec import DataSpec
from pipeline.data.tensors import Development, Inputs, Part
from pipeline.models import FAMILIES
from pipeline.training.augmentation import make_augmenter
from pipeline.training.config import TrainSettings, TrialConfig
from pipeline.training.learner import EVALUATION_VALUES, autocast, n_batches
from pipeline.training.rows import RowOptimizer
from pipeline.training.schedule import rate_factor
from pipeline.training.stacked_losses import StackedLoss
from pipeline.training.updates import STEPPED
from pipeline.training.validation import Validated, hold_out

CLIP_EPS = 1e-6
"""As in torch.nn.utils.clip_grad_norm_."""


def shape_class(config: TrialConfig, spec: DataSpec) -> Hashable | None:
    """Trials with equal classes may share a cohort; None for a family that does not stack, and for texts: most of a
    step is the table of words, which is as much work in a cohort as alone."""
    stack = FAMILIES[config.family].stack
    if stack is None or spec.kind == "text":
        return None
    return (
        config.family,
        config.optimisation.batch_size,
        config.optimisation.loss,
        stack.shape_class(config.model, spec),
    )


def class_parameters(family: str) -> tuple[str, ...]:
    """Names in the search space that decide a family's shape class; empty for a family that does not stack."""
    stack = FAMILIES[family].stack
    return () if stack is None else (*stack.class_parameters, "train.batch_size", "loss.name")


class StackedLearner:
    """A cohort of K members. Implements `pipeline.training.learner.Learner`.

    Args:
        pools: each member's rows of `train`; all of them where it is None.
        epoch_rows: an epoch is so many rows of a member's pool, drawn anew each time; at most the smallest pool.
    """

    def __init__(
        self,
        configs: Sequence[TrialConfig],
        train: Part,
        spec: DataSpec,
        settings: TrainSettings,
        device: torch.device,
        *,
        pools: Sequence[Tensor] | None = None,
        epoch_rows: int | None = None,
    ) -> None:
        self._configs = list(configs)
        self._train, self._spec, self._settings, self._device = train, spec, settings, device
        self._rng = "rng.cuda" if device.type == "cuda" else "rng.cpu"
        self._generators: list[torch.Generator] = []
        self._built: list[Tensor] = []
        """The CPU generator's state after each member was built."""
        states: list[dict[str, Tensor]] = []
        self._trainable: list[str] = []
        for config in configs:
            # Each member is built as it would be alone; what torch's generator is then left at draws its dropout.
            torch.manual_seed(config.seed)
            module = FAMILIES[config.family].build(config.model, spec)
            self._trainable = [name for name, p in module.named_parameters() if p.requires_grad]
            states.append({name: value.detach() for name, value in module.state_dict().items()})
            self._built.append(torch.get_rng_state())
            # As alone: on a CPU dropout goes on where building left off, a GPU's generator starts at the seed.
            generator = torch.Generator(device).manual_seed(config.seed)
            if device.type == "cpu":
                generator.set_state(torch.get_rng_state())
            self._generators.append(generator)
        self._shapes = [{name: value.shape for name, value in state.items()} for state in states]
        self._orders = [torch.Generator().manual_seed(config.seed) for config in configs]
        self._steps = [0] * len(states)
        self._pools = None if pools is None else list(pools)
        self._epoch_rows = len(train) if epoch_rows is None else epoch_rows
        self._n_steps = settings.max_epochs * n_batches(self._epoch_rows, configs[0].optimisation.batch_size)
        self._autocast = autocast(device, settings, spec)
        self._lay_out()
        for k, state in enumerate(states):
            self._put_state(k, state)
        self._optimizer = RowOptimizer([c.optimisation for c in configs], self._flat, self._gradient)

    # Memory: one row a member.

    def _lay_out(self) -> None:
        """Buffers for the present members: every parameter as large as the largest member's."""
        K = len(self._configs)
        largest = {
            name: tuple(max(sizes) for sizes in zip(*(shapes[name] for shapes in self._shapes), strict=True))
            for name in self._shapes[0]
        }
        sizes = {name: int(torch.Size(largest[name]).numel()) for name in self._trainable}
        dtype = torch.get_default_dtype()
        self._flat = torch.zeros(K, sum(sizes.values()), device=self._device, dtype=dtype)
        self._gradient = torch.zeros_like(self._flat)
        self._parameters: dict[str, Tensor] = {}
        start = 0
        for name in self._trainable:
            shape = (K, *largest[name])
            parameter = self._flat[:, start : start + sizes[name]].view(shape).requires_grad_()
            parameter.grad = self._gradient[:, start : start + sizes[name]].view(shape)
            self._parameters[name] = parameter
            start += sizes[name]
        self._buffers = {
            name: torch.zeros(
                (K, *largest[name]), device=self._device, dtype=torch.int64 if not largest[name] else dtype
            )
            for name in self._shapes[0]
            if name not in self._parameters
        }
        self._set_up_members()

    def _set_up_members(self) -> None:
        """What is a value a member, as lists and tensors."""
        stack = FAMILIES[self._configs[0].family].stack
        assert stack is not None, "only families that stack come here"
        self._net = stack.net([c.model for c in self._configs], self._spec, self._parameters, self._buffers)
        chosen = [c.optimisation for c in self._configs]
        self._l1 = self._column([c.l1 for c in chosen]) if any(c.l1 for c in chosen) else None
        clips = [c.clip_norm for c in chosen]
        self._clip = self._column([float("inf") if c is None else c for c in clips]) if any(clips) else None
        self._loss = StackedLoss(chosen, self._spec, self._device)
        self._augmenter = make_augmenter(self._configs, self._spec, self._device)
        constant = all(c.schedule == "constant" and c.warmup == 0 for c in chosen)
        self._constant_rates = [c.lr for c in chosen] if constant else None

    def _column(self, values: Sequence[float]) -> Tensor:
        return torch.tensor(values, device=self._device, dtype=torch.get_default_dtype())[:, None]

    @property
    def size(self) -> int:
        return len(self._configs)

    # Training.

    def train_epoch(self) -> Tensor:
        losses: list[Tensor] = []
        sizes: list[int] = []
        for rows, target_KB in self._batches():
            inputs, own_K1 = self._gather(self._train.inputs, rows), None
            if self._augmenter is not None:
                x, own_K1 = self._augmenter(inputs.x, self._steps)
                inputs = inputs._replace(x=x)
            with self._autocast:
                outputs_KBC = self._net.forward(inputs, self._generators)
                losses_K, gradient_KBC = self._loss.descend(outputs_KBC, target_KB, own_K1)
            self._net.backward(gradient_KBC)
            self._shape_gradient()
            self._optimizer.step(self._rates())
            for k in range(self.size):
                self._steps[k] += 1
            losses.append(losses_K)
            sizes.append(target_KB.shape[1])
        losses_KS = torch.stack(losses, dim=1).cpu()  # S steps
        return (losses_KS * torch.tensor(sizes)).sum(1) / sum(sizes)

    def _batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Rows ``(K * B,)``, member after member, and their targets ``(K, B)`` or ``(K, B, H)``, each member in its own
        order; as `pipeline.training.learner.batches` without a last batch of a single row."""
        n = self._epoch_rows
        size = min(self._configs[0].optimisation.batch_size, n)
        order_KN = torch.stack([self._draw(k)[:n] for k in range(self.size)]).to(self._device)
        n_full = n - n % size
        order_SKB = order_KN[:, :n_full].view(self.size, -1, size).transpose(0, 1).contiguous()
        yield from zip(order_SKB.flatten(1).unbind(), self._train.target[order_SKB].unbind(), strict=True)
        if n - n_full > 1:
            rest_KB = order_KN[:, n_full:]
            yield rest_KB.flatten(), self._train.target[rest_KB]

    def _draw(self, member: int) -> Tensor:
        """A member's rows in a new order."""
        if self._pools is None:
            return torch.randperm(len(self._train), generator=self._orders[member])
        pool = self._pools[member]
        return pool[torch.randperm(len(pool), generator=self._orders[member])]

    def _gather(self, source: Inputs, rows: Tensor) -> Inputs:
        """The inputs ``(K, B, …)`` of these rows ``(K * B,)``."""
        picked = [
            None if part is None else part.index_select(0, rows).view(self.size, -1, *part.shape[1:]) for part in source
        ]
        return Inputs(*picked)  # type: ignore[arg-type]

    def _rates(self) -> list[float]:
        if self._constant_rates is not None:
            return self._constant_rates
        return [
            config.optimisation.lr * rate_factor(config.optimisation, step, self._n_steps)
            for config, step in zip(self._configs, self._steps, strict=True)
        ]

    def _shape_gradient(self) -> None:
        """L1 and clipping, row by row, in the order of the ordinary learner."""
        with torch.no_grad():
            if self._l1 is not None:
                self._gradient.addcmul_(self._flat.sign(), self._l1)
            if self._clip is not None:
                norm_K1 = self._gradient.norm(dim=1, keepdim=True)
                self._gradient.mul_((self._clip / (norm_K1 + CLIP_EPS)).clamp(max=1.0))

    # Evaluation.

    def validate(self, data: Development) -> Validated:
        return hold_out(self, data)

    @torch.inference_mode()
    def own_outputs(self, part: Part, rows_KM: Tensor) -> Tensor:
        rows = max(1, EVALUATION_VALUES // max(1, part.inputs.x[0].numel() * self.size))
        with self._autocast:
            chunks = [
                self._net.forward(self._gather(part.inputs, chunk.flatten()), None)
                for chunk in torch.split(rows_KM.to(self._device), rows, dim=1)
            ]
        return torch.cat(chunks, dim=1).to(self._flat.dtype)

    @torch.inference_mode()
    def outputs(self, part: Part) -> Tensor:
        values = part.inputs.x[0].numel() * self.size
        rows = max(1, EVALUATION_VALUES // max(1, values))
        with self._autocast:
            chunks = [self._net.forward(part.inputs.take(slice(i, i + rows)), None) for i in range(0, len(part), rows)]
        return torch.cat(chunks, dim=1).to(self._flat.dtype)

    def losses(self, outputs_KNC: Tensor, target_N: Tensor) -> Tensor:
        target_KN = target_N.expand(self.size, *target_N.shape)
        return self._loss.unweighted(outputs_KNC, target_KN).cpu()

    # Members come and go.

    def keep(self, members: Sequence[int]) -> None:
        states = [self._get_state(k) for k in members]
        slots = [{name: self._cut(k, row) for name, row in self._optimizer.slots(k).items()} for k in members]
        steps = [self._optimizer.steps[k] for k in members]
        self._pools = None if self._pools is None else [self._pools[k] for k in members]
        for name in ("_configs", "_generators", "_built", "_orders", "_steps", "_shapes"):
            setattr(self, name, [getattr(self, name)[k] for k in members])
        self._lay_out()
        self._optimizer = RowOptimizer([c.optimisation for c in self._configs], self._flat, self._gradient)
        for k, (state, slot) in enumerate(zip(states, slots, strict=True)):
            self._put_state(k, state)
            self._put_slots(k, slot, steps[k])

    def weights(self, member: int) -> dict[str, Tensor]:
        return {name: value.cpu() for name, value in self._get_state(member).items()}

    def state(self, member: int) -> dict[str, Tensor]:
        optimizer = self._configs[member].optimisation.optimizer
        state = {f"model.{name}": value for name, value in self.weights(member).items()}
        step = self._optimizer.steps[member].cpu().clone()
        if int(step) > 0:
            for name, row in self._optimizer.slots(member).items():
                if name == "momentum_buffer" and not self._configs[member].optimisation.momentum:
                    continue
                for i, value in enumerate(self._cut(member, row).values()):
                    state[f"optimizer.{i}.{name}"] = value.cpu()
            if optimizer in STEPPED:
                state |= {f"optimizer.{i}.step": step.clone() for i in range(len(self._trainable))}
        state["step"] = torch.tensor(self._steps[member])
        state["order"] = self._orders[member].get_state()
        state["rng.cpu"] = self._built[member]
        state[self._rng] = self._generators[member].get_state()
        return state

    def load_state(self, member: int, state: dict[str, Tensor]) -> None:
        self._put_state(member, {k.removeprefix("model."): v for k, v in state.items() if k.startswith("model.")})
        slots: dict[str, dict[str, Tensor]] = {}
        for key, value in state.items():
            if key.startswith("optimizer."):
                _, index, name = key.split(".", 2)
                slots.setdefault(name, {})[self._trainable[int(index)]] = value
        step = slots.pop("step", {})
        # SGD counts no steps in its state: it has taken as many as the schedule has.
        taken = next(iter(step.values()), state["step"]).to(self._device, torch.float32)
        self._put_slots(member, slots, taken)
        self._steps[member] = int(state["step"])
        self._orders[member].set_state(state["order"])
        if self._rng in state:  # else it was suspended on a CPU: a GPU's drawing starts anew, as it does alone
            self._generators[member].set_state(state[self._rng])
        self._built[member] = state["rng.cpu"]

    def n_params(self, member: int) -> int:
        return sum(self._shapes[member][name].numel() for name in self._trainable)

    def _put_state(self, member: int, state: dict[str, Tensor]) -> None:
        with torch.no_grad():
            for name, value in state.items():
                target = self._parameters[name] if name in self._parameters else self._buffers[name]
                target[member][_corner(value.shape)] = value.to(self._device)

    def _get_state(self, member: int) -> dict[str, Tensor]:
        """A copy of a member's parameters and buffers without padding, in the order of its ordinary module."""
        with torch.no_grad():
            return {
                name: (self._parameters[name] if name in self._parameters else self._buffers[name])[member][
                    _corner(shape)
                ]
                .detach()
                .clone()
                for name, shape in self._shapes[member].items()
            }

    def _cut(self, member: int, row_P: Tensor) -> dict[str, Tensor]:
        """One row of an optimiser's buffer as tensors of the member's own shapes."""
        cut: dict[str, Tensor] = {}
        start = 0
        for name in self._trainable:
            shape = self._parameters[name].shape[1:]
            whole = row_P[start : start + shape.numel()].view(shape)
            cut[name] = whole[_corner(self._shapes[member][name])].clone()
            start += shape.numel()
        return cut

    def _put_slots(self, member: int, slots: dict[str, dict[str, Tensor]], step: Tensor) -> None:
        self._optimizer.steps[member] = step
        rows = self._optimizer.slots(member)
        for slot, values in slots.items():
            start = 0
            for name in self._trainable:
                shape = self._parameters[name].shape[1:]
                whole = rows[slot][start : start + shape.numel()].view(shape)
                whole[_corner(self._shapes[member][name])] = values[name].to(self._device)
                start += shape.numel()


def _corner(shape: Sequence[int]) -> tuple[slice, ...]:
    """The part of a padded tensor that a member owns."""
    return tuple(slice(size) for size in shape)
