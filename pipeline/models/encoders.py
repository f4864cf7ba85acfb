"""What an MLP reads of a row: every kind of data as one vector.

Axes: B rows, T steps, F numeric columns, N bins, J categorical columns, D values a row.
"""

from __future__ import annotations

from itertools import accumulate, pairwise
from typing import Final, Protocol

import torch
from torch import Tensor, nn

from pipeline.data.spec import DataSpec
from pipeline.data.tensors import Inputs
from pipeline.models.tokens import TokenEmbedding


class Encoding(Protocol):
    """The choices of `pipeline.models.mlp.MLPConfig` that encoders read."""

    @property
    def scaling(self) -> str: ...
    @property
    def n_bins(self) -> int: ...
    @property
    def d_numeric_embedding(self) -> int: ...
    @property
    def d_embedding(self) -> int: ...
    @property
    def dropout(self) -> float: ...


class Encoder(nn.Module):
    """From `Inputs` to one vector a row, ``(B, d_out)``."""

    d_out: int


class TabularEncoder(Encoder):
    """Numeric columns, plain or in bins, next to embedded categories."""

    def __init__(self, config: Encoding, spec: DataSpec) -> None:
        super().__init__()
        d_numeric = d_categorical = 0
        if spec.n_numeric:
            self.numeric = NumericEncoder(config, spec)
            d_numeric = self.numeric.d_out
        if spec.cardinalities:
            self.categorical = CategoricalEncoder(config, spec)
            d_categorical = self.categorical.d_out
        self.d_out = d_numeric + d_categorical

    def forward(self, inputs: Inputs) -> Tensor:
        parts = [self.numeric(inputs.x)] if hasattr(self, "numeric") else []
        if hasattr(self, "categorical"):
            assert inputs.categories is not None, "data with categorical columns comes with categories"
            parts.append(self.categorical(inputs.categories))
        return parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)


class NumericEncoder(nn.Module):
    """Piecewise-linear encoding of Gorishniy et al. (arXiv 2203.05556, equation 1) beside the plain value.

    Bin n of a column is how far the value has come through that quantile bin: 0 before it, 1 after it. Their encoding
    goes on linearly outside the outer edges; here it is clamped and the plain value says what lies outside, so that an
    extreme value reaches the network once and not also through the steepest bin.
    """

    def __init__(self, config: Encoding, spec: DataSpec) -> None:
        super().__init__()
        edges = [_thinned(column, config.n_bins) for column in spec.bins] if config.n_bins else []
        n_bins = max((len(column) - 1 for column in edges if column), default=0)
        left_FN = torch.zeros(spec.n_numeric, n_bins)
        per_width_FN = torch.zeros(spec.n_numeric, n_bins)  # a bin that a column does not have stays 0
        for f, column in enumerate(edges):
            if not column:
                continue
            left_FN[f, : len(column) - 1] = torch.tensor(column[:-1], dtype=torch.float64)
            per_width = [1 / (right - left) for left, right in pairwise(column)]
            per_width_FN[f, : len(column) - 1] = torch.tensor(per_width, dtype=torch.float64)
        self.left_FN: Tensor
        self.per_width_FN: Tensor
        # A pure function of config and spec: not stored with the weights.
        self.register_buffer("left_FN", left_FN, persistent=False)
        self.register_buffer("per_width_FN", per_width_FN, persistent=False)
        self.own_scale = OwnScale(spec) if config.scaling == "robust" else None
        d_in, d_embedding = 1 + n_bins, config.d_numeric_embedding
        self.d_out = spec.n_numeric * (d_embedding or d_in)
        if d_embedding:
            self.weight_FND = nn.Parameter(torch.empty(spec.n_numeric, d_in, d_embedding))
            nn.init.normal_(self.weight_FND, std=(2 / d_in) ** 0.5)
            self.bias_FD = nn.Parameter(torch.zeros(spec.n_numeric, d_embedding))

    def bins(self, x_BF: Tensor) -> Tensor:
        """The plain value and its bins, ``(B, F, 1 + N)``: no parameter is in it."""
        x_BF1 = x_BF[:, :, None]
        plain_BF1 = x_BF1 if self.own_scale is None else self.own_scale(x_BF)[:, :, None]
        if not self.left_FN.shape[1]:
            return plain_BF1
        return torch.cat([plain_BF1, ((x_BF1 - self.left_FN) * self.per_width_FN).clamp(0, 1)], dim=2)

    def forward(self, x_BF: Tensor) -> Tensor:
        x_BFN = self.bins(x_BF)
        if hasattr(self, "weight_FND"):
            x_BFN = torch.relu(torch.einsum("bfn,fnd->bfd", x_BFN, self.weight_FND) + self.bias_FD)
        return x_BFN.flatten(1)


CLIP: Final = 3.0
"""Where far values end up, in distances between the quartiles."""


class OwnScale(nn.Module):
    """From a column's normal scores back to its own scale: less the median, over the distance of the quartiles, and far
    values drawn in smoothly (robust scaling with smooth clipping, RealMLP, arXiv 2407.04491).

    The scores come from the ranks among the training quantiles by linear interpolation, so going back the same way is
    exact within the training range; what lies outside has been brought to its ends. So one prepared table serves both
    scalings. Columns that are no measured numbers stay as they are.
    """

    def __init__(self, spec: DataSpec) -> None:
        super().__init__()
        scales = spec.scales or ((),) * spec.n_numeric
        knots_FQ = torch.zeros(len(scales), max([2, *map(len, scales)]))
        for f, knots in enumerate(scales):
            knots_FQ[f, : len(knots)] = torch.tensor(knots, dtype=torch.float64)
        self.knots: Tensor
        self.start_F: Tensor
        self.last_F: Tensor
        # Pure functions of the spec: not stored with the weights.
        self.register_buffer("knots", knots_FQ.flatten(), persistent=False)
        self.register_buffer("start_F", torch.arange(len(scales)) * knots_FQ.shape[1], persistent=False)
        self.register_buffer("last_F", torch.tensor([len(knots) - 1 for knots in scales]), persistent=False)

    def forward(self, x_BF: Tensor) -> Tensor:
        place_BF = 0.5 * (1 + torch.erf(x_BF * 0.5**0.5)) * self.last_F
        left_BF = torch.minimum(place_BF.long(), self.last_F - 1).clamp(min=0)
        low_BF, high_BF = (self.knots[self.start_F + left_BF + step] for step in (0, 1))
        own_BF = low_BF + (place_BF - left_BF) * (high_BF - low_BF)
        return torch.where(self.last_F > 0, own_BF * (1 + (own_BF / CLIP).square()).rsqrt(), x_BF)


def _thinned(edges: tuple[float, ...], n_bins: int) -> tuple[float, ...]:
    """At most ``n_bins + 1`` different edges, evenly spaced in rank, with the outer ones; none of a constant column."""
    distinct = sorted(set(edges))
    n = min(n_bins, len(distinct) - 1)
    return tuple(distinct[round(i * (len(distinct) - 1) / n)] for i in range(n + 1)) if n > 0 else ()


class CategoricalEncoder(nn.Module):
    """One table for the levels of all columns: a single lookup and a single parameter, however many columns.

    Width: fastai's rule ``min(600, 1.6 cardinality^0.56)`` for the column with the most levels (fastai
    ``tabular/model.py``, `emb_sz_rule`), at most `MLPConfig.d_embedding`.
    """

    def __init__(self, config: Encoding, spec: DataSpec) -> None:
        super().__init__()
        d_embedding = min(config.d_embedding, round(1.6 * max(spec.cardinalities) ** 0.56))
        offsets_J = torch.tensor(list(accumulate(spec.cardinalities[:-1], initial=0)))
        self.offsets_J: Tensor
        self.register_buffer("offsets_J", offsets_J, persistent=False)
        self.table = nn.Embedding(sum(spec.cardinalities), d_embedding)
        self.d_out = len(spec.cardinalities) * d_embedding
        with torch.no_grad():
            self.table.weight.uniform_(-(d_embedding**-0.5), d_embedding**-0.5)  # as in rtdl_revisiting_models
            # Code 0 (missing or never seen) may not occur in training: it must not speak with random weights.
            self.table.weight[offsets_J] = 0

    def forward(self, categories_BJ: Tensor) -> Tensor:
        embedded_BJD: Tensor = self.table(categories_BJ + self.offsets_J)
        return embedded_BJD.flatten(1)


class ImageEncoder(Encoder):
    """All pixels of all channels in a row."""

    def __init__(self, spec: DataSpec) -> None:
        super().__init__()
        self.d_out = spec.channels * spec.height * spec.width

    def forward(self, inputs: Inputs) -> Tensor:
        return inputs.x.flatten(1)


class SequenceEncoder(Encoder):
    """The first `n_steps` steps in a row, zero where a sequence is shorter."""

    def __init__(self, spec: DataSpec) -> None:
        super().__init__()
        self.n_steps = spec.n_steps
        self.d_out = spec.n_steps * spec.n_features

    def forward(self, inputs: Inputs) -> Tensor:
        x_BTD = inputs.x[:, : self.n_steps]
        x_BTD = nn.functional.pad(x_BTD, (0, 0, 0, self.n_steps - x_BTD.shape[1]))
        return x_BTD.flatten(1)


class TextEncoder(Encoder):
    """The mean of the words' vectors (fastText, arXiv 1607.01759)."""

    def __init__(self, config: Encoding, spec: DataSpec) -> None:
        super().__init__()
        self.embedding = TokenEmbedding(spec, config.d_embedding, config.dropout)
        self.d_out = config.d_embedding

    def forward(self, inputs: Inputs) -> Tensor:
        words = self.embedding(inputs)
        x_BD: Tensor = words.x.sum(1) / words.lengths.to(words.x.device)[:, None]  # padding is 0
        return x_BD


def make_encoder(config: Encoding, spec: DataSpec) -> Encoder:
    """The encoder of the spec's kind of data."""
    match spec.kind:
        case "tabular":
            return TabularEncoder(config, spec)
        case "image":
            return ImageEncoder(spec)
        case "sequence" | "forecast":
            return SequenceEncoder(spec)
        case "text":
            return TextEncoder(config, spec)


MAX_ENCODED: Final = 2**14
"""Values that the numeric columns of one row may become in defaults and searches: wide data gets fewer bins."""


def most_bins(spec: DataSpec) -> int:
    """Bins a numeric column can usefully have: what the data offers, less for many columns; 0 where there are none."""
    offered = max((len(set(edges)) - 1 for edges in spec.bins), default=0)
    if _mostly_without_bins(spec):
        return 0
    return max(0, min(offered, MAX_ENCODED // max(1, spec.n_numeric) - 1))


def most_embedding(spec: DataSpec) -> int:
    """Width that `MLPConfig.d_numeric_embedding` can usefully have here."""
    if spec.n_numeric == 0 or _mostly_without_bins(spec):
        return 0
    return MAX_ENCODED // spec.n_numeric


def _mostly_without_bins(spec: DataSpec) -> bool:
    """Whether most columns are hashed words, say: encoding them all would be a thousand times the work for a few."""
    return 2 * sum(len(set(edges)) < 2 for edges in spec.bins) > spec.n_numeric
