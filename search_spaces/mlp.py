"""The space of MLPs."""

from __future__ import annotations

from typing import Any

from pipeline.data.spec import DataSpec
from pipeline.models.encoders import most_bins, most_embedding
from pipeline.models.mlp import MLPConfig
from search_spaces.suggester import Suggester

SMALL_TRAIN = 5_000
"""Below so many training rows a wide network only takes longer to overfit."""
MAX_BINS = 64


def suggest_mlp(s: Suggester, spec: DataSpec) -> MLPConfig:
    """Depth, width and dropout within the spaces of Gorishniy et al. (arXiv 2106.11959: 1 to 8 layers of up to 512
    units, dropout 0 to 0.5), bins within that of their piecewise-linear encoding (arXiv 2203.05556: up to 256), numeric
    embeddings as wide as in TabM (arXiv 2410.24210: 8 to 32). Normal scores are the first paper's scaling, robust
    scaling with smooth clipping is RealMLP's (arXiv 2407.04491)."""
    wide = spec.n_train >= SMALL_TRAIN
    tabular: dict[str, Any] = {}
    if spec.kind == "tabular":
        if any(spec.scales):
            tabular["scaling"] = s.choice("mlp.scaling", ("quantile", "robust"))
        if most_bins(spec):
            tabular["n_bins"] = s.integer("mlp.n_bins", 0, min(MAX_BINS, most_bins(spec)))
        widths = tuple(d for d in (0, 8, 16, 32) if d <= most_embedding(spec))
        if len(widths) > 1:
            tabular["d_numeric_embedding"] = s.choice("mlp.d_numeric_embedding", widths)
        if spec.cardinalities:
            tabular["d_embedding"] = s.integer("mlp.d_embedding", 2, 64, log=True)
    if spec.kind == "text":
        tabular["d_embedding"] = s.choice("mlp.d_embedding", (32, 64, 128, 256))
    return MLPConfig(
        n_layers=s.integer("mlp.n_layers", 1, 6),
        width=s.integer("mlp.width", 16, 512 if wide else 256, log=True),
        activation=s.choice("mlp.activation", ("relu", "gelu", "silu", "tanh")),
        norm=s.choice("mlp.norm", ("none", "batch", "layer")),
        dropout=s.number("mlp.dropout", 0.0, 0.5),
        residual=s.choice("mlp.residual", (False, True)),
        **tabular,
    )
