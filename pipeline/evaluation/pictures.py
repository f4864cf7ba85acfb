"""Pictures for people: small PNG files in text, and those of the test that the winner is most wrong about.

Axes: N rows, C channels, H height, W width.
"""

from __future__ import annotations

import base64
import io
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from pydantic import BaseModel, ConfigDict
from torch import Tensor

from pipeline.data.dataset import Features
from pipeline.data.spec import DataSpec

LARGEST: Final = 96
"""Of the longer side, in pixels; larger pictures are scaled down."""
MOST: Final = 24


class Picture(BaseModel):
    """One picture and what a model makes of it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    png: str
    """In base64."""
    true: str
    predicted: str
    probability: float | None = None
    """Of the predicted class; None for regression."""


def mistaken(outputs_NC: Tensor, target_N: Tensor, spec: DataSpec, features: Features) -> tuple[Picture, ...]:
    """The pictures whose class is wrong, the surest first; for regression those with the largest errors."""
    if spec.kind != "image" or not isinstance(features, np.ndarray):
        return ()
    words: list[tuple[str, str, float | None]]
    if spec.task == "regression":
        error_N = (outputs_NC[:, 0] - target_N).abs()
        rows = error_N.argsort(descending=True)[:MOST]
        true_N, said_N = (v.double() * spec.target_scale + spec.target_mean for v in (target_N, outputs_NC[:, 0]))
        words = [(f"{true_N[row]:.4g}", f"{said_N[row]:.4g}", None) for row in rows.tolist()]
    else:
        sure_N, said_N = torch.softmax(outputs_NC.double(), 1).max(1)
        wrong = torch.nonzero(said_N != target_N)[:, 0]
        rows = wrong[sure_N[wrong].argsort(descending=True, stable=True)][:MOST]
        names = [str(label) for label in spec.labels]
        words = [(names[target_N[row]], names[said_N[row]], float(sure_N[row])) for row in rows.tolist()]
    pngs = thumbnails(features[rows.numpy()], *limits(features))
    return tuple(
        Picture(png=png, true=true, predicted=predicted, probability=probability)
        for png, (true, predicted, probability) in zip(pngs, words, strict=True)
    )


def limits(images: npt.NDArray[Any]) -> tuple[float, float]:
    """Values that are shown black and white. Bytes may go up to 16, as those of scikit-learn's digits do."""
    return float(images.min()), float(images.max())


def thumbnails(images_NCHW: npt.NDArray[Any], low: float, high: float) -> list[str]:
    """Each image as a small PNG: grey, or in colour where there are three channels."""
    scaled = (images_NCHW.astype(np.float64) - low) / ((high - low) or 1.0) * 255
    shown = np.clip(scaled.round(), 0, 255).astype(np.uint8)
    return [_png(image.transpose(1, 2, 0) if len(image) == 3 else image.mean(0).astype(np.uint8)) for image in shown]


def _png(pixels: npt.NDArray[np.uint8]) -> str:
    picture = Image.fromarray(pixels)
    picture.thumbnail((LARGEST, LARGEST))
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", optimize=True)
    return base64.b64encode(buffer.getvalue()).decode()
