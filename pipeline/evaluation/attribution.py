"""Where a model looks in an image or a sequence: integrated gradients (Sundararajan et al. 2017, arXiv 1703.01365) of
the predicted class from the mean input, by captum, averaged by class.

Axes: N rows, C channels or outputs, H height, W width, T steps, D values a step.
"""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Callable
from typing import Final

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from pydantic import BaseModel, ConfigDict
from torch import Tensor

from pipeline.data.preprocess import ImagePreprocessor, SequencePreprocessor
from pipeline.data.spec import DataSpec
from pipeline.data.tensors import Inputs, Part
from pipeline.evaluation.pictures import thumbnails
from pipeline.models.base import Model

EXTRA: Final = "pip install 'automl-pipeline[explain]'"
MOST_CLASSES: Final = 10
ROWS_A_CLASS: Final = 8
N_STEPS: Final = 32
"""Of the path from the mean input to the row."""
SECONDS: Final = 4.0
"""About so long the gradients may take: rows of each class are left out, one is kept."""
LARGEST: Final = 32
"""Maps are averaged down to so many cells a side."""
BATCH: Final = 128

Map = tuple[tuple[float, ...], ...]
"""Rows of cells; shares of all attribution, in size, that add up to 1. An image has its own form; a sequence a row a
feature and a column a stretch of its steps."""


class Example(BaseModel):
    """One row and where the model looked."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    png: str | None
    """The image, in base64; None for a sequence."""
    true: str
    predicted: str
    map: Map


class Attribution(BaseModel):
    """Where a model looks, class by class."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    n_rows: int
    n_steps: int
    """Of the integration."""
    error: float
    """The integration's error: how far a row's attributions are from adding up to what they explain, as a share of
    it; the median over rows."""
    mean: dict[str, Map]
    """By true class, of all rows for regression."""
    examples: tuple[Example, ...]
    """One row of each class."""
    by_feature: tuple[float, ...] = ()
    """Of a sequence with a few features: each one's share over all rows."""


def has_captum() -> bool:
    return importlib.util.find_spec("captum") is not None


def attribute(
    module: Model, part: Part, preprocessor: ImagePreprocessor | SequencePreprocessor, spec: DataSpec, *, seed: int
) -> Attribution:
    """Attributions of some rows of each class.

    Args:
        module: in evaluation mode, on the CPU.
        part: rows that the module was not fitted on. They are images or sequences.
    """
    rows = _rows(part.target, spec, seed)
    rows = rows[: _affordable(lambda n: _gradients(module, part.inputs.take(rows[:n]), spec), len(rows), spec)]
    inputs, target_N = part.inputs.take(rows), part.target[rows]
    attributions, predicted_N, error = _gradients(module, inputs, spec)
    lengths_N = inputs.lengths
    maps = [
        _shares(attributions[row] if lengths_N is None else attributions[row, : int(lengths_N[row])], spec)
        for row in range(len(rows))
    ]
    names = [str(spec.labels[code]) if spec.labels else "all rows" for code in target_N.tolist()]
    said = _said(predicted_N, spec)
    true = names if spec.labels else _said(target_N, spec)
    pngs = _pngs(inputs, preprocessor)
    firsts = {name: row for row, name in reversed(list(enumerate(names)))}
    order = [str(label) for label in spec.labels] or ["all rows"]
    return Attribution(
        n_rows=len(rows),
        n_steps=N_STEPS,
        error=error,
        mean={
            name: _cells(np.mean([m for m, own in zip(maps, names, strict=True) if own == name], axis=0))
            for name in order
            if name in firsts
        },
        examples=tuple(
            Example(png=pngs[row] if pngs else None, true=true[row], predicted=said[row], map=_cells(maps[row]))
            for row in (sorted(firsts.values()) if spec.labels else range(min(len(rows), ROWS_A_CLASS)))
        ),
        by_feature=tuple(np.mean(maps, axis=0).sum(1).round(4).tolist()) if 1 < spec.n_features <= LARGEST else (),
    )


def _rows(target_N: Tensor, spec: DataSpec, seed: int) -> Tensor:
    """Some rows of each of the commonest classes, one of each class first, then a second, and so on."""
    order = torch.randperm(len(target_N), generator=torch.Generator().manual_seed(seed))
    if not spec.labels:
        return order[: MOST_CLASSES * ROWS_A_CLASS // 2]
    counts = target_N.bincount(minlength=len(spec.labels))
    commonest = counts.argsort(descending=True, stable=True)[:MOST_CLASSES].tolist()
    of_class = [order[target_N[order] == code][:ROWS_A_CLASS].tolist() for code in commonest]
    return torch.tensor([rows[nth] for nth in range(ROWS_A_CLASS) for rows in of_class if nth < len(rows)])


def _affordable(gradients: Callable[[int], object], n_rows: int, spec: DataSpec) -> int:
    """How many rows there is time for, by the time that one takes; a row a class at least."""
    gradients(1)  # what is slow once only
    began = time.perf_counter()
    gradients(min(4, n_rows))
    seconds = (time.perf_counter() - began) / min(4, n_rows)
    return min(n_rows, max(min(len(spec.labels) or 1, MOST_CLASSES), int(SECONDS / max(seconds, 1e-9))))


def _gradients(module: Model, inputs: Inputs, spec: DataSpec) -> tuple[Tensor, Tensor, float]:
    """Integrated gradients like ``inputs.x``, the predicted class or value ``(N,)``, and the integration's error."""
    from captum.attr import IntegratedGradients

    def outputs(x: Tensor, lengths: Tensor | None = None) -> Tensor:
        said: Tensor = module(Inputs(x, lengths=lengths))
        return said.float()

    with torch.no_grad():
        said_NC = outputs(inputs.x, inputs.lengths)
    predicted_N = said_NC.argmax(1) if spec.labels else torch.zeros(len(said_NC), dtype=torch.long)
    more = {} if inputs.lengths is None else {"additional_forward_args": (inputs.lengths,)}
    found, left = IntegratedGradients(outputs).attribute(
        inputs.x,
        baselines=torch.zeros_like(inputs.x),  # the training mean, as inputs are standardised
        target=predicted_N,
        n_steps=N_STEPS,
        internal_batch_size=BATCH,
        return_convergence_delta=True,
        **more,
    )
    whole_N = found.flatten(1).sum(1)
    error = float((left.abs() / whole_N.abs().clamp(min=1e-6)).median())
    return found.detach(), predicted_N if spec.labels else said_NC[:, 0], error


def _shares(attribution: Tensor, spec: DataSpec) -> npt.NDArray[np.float64]:
    """A row's map: ``(C, H, W)`` or ``(T, D)`` of attribution in, cells that add up to 1 out."""
    size = attribution.abs().double()
    plane = size.sum(0) if spec.kind == "image" else size.T
    n_rows, n_columns = plane.shape
    # Cells are sums of what falls into them, so that nothing is lost in the averaging down.
    shape = min(n_rows, LARGEST), min(n_columns, LARGEST) if spec.kind == "image" else min(spec.n_steps, LARGEST)
    cells = F.adaptive_avg_pool2d(plane[None], shape)[0]
    shares: npt.NDArray[np.float64] = (cells / cells.sum().clamp(min=1e-12)).numpy()
    return shares


def _cells(plane: npt.NDArray[np.float64]) -> Map:
    return tuple(tuple(row) for row in plane.round(5).tolist())


def _said(values_N: Tensor, spec: DataSpec) -> list[str]:
    if spec.labels:
        return [str(spec.labels[code]) for code in values_N.tolist()]
    return [f"{value * spec.target_scale + spec.target_mean:.4g}" for value in values_N.tolist()]


def _pngs(inputs: Inputs, preprocessor: ImagePreprocessor | SequencePreprocessor) -> list[str]:
    if isinstance(preprocessor, SequencePreprocessor):
        return []
    mean, std = (np.array(v, dtype=np.float64)[:, None, None] for v in (preprocessor.mean, preprocessor.std))
    images = inputs.x.numpy() * std + mean
    return thumbnails(images, min(0.0, float(images.min())), float(images.max()))
