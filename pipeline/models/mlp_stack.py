"""MLPs as one batched computation: `pipeline.models.mlp` with a member axis in front.

Axes: K members, B rows, D values a row, W units, F numeric columns, N bins, J categorical columns.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from typing import Final

import torch
import torch.nn.functional as F
from torch import Tensor

from pipeline.data.spec import DataSpec
from pipeline.data.tensors import Inputs
from pipeline.models.dropout import StackedDropout
from pipeline.models.encoders import SequenceEncoder, TabularEncoder, make_encoder
from pipeline.models.mlp import MLPConfig
from pipeline.models.stack import Stack
from pipeline.models.stack_layers import (
    ACTIVATION,
    BATCH_NORM_MOMENTUM,
    NORM_EPS,
    Layer,
    dense,
    linear,
)


def shape_class(config: MLPConfig, spec: DataSpec) -> Hashable:
    """Depth and the kind of every operation. Widths share a class up to the next power of two, so that padding at most
    doubles a layer; dropout may differ freely."""
    same = config.model_dump(exclude={"width", "dropout"})
    return (*same.values(), math.ceil(math.log2(config.width)))


class StackedMLP:
    """The forward pass of a cohort of MLPs of one shape class."""

    def __init__(self, configs: Sequence[MLPConfig], spec: DataSpec, device: torch.device) -> None:
        self._config = configs[0]
        self._widths = [config.width for config in configs]
        rates = [config.dropout for config in configs]
        self._dropout = StackedDropout(rates, self._widths, device, n_layers=self._config.n_layers)
        self._width = max(self._widths)
        # Built for its constants and its parameter-free part; its own parameters are not used.
        self._encoder = make_encoder(self._config, spec).to(device)
        self._width_K11 = torch.tensor(self._widths, device=device)[:, None, None]
        self._valid_KW1 = torch.arange(self._width, device=device)[:, None] < self._width_K11

    def __call__(
        self,
        parameters: Mapping[str, Tensor],
        buffers: Mapping[str, Tensor],
        inputs: Inputs,
        generators: Sequence[torch.Generator] | None,
    ) -> Tensor:
        x_KDB = self._encode(parameters, inputs).transpose(1, 2)
        config = self._config
        if config.norm == "none" and not config.residual:
            layers = [self._layer(f"blocks.{i}") for i in range(config.n_layers)]
            return dense(x_KDB, parameters, [*layers, Layer("head")], self._dropout, generators).transpose(1, 2)
        for i in range(config.n_layers):
            y_KWB = self._block(x_KDB, parameters, buffers, f"blocks.{i}", generators)
            x_KDB = x_KDB + y_KWB if config.residual and i > 0 else y_KWB
        return linear(x_KDB, parameters, "head").transpose(1, 2)

    def _layer(self, name: str) -> Layer:
        """A block without a norm."""
        return Layer(f"{name}.linear", self._config.activation, dropout=True)

    def _block(
        self,
        x_KDB: Tensor,
        parameters: Mapping[str, Tensor],
        buffers: Mapping[str, Tensor],
        name: str,
        generators: Sequence[torch.Generator] | None,
    ) -> Tensor:
        """Linear, norm, activation and, while training, dropout."""
        config = self._config
        if config.norm == "none":
            return dense(x_KDB, parameters, [self._layer(name)], self._dropout, generators)
        y_KWB = linear(x_KDB, parameters, f"{name}.linear")
        y_KWB = ACTIVATION[config.activation](
            self._norm(y_KWB, parameters, buffers, f"{name}.norm", generators is not None)
        )
        return y_KWB if generators is None else self._dropout(y_KWB, generators)

    def _encode(self, parameters: Mapping[str, Tensor], inputs: Inputs) -> Tensor:
        K = len(self._widths)
        encoder = self._encoder
        if isinstance(encoder, TabularEncoder):
            return self._encode_table(encoder, parameters, inputs, K)
        own = inputs.x.dim() > (4 if not isinstance(encoder, SequenceEncoder) else 3)
        if not own:
            shared_BD: Tensor = encoder(inputs)
            return shared_BD.expand(K, -1, -1)
        B = inputs.x.shape[1]
        flat = Inputs(inputs.x.flatten(0, 1), None, None if inputs.lengths is None else inputs.lengths.flatten())
        encoded: Tensor = encoder(flat)
        return encoded.view(K, B, -1)

    def _encode_table(
        self, encoder: TabularEncoder, parameters: Mapping[str, Tensor], inputs: Inputs, K: int
    ) -> Tensor:
        own = inputs.x.dim() == 3
        B = inputs.x.shape[-2]
        parts = []
        if hasattr(encoder, "numeric"):
            bins = encoder.numeric.bins(inputs.x.flatten(0, 1) if own else inputs.x)  # (K·B, F, N) or (B, F, N)
            bins = bins.view(K, B, *bins.shape[1:]) if own else bins.expand(K, *bins.shape)
            if "encoder.numeric.weight_FND" in parameters:
                weight_KFND = parameters["encoder.numeric.weight_FND"]
                bias_KFD = parameters["encoder.numeric.bias_FD"]
                bins = torch.relu(torch.einsum("kbfn,kfnd->kbfd", bins, weight_KFND) + bias_KFD[:, None])
            parts.append(bins.flatten(2))
        if hasattr(encoder, "categorical"):
            assert inputs.categories is not None, "data with categorical columns comes with categories"
            table_KLD = parameters["encoder.categorical.table.weight"]
            codes = inputs.categories + encoder.categorical.offsets_J
            codes_KB = codes.reshape(K, -1) if own else codes.reshape(1, -1).expand(K, -1)
            index = codes_KB[:, :, None].expand(-1, -1, table_KLD.shape[2])
            parts.append(table_KLD.gather(1, index).view(K, B, -1))
        return parts[0] if len(parts) == 1 else torch.cat(parts, dim=2)

    def _norm(
        self, x_KWB: Tensor, parameters: Mapping[str, Tensor], buffers: Mapping[str, Tensor], name: str, training: bool
    ) -> Tensor:
        gain_KW, bias_KW = parameters[f"{name}.weight"], parameters[f"{name}.bias"]
        if self._config.norm == "batch":
            return _batch_norm(x_KWB, gain_KW, bias_KW, buffers, name, training)
        return self._layer_norm(x_KWB, gain_KW, bias_KW)

    def _layer_norm(self, x_KWB: Tensor, gain_KW: Tensor, bias_KW: Tensor) -> Tensor:
        """Over each member's true width. Padded units hold 0 before and, their gain and bias being 0, after; they are
        masked all the same, because the mean would hand them a gradient."""
        mean_K1B = (x_KWB * self._valid_KW1).sum(1, keepdim=True) / self._width_K11
        centred_KWB = (x_KWB - mean_K1B) * self._valid_KW1
        variance_K1B = centred_KWB.square().sum(1, keepdim=True) / self._width_K11
        return centred_KWB * (variance_K1B + NORM_EPS).rsqrt() * gain_KW[:, :, None] + bias_KW[:, :, None]


def _batch_norm(
    x_KWB: Tensor, gain_KW: Tensor, bias_KW: Tensor, buffers: Mapping[str, Tensor], name: str, training: bool
) -> Tensor:
    """torch's kernel over the K·W units of all members at once, as channels of one image of B pixels."""
    mean_KW, variance_KW = buffers[f"{name}.running_mean"], buffers[f"{name}.running_var"]
    normed = F.batch_norm(
        x_KWB.reshape(1, -1, x_KWB.shape[2]), mean_KW.view(-1), variance_KW.view(-1), gain_KW.reshape(-1),
        bias_KW.reshape(-1), training, BATCH_NORM_MOMENTUM, NORM_EPS,
    )  # fmt: skip
    if training:
        buffers[f"{name}.num_batches_tracked"].add_(1)
    return normed.view_as(x_KWB)


STACK: Final = Stack(
    shape_class=shape_class,
    class_parameters=(
        "mlp.n_layers",
        "mlp.width",
        "mlp.activation",
        "mlp.norm",
        "mlp.residual",
        "mlp.n_bins",
        "mlp.scaling",
        "mlp.d_numeric_embedding",
        "mlp.d_embedding",
    ),
    forward=StackedMLP,
)
