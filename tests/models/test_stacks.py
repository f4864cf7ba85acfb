"""What every family that stacks promises of its net: outputs and gradients are those of its modules one by one."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from pipeline.data.spec import DataSpec
from pipeline.data.tensors import Inputs
from pipeline.models import FAMILIES
from pipeline.models.base import Model, ModelConfig
from pipeline.models.stack import Stack, StackedNet
from search_spaces import SPACES
from tests.helpers import RandomSuggester
from tests.models.examples import SPECS, make_batch

CASES = [
    pytest.param(name, kind, id=f"{name}-{kind}")
    for name, family in FAMILIES.items()
    if family.stack
    for kind in sorted(family.kinds - {"text"})
]
each_case = pytest.mark.parametrize(("name", "kind"), CASES)


class Together:
    """Modules, and the net of all of them."""

    def __init__(self, name: str, spec: DataSpec, configs: Sequence[ModelConfig]) -> None:
        torch.manual_seed(0)
        self.modules: list[Model] = [FAMILIES[name].build(config, spec) for config in configs]
        parameters = [dict(module.named_parameters()) for module in self.modules]
        names = [n for n in self.modules[0].state_dict() if n not in parameters[0]]
        self.parameters = {n: padded([own[n] for own in parameters]).requires_grad_() for n in parameters[0]}
        for parameter in self.parameters.values():
            parameter.grad = torch.full_like(parameter, torch.nan)
        self.buffers = {n: padded([module.get_buffer(n) for module in self.modules]) for n in names}
        stack = FAMILIES[name].stack
        assert stack is not None
        self.net: StackedNet = stack.net(configs, spec, self.parameters, self.buffers)
        self.generators = [torch.Generator() for _ in configs]

    def step_is_the_modules(self, inputs_K: Sequence[Inputs], **tolerance: float) -> None:
        """A training step, each member on rows of its own."""
        outputs_KBC = self.net.forward(Inputs(*map(stacked, zip(*inputs_K, strict=True))), self.generators)
        assert not outputs_KBC.requires_grad
        wanted_KBC = torch.stack([module.train()(x) for module, x in zip(self.modules, inputs_K, strict=True)])
        self.evaluation_is_the_modules(inputs_K[0], **tolerance)  # leaves the step as it is
        torch.testing.assert_close(outputs_KBC, wanted_KBC.detach(), **tolerance)
        gradient_KBC = torch.randn(wanted_KBC.shape, dtype=wanted_KBC.dtype)
        given_KBC = gradient_KBC.clone()
        self.net.backward(gradient_KBC)
        assert torch.equal(gradient_KBC, given_KBC), "what is given is left as it is"
        for module in self.modules:
            module.zero_grad()
        wanted_KBC.backward(given_KBC)
        for name, parameter in self.parameters.items():
            of_modules = [module.get_parameter(name).grad for module in self.modules]
            torch.testing.assert_close(parameter.grad, padded([g for g in of_modules if g is not None]), **tolerance)
        for name, buffer in self.buffers.items():
            of_modules = [module.get_buffer(name) for module in self.modules]
            torch.testing.assert_close(buffer, padded(of_modules), **tolerance)

    def evaluation_is_the_modules(self, shared: Inputs, **tolerance: float) -> None:
        """Of rows that are the same for all, twice: what one gave is not the memory of the other."""
        with torch.inference_mode():
            outputs_KBC = self.net.forward(shared, None)
            self.net.forward(shared._replace(x=shared.x + 1), None)
            wanted_KBC = torch.stack([module.eval()(shared) for module in self.modules])
        torch.testing.assert_close(outputs_KBC, wanted_KBC, **tolerance)


def padded(tensors: Sequence[Tensor]) -> Tensor:
    shape = [max(sizes) for sizes in zip(*(tensor.shape for tensor in tensors), strict=True)]
    together = tensors[0].new_zeros(len(tensors), *shape)
    for row, tensor in zip(together, tensors, strict=True):
        row[tuple(slice(size) for size in tensor.shape)] = tensor.detach()
    return together


def stacked(parts: Sequence[Tensor | None]) -> Tensor | None:
    return None if parts[0] is None else torch.stack([part for part in parts if part is not None])


def members(name: str, spec: DataSpec, seed: int) -> list[ModelConfig]:
    """Of one shape class, by chance; of unequal widths where the class allows it. Nothing is dropped."""
    stack: Stack[ModelConfig] | None = FAMILIES[name].stack
    assert stack is not None
    first = SPACES[name](RandomSuggester(seed), spec).model_copy(update={"dropout": 0.0})
    configs = [first]
    if hasattr(first, "width"):
        narrower = first.model_copy(update={"width": first.width - 1})
        configs += [narrower] if stack.shape_class(narrower, spec) == stack.shape_class(first, spec) else []
    return [*configs, first]


def inputs(spec: DataSpec, n_members: int, rows: slice) -> list[Inputs]:
    return [make_batch(spec, seed=k).inputs.take(rows) for k in range(n_members)]


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("seed", range(12))
@each_case
def test_outputs_gradients_and_buffers_are_the_modules(name: str, kind: str, seed: int) -> None:
    """Step after step, of more rows and of fewer, with evaluations in between."""
    spec = SPECS[kind]
    configs = members(name, spec, seed)
    together = Together(name, spec, configs)
    for rows in (slice(0, 8), slice(8, 13), slice(4, 12)):
        together.step_is_the_modules(inputs(spec, len(configs), rows), atol=1e-9, rtol=1e-9)
    together.evaluation_is_the_modules(make_batch(spec).inputs, atol=1e-9, rtol=1e-9)


@each_case
def test_in_bfloat16_they_are_nearly(name: str, kind: str) -> None:
    """As near as eight bits allow: both round, each at other places."""
    spec = SPECS[kind]
    for seed in range(6):
        configs = members(name, spec, seed)
        together = Together(name, spec, configs)
        inputs_K = inputs(spec, len(configs), slice(0, 16))
        with torch.autocast("cpu", torch.bfloat16):
            outputs_KBC = together.net.forward(Inputs(*map(stacked, zip(*inputs_K, strict=True))), together.generators)
            wanted_KBC = torch.stack([module(x) for module, x in zip(together.modules, inputs_K, strict=True)])
        assert_near(outputs_KBC, wanted_KBC.detach())
        together.net.backward(torch.ones_like(outputs_KBC))
        wanted_KBC.sum().backward()
        for n, parameter in together.parameters.items():
            assert parameter.grad is not None
            assert parameter.grad.dtype == torch.float32
            assert_near(parameter.grad, padded([module.get_parameter(n).grad for module in together.modules]))


def assert_near(one: Tensor, other: Tensor) -> None:
    assert one.shape == other.shape
    distance = float((one.float() - other.float()).norm() / other.float().norm())
    assert distance < 0.15, distance
