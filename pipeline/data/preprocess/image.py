"""Images to tensors: one layout, channels scaled by their training mean and standard deviation."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from pydantic import BaseModel, ConfigDict, Field, FiniteFloat

from pipeline.data.dataset import Features
from pipeline.data.tensors import Inputs
from pipeline.errors import DataError

_CHUNK = 1 << 22
"""Pixels that are held as float64 at once while fitting."""


class ImagePreprocessor(BaseModel):
    """Fitted on training images."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["image"] = "image"
    height: Annotated[int, Field(ge=1, le=16_384)]
    width: Annotated[int, Field(ge=1, le=16_384)]
    mean: Annotated[tuple[FiniteFloat, ...], Field(min_length=1, max_length=4096)]
    """Per channel, in raw pixel values."""
    std: tuple[Annotated[FiniteFloat, Field(gt=0)], ...]

    @property
    def channels(self) -> int:
        return len(self.mean)

    @property
    def schema_of_features(self) -> dict[str, str]:
        return {"image": f"image ({self.channels}, {self.height}, {self.width})"}

    def transform(self, features: Features) -> Inputs:
        """Shape: ``(N, C, H, W)``, ``(N, H, W, C)`` or, with one channel, ``(N, H, W)`` in; x ``(N, C, H, W)`` out.

        Raises:
            DataError: another shape or number of channels, or pixels that are not finite.
        """
        images = self._channels_first(features)
        x = images.astype(np.float32)  # a copy: the raw rows stay as they are
        if images.dtype.kind == "f" and not np.isfinite(x).all():
            raise DataError("images must have finite pixels, but some are NaN or infinite", "fix or remove the images")
        x -= np.array(self.mean, dtype=np.float32)[:, None, None]
        x /= np.array(self.std, dtype=np.float32)[:, None, None]
        return Inputs(torch.from_numpy(x))

    def _channels_first(self, features: Features) -> npt.NDArray[Any]:
        c, h, w = self.channels, self.height, self.width
        if isinstance(features, pd.DataFrame):
            raise DataError("the model needs images, but got a table", f"pass an array (N, {c}, {h}, {w})")
        try:
            images = np.asarray(features)
        except ValueError:
            raise DataError("images must all have the same shape", f"resize them to {h} x {w}") from None
        if images.dtype.kind not in "biuf":
            raise DataError(f"images must be numbers, but got {images.dtype}", "convert them to uint8 or float32")
        if images.shape[1:] == (c, h, w):
            return images
        if images.shape[1:] == (h, w, c):
            return np.ascontiguousarray(images.transpose(0, 3, 1, 2))
        if c == 1 and images.shape[1:] == (h, w):
            return images[:, None]
        raise DataError(f"images must have the shape (N, {c}, {h}, {w}), but got {images.shape}", "resize them")


def fit_image(images: npt.NDArray[Any]) -> ImagePreprocessor:
    """Fit on training images ``(N, C, H, W)``.

    Raises:
        DataError: a pixel is not finite.
    """
    n, channels, height, width = images.shape
    step = max(1, _CHUNK // (channels * height * width))
    chunks = [images[start : start + step] for start in range(0, n, step)]
    pixels = n * height * width
    mean = sum(chunk.sum(axis=(0, 2, 3), dtype=np.float64) for chunk in chunks) / pixels
    if not np.isfinite(mean).all():
        raise DataError("images must have finite pixels, but some are NaN or infinite", "fix or remove the images")
    variance = sum(((chunk - mean[:, None, None]) ** 2).sum(axis=(0, 2, 3)) for chunk in chunks) / pixels
    std = np.sqrt(variance)
    std[std == 0] = 1.0  # a channel of one colour stays 0 after centring
    return ImagePreprocessor(height=height, width=width, mean=tuple(mean.tolist()), std=tuple(std.tolist()))
