"""The hand-written backward passes are the derivatives of the forward passes, in any precision."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Mapping
from typing import Literal

import pytest
import torch
from torch import Tensor

from pipeline.models.dropout import StackedDropout
from pipeline.models.layers import ACTIVATIONS, Activation
from pipeline.models.stack_layers import Layer, dense

K, B, D, W = 3, 4, 5, 2


def linear(
    x_KDB: Tensor, parameters: Mapping[str, Tensor], name: str, activation: Activation | Literal["none"] = "none"
) -> Tensor:
    return dense(x_KDB, parameters, [Layer(name, activation)])


def made(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(len(shape)))


@pytest.mark.parametrize("activation", ["none", *ACTIVATIONS])
@pytest.mark.parametrize("bias", [True, False])
def test_linear_layers_differentiate(activation: Activation, bias: bool) -> None:
    def layer(x_KDB: Tensor, weight: Tensor, *biases: Tensor) -> Tensor:
        return linear(x_KDB, {"l.weight": weight} | ({"l.bias": biases[0]} if biases else {}), "l", activation)

    arguments = [made(K, D, B), made(K, W, D), *([made(K, W)] if bias else [])]
    assert torch.autograd.gradcheck(layer, [argument.requires_grad_() for argument in arguments])


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("rates", [[0.0, 0.0, 0.0], [0.0, 0.2, 0.75]])
def test_layers_in_a_row_with_dropout_differentiate(activation: Activation, rates: list[float]) -> None:
    names, units = ["a.weight", "a.bias", "b.weight", "b.bias", "h.weight"], [W, W - 1, W]

    def net(x_KDB: Tensor, *parameters: Tensor) -> Tensor:
        layers = [Layer("a", activation, dropout=True), Layer("b", activation, dropout=True), Layer("h")]
        dropout = StackedDropout(rates, units, torch.device("cpu"), n_layers=2)
        generators = [torch.Generator().manual_seed(k) for k in range(K)]
        return dense(x_KDB, dict(zip(names, parameters, strict=True)), layers, dropout, generators)

    arguments = [made(K, D, B), made(K, W, D), made(K, W), made(K, W, W) + 1, made(K, W), made(K, 3, W)]
    assert torch.autograd.gradcheck(net, [argument.requires_grad_() for argument in arguments])


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_layers_in_a_row_are_the_layers_one_by_one(activation: Activation) -> None:
    parameters = {"a.weight": made(K, W, D), "a.bias": made(K, W), "h.weight": made(K, 3, W), "h.bias": made(K, 3)}
    dropout = StackedDropout([0.5] * K, [W] * K, torch.device("cpu"))

    def generators() -> list[torch.Generator]:
        return [torch.Generator().manual_seed(k) for k in range(K)]

    x_KDB = made(K, D, B)
    row_K3B = dense(x_KDB, parameters, [Layer("a", activation, dropout=True), Layer("h")], dropout, generators())
    y_KWB = dropout(linear(x_KDB, parameters, "a", activation), generators())
    assert torch.equal(row_K3B, linear(y_KWB, parameters, "h"))
    evaluated_K3B = dense(x_KDB, parameters, [Layer("a", activation, dropout=True), Layer("h")], dropout)
    assert torch.equal(evaluated_K3B, linear(linear(x_KDB, parameters, "a", activation), parameters, "h"))


@pytest.mark.parametrize("last", [Layer("h", "relu"), Layer("h", "gelu"), Layer("h", "none", dropout=True)])
def test_the_gradient_that_comes_in_is_left_as_it_is(last: Layer) -> None:
    parameters = {"h.weight": made(K, W, D).requires_grad_(), "h.bias": made(K, W)}
    dropout = StackedDropout([0.5] * K, [W] * K, torch.device("cpu"))
    out_KWB = dense(made(K, D, B), parameters, [last], dropout, [torch.Generator() for _ in range(K)])
    given_KWB = made(K, W, B)
    torch.autograd.grad(out_KWB, parameters["h.weight"], given_KWB)
    assert torch.equal(given_KWB, made(K, W, B))


def test_gradients_are_put_where_the_parameters_want_them() -> None:
    parameters = {"a.weight": made(K, W, D), "a.bias": made(K, W), "h.weight": made(K, 3, W)}
    buffer = torch.zeros(K, 100, dtype=torch.float64)
    for i, parameter in enumerate(parameters.values()):
        parameter.requires_grad_().grad = buffer[:, 20 * i : 20 * i + parameter[0].numel()].view(parameter.shape)
    out_K3B = dense(made(K, D, B), parameters, [Layer("a", "relu"), Layer("h")])
    for parameter, gradient in zip(
        parameters.values(), torch.autograd.grad(out_K3B.sum(), list(parameters.values())), strict=True
    ):
        assert parameter.grad is not None
        assert gradient.data_ptr() == parameter.grad.data_ptr()
        assert torch.equal(gradient, parameter.grad)


@pytest.mark.parametrize("rows_last", [True, False])
def test_a_gradient_is_laid_out_as_its_input(rows_last: bool) -> None:
    x_KDB = made(K, D, B) if rows_last else made(K, B, D).transpose(1, 2)
    parameters = {"l.weight": made(K, W, D), "l.bias": made(K, W)}

    def layer(x_KDB: Tensor) -> Tensor:
        return linear(x_KDB, parameters, "l", "tanh")

    assert torch.autograd.gradcheck(layer, x_KDB.requires_grad_())
    (gradient_KDB,) = torch.autograd.grad(layer(x_KDB).sum(), x_KDB)
    assert gradient_KDB.stride() == x_KDB.stride()


def test_what_a_pass_kept_goes_with_its_output() -> None:
    """Nothing waits for the garbage collector, which looks at tensors rarely and counts them as small."""
    parameters = {"l.weight": made(K, W, D).requires_grad_(), "l.bias": made(K, W)}
    gc.disable()
    try:
        out_KWB = linear(made(K, D, B), parameters, "l", "relu")
        kept = weakref.ref(out_KWB.grad_fn.net)  # type: ignore[union-attr]
        del out_KWB
        assert kept() is None
    finally:
        gc.enable()


def test_under_autocast_gradients_come_back_in_the_parameters_own_type() -> None:
    x_KDB = torch.randn(K, D, B)
    parameters = {
        "l.weight": torch.randn(K, W, D, requires_grad=True),
        "l.bias": torch.randn(K, W, requires_grad=True),
        "h.weight": torch.randn(K, 2, W, requires_grad=True),
        "h.bias": torch.randn(K, 2, requires_grad=True),
    }
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out_KCB = linear(linear(x_KDB, parameters, "l", "gelu"), parameters, "h")
    assert out_KCB.dtype == torch.bfloat16
    gradients = torch.autograd.grad(out_KCB.float().sum(), list(parameters.values()))
    assert all(gradient.dtype == torch.float32 for gradient in gradients)
