"""MLPs as one batched computation: `pipeline.models.mlp` with a member axis in front.

Axes: K members, B rows, D values a row, W units, F numeric columns, N bins, J categorical columns.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from typing import Final

import torch
from torch import Tensor

from pipeline.data.spec import DataSpec
from pipeline.data.tensors import Inputs
from pipeline.models.dropout import StackedDropout
from pipeline.models.encoders import ImageEncoder, TabularEncoder, make_encoder
from pipeline.models.mlp import MLPConfig
from pipeline.models.stack import Stack, go_back
from pipeline.models.stack_layers import DenseNet, Layer, Norm, computed_in, place, tensors_of
from pipeline.models.stack_norms import BatchNorm, LayerNorm


def shape_class(config: MLPConfig, spec: DataSpec) -> Hashable:
    """Depth and the kind of every operation. Widths share a class up to the next power of two, so that padding at most
    doubles a layer; dropout may differ freely."""
    same = config.model_dump(exclude={"width", "dropout"})
    return (*same.values(), math.ceil(math.log2(config.width)))


class StackedMLP:
    """A cohort of MLPs of one shape class: `StackedNet`."""

    def __init__(
        self,
        configs: Sequence[MLPConfig],
        spec: DataSpec,
        parameters: Mapping[str, Tensor],
        buffers: Mapping[str, Tensor],
    ) -> None:
        device = next(iter(parameters.values())).device
        self._n_members = len(configs)
        # Built for its constants and its parameter-free part; its own parameters are not used.
        self._encoder = make_encoder(configs[0], spec).to(device)
        self._parameters = parameters
        self._of_encoder = [parameter for name, parameter in parameters.items() if name.startswith("encoder.")]
        self._encoded_KBD: Tensor | None = None
        """In autograd, where the encoder has parameters; of the last training step."""
        layers = _layers(configs, parameters, buffers)
        tensors = tensors_of(layers, parameters)
        self._net = DenseNet(
            layers,
            [None if tensor is None else tensor.detach() for tensor in tensors],
            [place(tensor) for tensor in tensors],
            StackedDropout([c.dropout for c in configs], [c.width for c in configs], device, n_layers=len(layers) - 1),
            keeps_memory=True,
        )

    def forward(self, inputs: Inputs, generators: Sequence[torch.Generator] | None) -> Tensor:
        x_KBD = self._encode(inputs)
        if generators is not None:
            self._encoded_KBD = x_KBD if x_KBD.requires_grad else None
        x_KDB = x_KBD.detach().to(computed_in(x_KBD)).transpose(1, 2)
        return self._net.forward(x_KDB, generators, training=generators is not None).transpose(1, 2)

    def backward(self, gradient_KBC: Tensor) -> None:
        x_KBD, self._encoded_KBD = self._encoded_KBD, None
        d_x_KDB, _ = self._net.backward(gradient_KBC.transpose(1, 2), to_input=x_KBD is not None)
        if x_KBD is not None and d_x_KDB is not None:
            go_back(x_KBD, d_x_KDB.transpose(1, 2).to(x_KBD.dtype), self._of_encoder)

    def _encode(self, inputs: Inputs) -> Tensor:
        K = self._n_members
        encoder = self._encoder
        if isinstance(encoder, TabularEncoder):
            return self._encode_table(encoder, inputs)
        if isinstance(encoder, ImageEncoder):
            return inputs.x.flatten(-3).expand(K, -1, -1)
        if inputs.x.dim() == 3:
            shared_BD: Tensor = encoder(inputs)
            return shared_BD.expand(K, -1, -1)
        B = inputs.x.shape[1]
        flat = Inputs(inputs.x.flatten(0, 1), None, None if inputs.lengths is None else inputs.lengths.flatten())
        encoded: Tensor = encoder(flat)
        return encoded.view(K, B, -1)

    def _encode_table(self, encoder: TabularEncoder, inputs: Inputs) -> Tensor:
        K, parameters = self._n_members, self._parameters
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


def _layers(
    configs: Sequence[MLPConfig], parameters: Mapping[str, Tensor], buffers: Mapping[str, Tensor]
) -> list[Layer]:
    """`pipeline.models.mlp.Block` by block, and the head."""
    config = configs[0]
    width_K11 = torch.tensor([c.width for c in configs], device=next(iter(parameters.values())).device)[:, None, None]

    def norm(name: str) -> Norm | None:
        match config.norm:
            case "none":
                return None
            case "batch":
                return BatchNorm(name, parameters, buffers)
            case "layer":
                return LayerNorm(name, parameters, width_K11)

    blocks = [
        Layer(
            f"blocks.{i}.linear", config.activation, dropout=True, norm=norm(f"blocks.{i}.norm"),
            residual=config.residual and i > 0,
        )
        for i in range(config.n_layers)
    ]  # fmt: skip
    return [*blocks, Layer("head")]


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
    net=StackedMLP,
)
