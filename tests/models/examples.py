"""One small data set of every kind, and batches of it."""

from __future__ import annotations

import torch

from pipeline.data.spec import DataSpec, Kind
from pipeline.data.tensors import Inputs, Part

N_STEPS = 9

SPECS: dict[Kind, DataSpec] = {
    "tabular": DataSpec(
        kind="tabular", task="multiclass", labels=("a", "b", "c"), n_numeric=4, cardinalities=(3, 7),
        bins=((-2.0, -1.0, 0.0, 1.0, 2.0), (-2.0, 2.0), (0.0,), (-2.0, 0.0, 0.5, 2.0)),
        scales=((-1.0, 0.0, 4.0), (-1.0, 1.0), (), (-9.0, -0.5, 0.5, 9.0)), n_train=1_000, n_validation=200,
    ),
    "image": DataSpec(
        kind="image", task="multiclass", labels=("a", "b", "c"), channels=2, height=12, width=9,
        n_train=1_000, n_validation=200,
    ),
    "sequence": DataSpec(
        kind="sequence", task="multiclass", labels=("a", "b", "c"), n_steps=N_STEPS, n_features=3,
        n_train=1_000, n_validation=200,
    ),
    "forecast": DataSpec(
        kind="forecast", task="forecast", n_steps=N_STEPS, n_features=3, horizon=3, season=2, naive_error=0.5,
        n_train=1_000, n_validation=200,
    ),
    "text": DataSpec(
        kind="text", task="multiclass", labels=("a", "b", "c"), n_steps=N_STEPS, n_tokens=30,
        n_train=1_000, n_validation=200,
    ),
}  # fmt: skip


def regression(spec: DataSpec) -> DataSpec:
    """The same inputs with a number to predict."""
    return spec.model_copy(update={"task": "regression", "labels": (), "horizon": 0, "season": 0})


def make_batch(spec: DataSpec, n: int = 16, seed: int = 0) -> Part:
    """Random rows; sequences have lengths from 1 to the longest and are zero-padded."""
    g = torch.Generator().manual_seed(seed)
    if spec.is_quantity:
        target = torch.randn(n, spec.n_outputs, generator=g).squeeze(1)
    else:
        target = torch.randint(len(spec.labels), (n,), generator=g)
    match spec.kind:
        case "tabular":
            columns = [torch.randint(c, (n,), generator=g) for c in spec.cardinalities]
            categories = torch.stack(columns, 1) if columns else None
            return Part(Inputs(torch.randn(n, spec.n_numeric, generator=g), categories), target)
        case "image":
            return Part(Inputs(torch.randn(n, spec.channels, spec.height, spec.width, generator=g)), target)
        case "sequence":
            lengths = torch.randint(1, spec.n_steps + 1, (n,), generator=g)
            lengths[0] = spec.n_steps
            x = torch.randn(n, spec.n_steps, spec.n_features, generator=g)
            x[torch.arange(spec.n_steps) >= lengths[:, None]] = 0
            return Part(Inputs(x, None, lengths), target)
        case "forecast":
            lengths = torch.full((n,), spec.n_steps)
            return Part(Inputs(torch.randn(n, spec.n_steps, spec.n_features, generator=g), None, lengths), target)
        case "text":
            lengths = torch.randint(1, spec.n_steps + 1, (n,), generator=g)
            lengths[0] = spec.n_steps
            codes = torch.randint(1, spec.n_tokens, (n, spec.n_steps), generator=g, dtype=torch.int32)
            codes[torch.arange(spec.n_steps) >= lengths[:, None]] = 0
            return Part(Inputs(codes, None, lengths), target)
