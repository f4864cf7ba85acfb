"""Recurrent networks (LSTM or GRU) for sequences and, row by row, for images.

::

    steps -> [Linear, ReLU] -> recurrent layers (one or both directions) -> last | mean | max over valid steps
          -> dropout -> Linear -> (B, n_outputs)

Axes: B rows, T steps, D values a step.

Padding comes after the valid steps, so going ahead in time never sees it before the last valid one; going back starts
at each row's own last step. Padding is then simply not pooled. Packed sequences do the same and were 4 to 6 times
slower (forward and backward of one layer, 64 units, batch 64, one Zen 3 core, torch 2.13: 7.0 against 1.8 ms for 29
steps, 39 against 6.3 ms for 100), because oneDNN's fused kernels take dense batches only.
"""

from __future__ import annotations

from typing import Annotated, Final, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from pipeline.data.spec import DataSpec
from pipeline.data.tensors import Inputs
from pipeline.models.base import Family, Model, ModelConfig
from pipeline.models.dropout import Dropout
from pipeline.models.layers import init_head, init_linear, unequal
from pipeline.models.tokens import TokenEmbedding

Cell = Literal["lstm", "gru"]


class LSTMConfig(ModelConfig):
    """Architecture of a recurrent network."""

    cell: Cell = "lstm"
    d_hidden: Annotated[int, Field(ge=1, le=2048)] = 64
    """Units of a layer, each direction."""
    n_layers: Annotated[int, Field(ge=1, le=8)] = 1
    bidirectional: bool = True
    pooling: Literal["last", "mean", "max"] = "last"
    """How the steps of the top layer become one vector. ``last`` is each direction's own last step."""
    d_projection: Annotated[int, Field(ge=0, le=2048)] = 0
    """Width of a linear layer with ReLU that every step passes first; 0 has none."""
    dropout: Annotated[float, Field(ge=0, le=0.9)] = 0.1
    """Between layers and before the output layer; of texts on the words too."""
    d_embedding: Annotated[int, Field(ge=1, le=1024)] = 64
    """Of texts: width of a word's vector."""


class LSTM(Model):
    """Module of `LSTMConfig`. An image is read from top to bottom: H steps of C * W values."""

    def __init__(self, config: LSTMConfig, spec: DataSpec) -> None:
        super().__init__()
        self.image = spec.kind == "image"
        self.config = config
        d_in = spec.channels * spec.width if self.image else spec.n_features
        self.embedding: TokenEmbedding | None = None
        if spec.kind == "text":
            self.embedding = TokenEmbedding(spec, config.d_embedding, config.dropout)
            d_in = config.d_embedding
        self.projection = nn.Sequential()
        if config.d_projection:
            projection = nn.Linear(d_in, config.d_projection)
            init_linear(projection, "relu")
            self.projection = nn.Sequential(projection, nn.ReLU())
            d_in = config.d_projection
        d_out = config.d_hidden * (2 if config.bidirectional else 1)
        widths = [d_in] + [d_out] * (config.n_layers - 1)
        self.layers = nn.ModuleList(RecurrentLayer(d, config) for d in widths)
        self.dropout = Dropout(config.dropout)
        self.head = nn.Linear(d_out, spec.n_outputs)
        init_head(self.head)

    def forward(self, inputs: Inputs) -> Tensor:
        inputs = inputs if self.embedding is None else self.embedding(inputs)
        x_BTD = inputs.x.permute(0, 2, 1, 3).flatten(2) if self.image else inputs.x
        B, T, _ = x_BTD.shape
        lengths_B = unequal(inputs.lengths, T)
        valid_BT = None
        last_B = torch.full((B,), T - 1, device=x_BTD.device)
        if lengths_B is not None:
            last_B = lengths_B.to(x_BTD.device) - 1
            valid_BT = torch.arange(T, device=x_BTD.device) <= last_B[:, None]
        x_BTD = self.projection(x_BTD)
        for i, layer in enumerate(self.layers):
            x_BTD = layer(self.dropout(x_BTD) if i else x_BTD, last_B)
        logits: Tensor = self.head(self.dropout(pooled(x_BTD, valid_BT, last_B, self.config)))
        return logits


def pooled(x_BTD: Tensor, valid_BT: Tensor | None, last_B: Tensor, config: LSTMConfig) -> Tensor:
    """The steps of the top layer as one vector a row, ``(B, D)``.

    Args:
        valid_BT: which steps are data; None where all are.
        last_B: each row's last step.
    """
    match config.pooling:
        case "last":
            # A slice's gradient is a copy, that of picked steps is added up one by one.
            rows = torch.arange(len(x_BTD), device=x_BTD.device)
            ahead_BD = x_BTD[:, -1] if valid_BT is None else x_BTD[rows, last_B]
            if not config.bidirectional:  # even of no values at all the gradient would be zeros for all steps
                return ahead_BD
            return torch.cat([ahead_BD[:, : config.d_hidden], x_BTD[:, 0, config.d_hidden :]], dim=1)
        case "mean":
            if valid_BT is None:
                return x_BTD.mean(1)
            return x_BTD.masked_fill(~valid_BT[:, :, None], 0).sum(1) / (last_B + 1)[:, None]
        case "max":
            if valid_BT is not None:
                x_BTD = x_BTD.masked_fill(~valid_BT[:, :, None], torch.finfo(x_BTD.dtype).min)
            return x_BTD.amax(1)


class RecurrentLayer(nn.Module):
    """One recurrent layer, ahead in time and, if bidirectional, back from each row's own last step."""

    def __init__(self, d_in: int, config: LSTMConfig) -> None:
        super().__init__()
        cell = nn.LSTM if config.cell == "lstm" else nn.GRU
        self.ahead = cell(d_in, config.d_hidden, batch_first=True)
        _init_recurrent(self.ahead)
        self.back: nn.LSTM | nn.GRU | None = None
        if config.bidirectional:
            self.back = cell(d_in, config.d_hidden, batch_first=True)
            _init_recurrent(self.back)

    def forward(self, x_BTD: Tensor, last_B: Tensor) -> Tensor:
        """Shape: ``(B, T, D)`` with the last valid step of each row -> ``(B, T, d_hidden * directions)``."""
        ahead_BTD: Tensor = self.ahead(x_BTD)[0]
        if self.back is None:
            return ahead_BTD
        mirrored_BT = mirrored(last_B, x_BTD.shape[1])
        back_BTD: Tensor = _steps(self.back(_steps(x_BTD, mirrored_BT))[0], mirrored_BT)
        return torch.cat([ahead_BTD, back_BTD], dim=2)


def mirrored(last: Tensor, n_steps: int) -> Tensor:
    """Steps in the order that puts each row's last one first, ``(…, T)``. Valid steps change places within their row;
    done twice, it is undone. What is put at padding does not matter."""
    return (last[..., None] - torch.arange(n_steps, device=last.device)).clamp(min=0)


def _steps(x_BTD: Tensor, steps_BT: Tensor) -> Tensor:
    """Each row's steps in the given order."""
    return x_BTD.gather(1, steps_BT[:, :, None].expand(-1, -1, x_BTD.shape[2]))


def _init_recurrent(layer: nn.LSTM | nn.GRU) -> None:
    """Orthogonal recurrent weights (Saxe et al., arXiv 1312.6120) and Glorot-uniform input weights, gate by gate; zero
    biases, but 1 for an LSTM's forget gate (Jozefowicz et al., ICML 2015)."""
    n_gates, d_hidden = 4 if isinstance(layer, nn.LSTM) else 3, layer.hidden_size
    for weight in layer.get_parameter("weight_ih_l0").chunk(n_gates):
        nn.init.xavier_uniform_(weight)
    for weight in layer.get_parameter("weight_hh_l0").chunk(n_gates):
        nn.init.orthogonal_(weight)
    bias = layer.get_parameter("bias_ih_l0")
    nn.init.zeros_(bias)
    nn.init.zeros_(layer.get_parameter("bias_hh_l0"))
    if isinstance(layer, nn.LSTM):
        nn.init.ones_(bias[d_hidden : 2 * d_hidden])  # torch's order of gates: input, forget, cell, output


def default(spec: DataSpec) -> LSTMConfig:
    """What is tried first on a data set: both directions, read at their last steps (digits row by row: 0.986 of 287
    validation images right after 15 epochs, against 0.958 with the mean)."""
    if spec.kind == "text":
        return LSTMConfig(d_hidden=64, pooling="max", dropout=0.3)
    return LSTMConfig(d_hidden=128 if spec.n_train >= 5_000 else 64)


FAMILY: Final = Family(
    name="lstm",
    kinds=frozenset({"sequence", "image", "text", "forecast"}),
    config=LSTMConfig,
    build=LSTM,
    default=default,
)
