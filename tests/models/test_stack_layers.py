"""The hand-written backward passes are the derivatives of the forward passes, in any precision."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from pipeline.models.layers import ACTIVATIONS, Activation
from pipeline.models.stack_layers import head, linear, linear_relu_dropout

K, B, D, W = 3, 4, 5, 2


def made(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(len(shape)))


@pytest.mark.parametrize("activation", ["none", *ACTIVATIONS])
@pytest.mark.parametrize("bias", [True, False])
def test_linear_layers_differentiate(activation: Activation, bias: bool) -> None:
    def layer(x_KBD: Tensor, weight: Tensor, *biases: Tensor) -> Tensor:
        return linear(x_KBD, {"l.weight": weight} | ({"l.bias": biases[0]} if biases else {}), "l", activation)

    arguments = [made(K, B, D), made(K, W, D), *([made(K, W)] if bias else [])]
    assert torch.autograd.gradcheck(layer, [argument.requires_grad_() for argument in arguments])


def test_dropout_after_relu_differentiates_without_its_mask() -> None:
    scale_K11 = torch.tensor([1.0, 1.25, 4.0], dtype=torch.float64)[:, None, None]
    mask_KBW = (made(K, B, W) > 0) * scale_K11

    def layer(x_KBD: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return linear_relu_dropout(x_KBD, {"l.weight": weight, "l.bias": bias}, "l", mask_KBW, scale_K11)

    arguments = [made(K, B, D), made(K, W, D), made(K, W)]
    assert torch.autograd.gradcheck(layer, [argument.requires_grad_() for argument in arguments])
    parameters = {"l.weight": arguments[1], "l.bias": arguments[2]}
    assert torch.equal(layer(*arguments), linear(arguments[0], parameters, "l", "relu") * mask_KBW)


def test_heads_differentiate_and_keep_their_rows_last_in_memory() -> None:
    def layer(x_KBD: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return head(x_KBD, {"h.weight": weight, "h.bias": bias}, "h")

    arguments = [made(K, B, D), made(K, W, D), made(K, W)]
    assert torch.autograd.gradcheck(layer, [argument.requires_grad_() for argument in arguments])
    out_KBC = layer(*arguments)
    assert out_KBC.shape == (K, B, W)
    assert out_KBC.transpose(1, 2).is_contiguous()


def test_under_autocast_gradients_come_back_in_the_parameters_own_type() -> None:
    x_KBD = torch.randn(K, B, D)
    parameters = {
        "l.weight": torch.randn(K, W, D, requires_grad=True),
        "l.bias": torch.randn(K, W, requires_grad=True),
        "h.weight": torch.randn(K, 2, W, requires_grad=True),
        "h.bias": torch.randn(K, 2, requires_grad=True),
    }
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out_KBC = head(linear(x_KBD, parameters, "l", "gelu"), parameters, "h")
    assert out_KBC.dtype == torch.bfloat16
    gradients = torch.autograd.grad(out_KBC.float().sum(), list(parameters.values()))
    assert all(gradient.dtype == torch.float32 for gradient in gradients)
