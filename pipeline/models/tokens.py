"""Codes of words to vectors. Axes: B rows, T steps, D values a step."""

from __future__ import annotations

from typing import Final

from torch import Tensor, nn

from pipeline.data.spec import DataSpec
from pipeline.data.tensors import Inputs
from pipeline.models.dropout import Dropout

INIT_STD: Final = 0.1
"""Of a word's first vector: small enough for a few epochs of AdamW to turn it round."""


class TokenEmbedding(nn.Module):
    """A vector for every word; padding is 0 and stays so.

    A batch is read to the end of its longest text: batches of short texts cost less (`bucketed` makes them), and on a
    GPU the host waits once a batch to know how long.
    """

    def __init__(self, spec: DataSpec, width: int, dropout: float) -> None:
        super().__init__()
        self.table = nn.Embedding(spec.n_tokens, width, padding_idx=0)
        nn.init.normal_(self.table.weight, std=INIT_STD)
        self.table.weight.data[0] = 0
        self.dropout = Dropout(dropout)

    def forward(self, inputs: Inputs) -> Inputs:
        """x ``(B, T)`` codes -> ``(B, longest, D)``, with the same lengths."""
        assert inputs.lengths is not None, "texts come with lengths"
        codes_BT = inputs.x[:, : int(inputs.lengths.max())]
        x_BTD: Tensor = self.dropout(self.table(codes_BT))
        return Inputs(x_BTD, None, inputs.lengths)
