"""The stored rows of a package: the last proof that a loaded model is the one that was stored."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import torch
from torch import Tensor

from pipeline.data.spec import DataSpec
from pipeline.data.tensors import Inputs
from pipeline.errors import PackageError
from pipeline.packaging.contents import MAX_PROBE_ROWS
from pipeline.packaging.predictor import Predictor

TOLERANCE: Final = 1e-4
"""Absolute and relative. Another CPU's order of additions moves float32 outputs by about 1e-6."""


def check_probe(path: Path, tensors: dict[str, Tensor], predictor: Predictor) -> None:
    """The model gives its stored outputs again for its stored rows.

    Args:
        path: of the probe, for messages.

    Raises:
        PackageError: it does not, or the rows are none of its data's.
    """
    _check_rows(path, tensors, predictor.spec)
    expected = tensors["outputs"]
    inputs = Inputs(*(tensors.get(name) for name in Inputs._fields))  # type: ignore[arg-type]
    try:
        outputs = predictor.logits(inputs)
    except (RuntimeError, IndexError, ValueError) as error:
        reason = " ".join(str(error).split())[:300]
        raise PackageError(f"{path}: the model cannot read its stored rows: {reason}") from error
    if outputs.shape != expected.shape or not torch.allclose(outputs, expected, rtol=TOLERANCE, atol=TOLERANCE):
        raise PackageError(f"{path}: the loaded model does not reproduce its stored outputs within {TOLERANCE:g}")


def _check_rows(path: Path, tensors: dict[str, Tensor], spec: DataSpec) -> None:
    """The stored rows are prepared rows of this data, so that the module is only ever given what it expects."""
    if "outputs" not in tensors or tensors["outputs"].ndim != 2 or not 1 <= len(tensors["outputs"]) <= MAX_PROBE_ROWS:
        raise PackageError(f"{path}: must hold outputs of 1 to {MAX_PROBE_ROWS} rows")
    n = len(tensors["outputs"])
    axes: dict[str, tuple[int | None, ...]] = {"outputs": (n, spec.n_outputs)}
    match spec.kind:
        case "tabular":
            axes["x"] = (n, spec.n_numeric)
        case "image":
            axes["x"] = (n, spec.channels, spec.height, spec.width)
        case "sequence" | "forecast":
            axes |= {"x": (n, None, spec.n_features), "lengths": (n,)}
        case "text":
            axes |= {"x": (n, None), "lengths": (n,)}
    if spec.cardinalities:
        axes["categories"] = (n, len(spec.cardinalities))
    if tensors.keys() != axes.keys():
        raise PackageError(f"{path}: must hold {', '.join(sorted(axes))} and nothing else")
    for name, sizes in axes.items():
        tensor = tensors[name]
        dtype = torch.int64 if name in {"categories", "lengths"} else torch.float32
        if name == "x" and spec.kind == "text":
            dtype = torch.int32
        fits = tensor.ndim == len(sizes) and all(
            want in (None, have) for want, have in zip(sizes, tensor.shape, strict=True)
        )
        if not fits or tensor.dtype != dtype:
            raise PackageError(f"{path}: {name!r} must be {dtype} {sizes}, but is {tensor.dtype} {tuple(tensor.shape)}")
    bounds = {
        "categories": (0, torch.tensor(spec.cardinalities) - 1),
        "lengths": (1, torch.tensor(tensors["x"].shape[1])),
    }
    if spec.kind == "text":
        bounds["x"] = (0, torch.tensor(spec.n_tokens - 1))
    for name, (low, high) in bounds.items():
        if name in tensors and not ((tensors[name] >= low) & (tensors[name] <= high)).all():
            raise PackageError(f"{path}: {name!r} has values that the data cannot have")
