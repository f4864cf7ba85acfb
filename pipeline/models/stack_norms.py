"""The normalisations of a cohort's dense layers, forward and back. Axes: K members, W units, B rows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import torch
from torch import Tensor

BATCH_NORM_MOMENTUM: Final = 0.1
NORM_EPS: Final = 1e-5
"""Of torch's batch and layer normalisation, which the ordinary modules use."""


class BatchNorm:
    """torch's kernels over the K·W units of all members at once, as channels of one image of B pixels. Padded units
    have gain and bias 0, so that they stay 0.

    Args:
        name: of its parameters and buffers ``(K, W)``; gradients are put where the parameters' `grad` is.
    """

    def __init__(self, name: str, parameters: Mapping[str, Tensor], buffers: Mapping[str, Tensor]) -> None:
        gain_KW, bias_KW = parameters[f"{name}.weight"], parameters[f"{name}.bias"]
        self._gain_KW, self._bias_KW = gain_KW.detach(), bias_KW.detach()
        self._places = gain_KW.grad, bias_KW.grad
        self._mean_KW, self._variance_KW = buffers[f"{name}.running_mean"], buffers[f"{name}.running_var"]
        self._n_batches_K = buffers[f"{name}.num_batches_tracked"]
        self._kept: tuple[Tensor, ...] = ()

    def forward(self, z_KWB: Tensor, training: bool) -> Tensor:
        z_1CB = z_KWB.view(1, -1, z_KWB.shape[2])
        normed_1CB, mean_C, root_C = torch.native_batch_norm(
            z_1CB, self._gain_KW.reshape(-1), self._bias_KW.reshape(-1), self._mean_KW.view(-1),
            self._variance_KW.view(-1), training, BATCH_NORM_MOMENTUM, NORM_EPS,
        )  # fmt: skip
        if training:
            self._n_batches_K.add_(1)
            self._kept = z_1CB, mean_C, root_C
        return normed_1CB.view_as(z_KWB)

    def backward(self, gradient_KWB: Tensor) -> Tensor:
        z_1CB, mean_C, root_C = self._kept
        d_z_1CB, d_gain_C, d_bias_C = torch.ops.aten.native_batch_norm_backward(
            gradient_KWB.view_as(z_1CB), z_1CB, self._gain_KW.reshape(-1), self._mean_KW.view(-1),
            self._variance_KW.view(-1), mean_C, root_C, True, NORM_EPS, [True, True, True],
        )  # fmt: skip
        for place_KW, found_C in zip(self._places, (d_gain_C, d_bias_C), strict=True):
            if place_KW is not None:
                place_KW.copy_(found_C.view_as(place_KW))
        d_z_KWB: Tensor = d_z_1CB.view_as(gradient_KWB)
        return d_z_KWB


class LayerNorm:
    """Over each member's true width. Padded units hold 0 before and, their gain and bias being 0, after.

    Args:
        name: of its parameters ``(K, W)``; gradients are put where the parameters' `grad` is.
        width_K11: each member's own.
    """

    def __init__(self, name: str, parameters: Mapping[str, Tensor], width_K11: Tensor) -> None:
        gain_KW, bias_KW = parameters[f"{name}.weight"], parameters[f"{name}.bias"]
        self._gain_KW1, self._bias_KW1 = gain_KW.detach()[:, :, None], bias_KW.detach()[:, :, None]
        self._places = gain_KW.grad, bias_KW.grad
        self._width_K11 = width_K11
        units_W1 = torch.arange(gain_KW.shape[1], device=gain_KW.device)[:, None]
        self._is_valid_KW1 = (units_W1 < width_K11).to(gain_KW.dtype)
        self._kept: tuple[Tensor, ...] = ()

    def forward(self, z_KWB: Tensor, training: bool) -> Tensor:
        z_KWB = z_KWB.to(self._gain_KW1.dtype)
        normed_KWB = z_KWB - self._mean(z_KWB)
        normed_KWB *= self._is_valid_KW1
        root_K1B = (self._mean(normed_KWB.square()) + NORM_EPS).rsqrt_()
        normed_KWB *= root_K1B
        if training:
            self._kept = normed_KWB, root_K1B
        return torch.addcmul(self._bias_KW1, normed_KWB, self._gain_KW1)

    def backward(self, gradient_KWB: Tensor) -> Tensor:
        normed_KWB, root_K1B = self._kept
        gradient_KWB = gradient_KWB.to(normed_KWB.dtype)
        gain_place, bias_place = self._places
        if gain_place is not None and bias_place is not None:
            torch.sum(gradient_KWB * normed_KWB, 2, out=gain_place)
            torch.sum(gradient_KWB, 2, out=bias_place)
        d_normed_KWB = gradient_KWB * self._gain_KW1
        along_K1B = self._mean(d_normed_KWB * normed_KWB)
        d_z_KWB = d_normed_KWB - self._mean(d_normed_KWB)
        d_z_KWB.addcmul_(normed_KWB, along_K1B, value=-1)
        d_z_KWB *= root_K1B * self._is_valid_KW1
        return d_z_KWB

    def _mean(self, values_KWB: Tensor) -> Tensor:
        """Of each row and member, ``(K, 1, B)``, over its own units; padding counts as 0."""
        return values_KWB.sum(1, keepdim=True).div_(self._width_K11)
