"""The hand-written backward passes are the derivatives of the forward passes, in any precision."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from pipeline.models.layers import ACTIVATIONS, Activation
from pipeline.models.stack_layers import linear, linear_relu_dropout

K, B, D, W = 3, 4, 5, 2


def made(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(len(shape)))


@pytest.mark.parametrize("activation", ["none", *ACTIVATIONS])
@pytest.mark.parametrize("bias", [True, False])
def test_linear_layers_differentiate(activation: Activation, bias: bool) -> None:
    def layer(x_KDB: Tensor, weight: Tensor, *biases: Tensor) -> Tensor:
        return linear(x_KDB, {"l.weight": weight} | ({"l.bias": biases[0]} if biases else {}), "l", activation)

    arguments = [made(K, D, B), made(K, W, D), *([made(K, W)] if bias else [])]
    assert torch.autograd.gradcheck(layer, [argument.requires_grad_() for argument in arguments])


def test_dropout_after_relu_differentiates_without_its_mask() -> None:
    scale_K11 = torch.tensor([1.0, 1.25, 4.0], dtype=torch.float64)[:, None, None]
    mask_KWB = (made(K, W, B) > 0) * scale_K11

    def layer(x_KDB: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return linear_relu_dropout(x_KDB, {"l.weight": weight, "l.bias": bias}, "l", mask_KWB, scale_K11)

    arguments = [made(K, D, B), made(K, W, D), made(K, W)]
    assert torch.autograd.gradcheck(layer, [argument.requires_grad_() for argument in arguments])
    parameters = {"l.weight": arguments[1], "l.bias": arguments[2]}
    assert torch.equal(layer(*arguments), linear(arguments[0], parameters, "l", "relu") * mask_KWB)


@pytest.mark.parametrize("rows_last", [True, False])
def test_a_gradient_is_laid_out_as_its_input(rows_last: bool) -> None:
    x_KDB = made(K, D, B) if rows_last else made(K, B, D).transpose(1, 2)
    parameters = {"l.weight": made(K, W, D), "l.bias": made(K, W)}

    def layer(x_KDB: Tensor) -> Tensor:
        return linear(x_KDB, parameters, "l", "tanh")

    assert torch.autograd.gradcheck(layer, x_KDB.requires_grad_())
    (gradient_KDB,) = torch.autograd.grad(layer(x_KDB).sum(), x_KDB)
    assert gradient_KDB.stride() == x_KDB.stride()


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
