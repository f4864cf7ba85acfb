"""Recurrent networks as one batched computation: `pipeline.models.lstm` with a member axis in front.

A step of time is one batched product for all members and both directions, and a handful of elementwise operations on
all of them. A single network is better off with oneDNN's or cuDNN's fused layer: on a CPU always, so that cohorts are
for GPUs only, where a step of time costs its launches whatever the number of members.

Axes: K members, G members and directions, B rows, T steps, D values a step, H units.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Final

import torch
from torch import Tensor

from pipeline.data.spec import DataSpec
from pipeline.data.tensors import Inputs
from pipeline.models.dropout import StackedDropout
from pipeline.models.layers import unequal
from pipeline.models.lstm import Cell, LSTMConfig, mirrored, pooled
from pipeline.models.stack import Stack, differentiated


def shape_class(config: LSTMConfig, spec: DataSpec) -> Hashable:
    """Everything but dropout: gates of unequal widths do not lie above each other."""
    return tuple(config.model_dump(exclude={"dropout"}).values())


class StackedLSTM:
    """The forward pass of a cohort of recurrent networks of one shape class."""

    def __init__(self, configs: Sequence[LSTMConfig], spec: DataSpec, device: torch.device) -> None:
        self._config = configs[0]
        self._image = spec.kind == "image"
        self._directions = ("ahead", "back") if self._config.bidirectional else ("ahead",)
        rates = [config.dropout for config in configs]
        self._dropout = StackedDropout(rates, None, device)
        self._n_members = len(configs)

    def __call__(
        self,
        parameters: Mapping[str, Tensor],
        buffers: Mapping[str, Tensor],
        inputs: Inputs,
        generators: Sequence[torch.Generator] | None,
    ) -> Tensor:
        x_KBTD, last_KB, valid_KBT = self._lay_out(inputs)
        K, B, T, _ = x_KBTD.shape
        if self._config.d_projection:
            x_KBTD = _linear(x_KBTD, parameters["projection.0.weight"], parameters["projection.0.bias"]).relu()
        mirrored_KBT = mirrored(last_KB, T)
        for i in range(self._config.n_layers):
            if i and generators is not None:
                x_KBTD = self._dropout(x_KBTD.flatten(1, 2), generators).view(K, B, T, -1)
            x_KBTD = self._recurrent(x_KBTD, mirrored_KBT, parameters, f"layers.{i}")
        rows = None if valid_KBT is None else valid_KBT.flatten(0, 1)
        x_KBD = pooled(x_KBTD.flatten(0, 1), rows, last_KB.flatten(), self._config).view(K, B, -1)
        if generators is not None:
            x_KBD = self._dropout(x_KBD, generators)
        return _linear(x_KBD, parameters["head.weight"], parameters["head.bias"])

    def _lay_out(self, inputs: Inputs) -> tuple[Tensor, Tensor, Tensor | None]:
        """Steps ``(K, B, T, D)``, each row's last step ``(K, B)``, and which steps are data where some are not."""
        x = inputs.x.transpose(-3, -2).flatten(-2) if self._image else inputs.x
        x_KBTD = x if x.dim() == 4 else x.expand(self._n_members, *x.shape)
        K, B, T, _ = x_KBTD.shape
        lengths = unequal(inputs.lengths, T)
        if lengths is None:
            return x_KBTD, torch.full((K, B), T - 1, device=x.device), None
        last_KB = (lengths.to(x.device) - 1).expand(K, B)
        return x_KBTD, last_KB, torch.arange(T, device=x.device) <= last_KB[:, :, None]

    def _recurrent(self, x_KBTD: Tensor, mirrored_KBT: Tensor, parameters: Mapping[str, Tensor], name: str) -> Tensor:
        """One layer ``(K, B, T, D) -> (K, B, T, H * directions)``. Going back is going ahead through mirrored steps."""
        read = [x_KBTD] if len(self._directions) == 1 else [x_KBTD, _steps(x_KBTD, mirrored_KBT)]
        gates, weights, biases = [], [], []
        for x, direction in zip(read, self._directions, strict=True):
            of = f"{name}.{direction}"
            gates.append(_linear(x, parameters[f"{of}.weight_ih_l0"], parameters[f"{of}.bias_ih_l0"]))
            weights.append(parameters[f"{of}.weight_hh_l0"])
            biases.append(parameters[f"{of}.bias_hh_l0"])
        run = _CELLS[self._config.cell]
        out_GBTH = run(torch.cat(gates), torch.cat(weights), torch.cat(biases))
        if len(read) == 1:
            return out_GBTH
        ahead_KBTH, back_KBTH = out_GBTH.chunk(2)
        return torch.cat([ahead_KBTH, _steps(back_KBTH, mirrored_KBT)], dim=3)


def _linear(x: Tensor, weight_KWD: Tensor, bias_KW: Tensor) -> Tensor:
    """Each member's own linear layer, ``(K, B, …, D) -> (K, B, …, W)``; with the units last, as a GPU has them."""
    out = torch.baddbmm(bias_KW[:, None], x.flatten(1, -2), weight_KWD.transpose(1, 2))
    return out.view(*x.shape[:-1], -1)


def _steps(x_KBTD: Tensor, steps_KBT: Tensor) -> Tensor:
    """Each row's steps in the given order."""
    return x_KBTD.gather(2, steps_KBT[..., None].expand(-1, -1, -1, x_KBTD.shape[3]))


def _lstm(gates_GBTD: Tensor, weight_GDH: Tensor, bias_GD: Tensor) -> Tensor:
    """Hidden states ``(G, B, T, H)`` from what the inputs give to the gates ``(G, B, T, 4H)``; torch's order of gates:
    input, forget, cell, output."""
    H = weight_GDH.shape[2]
    w_GHD, gates_TGBD = _in_time(gates_GBTD, weight_GDH, bias_GD)
    h_GBH = c_GBH = gates_GBTD.new_zeros(*gates_GBTD.shape[:2], H)
    states = []
    for gates_GBD in gates_TGBD:
        gates_GBD = torch.baddbmm(gates_GBD, h_GBH.to(w_GHD.dtype), w_GHD)
        keep_GB2H = torch.sigmoid(gates_GBD[..., : 2 * H])
        new_GBH = torch.tanh(gates_GBD[..., 2 * H : 3 * H])
        c_GBH = torch.addcmul(keep_GB2H[..., H:] * c_GBH, keep_GB2H[..., :H], new_GBH)
        h_GBH = torch.sigmoid(gates_GBD[..., 3 * H :]) * torch.tanh(c_GBH)
        states.append(h_GBH)
    return torch.stack(states, dim=2)


def _gru(gates_GBTD: Tensor, weight_GDH: Tensor, bias_GD: Tensor) -> Tensor:
    """As `_lstm` for ``(G, B, T, 3H)``; torch's order of gates: reset, update, new."""
    H = weight_GDH.shape[2]
    bias_G1H = bias_GD[:, None, 2 * H :]
    # The new gate's recurrent part is reset before it is added, so it is computed apart.
    w_GHD, gates_TGBD = _in_time(gates_GBTD[..., : 2 * H], weight_GDH[:, : 2 * H], bias_GD[:, : 2 * H])
    w_new_GHH = weight_GDH[:, 2 * H :].transpose(1, 2).to(w_GHD.dtype)
    bias_G1H = bias_G1H.to(w_GHD.dtype)
    news_TGBH = gates_GBTD[..., 2 * H :].unbind(2)
    h_GBH = gates_GBTD.new_zeros(*gates_GBTD.shape[:2], H)
    states = []
    for gates_GBD, new_GBH in zip(gates_TGBD, news_TGBH, strict=True):
        before_GBH = h_GBH.to(w_GHD.dtype)
        gates_GBD = torch.sigmoid(torch.baddbmm(gates_GBD, before_GBH, w_GHD))
        recurrent_GBH = torch.baddbmm(bias_G1H, before_GBH, w_new_GHH)
        new_GBH = torch.tanh(torch.addcmul(new_GBH, gates_GBD[..., :H], recurrent_GBH))
        h_GBH = torch.lerp(new_GBH, before_GBH, gates_GBD[..., H:])
        states.append(h_GBH)
    return torch.stack(states, dim=2)


def _in_time(gates_GBTD: Tensor, weight_GDH: Tensor, bias_GD: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
    """The recurrent weights ``(G, H, D)``, and the gates step by step with the recurrent bias added."""
    dtype = gates_GBTD.dtype
    gates_GBTD = gates_GBTD + bias_GD[:, None, None].to(dtype)
    return weight_GDH.transpose(1, 2).to(dtype), gates_GBTD.unbind(2)


_CELLS: Final[dict[Cell, Callable[[Tensor, Tensor, Tensor], Tensor]]] = {"lstm": _lstm, "gru": _gru}

STACK: Final = Stack(
    shape_class=shape_class,
    class_parameters=(
        "lstm.cell",
        "lstm.d_hidden",
        "lstm.n_layers",
        "lstm.bidirectional",
        "lstm.pooling",
        "lstm.d_projection",
    ),
    net=differentiated(StackedLSTM),
    devices=frozenset({"cuda"}),
)
