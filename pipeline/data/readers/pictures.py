"""Image files of any size and mode, brought to one array: Pillow decodes, and every conversion is said."""

from __future__ import annotations

import io
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, UnidentifiedImageError

from pipeline.data.findings import Finding
from pipeline.data.readers.request import check_size
from pipeline.errors import DataError

FORMATS: Final = ("PNG", "JPEG", "BMP", "GIF", "WEBP", "TIFF", "PPM")
SUFFIXES: Final = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm", ".pbm"})
MAX_PIXELS: Final = 100_000_000
"""Of one image: more is a decompression bomb, or nothing that a small network should be given as it is."""
LARGEST_KEPT: Final = 256
"""Images of one size keep it up to this many pixels a side."""
LARGEST_MADE: Final = 128
"""Images of several sizes, or of a larger one, become at most so many pixels a side."""
_GREY: Final = frozenset({"1", "L", "LA", "La", "I", "I;16", "I;16B", "I;16L", "I;16N"})
_UNREADABLE: Final = (
    OSError, ValueError, SyntaxError, UnidentifiedImageError, Image.DecompressionBombError, EOFError, IndexError,
)  # fmt: skip
"""What Pillow raises for files that are damaged, no images, or bombs."""

Size = tuple[int, int]
"""Width and height."""


@dataclass(frozen=True, slots=True)
class Picture:
    """One image file, or its bytes, and its name for messages."""

    name: str
    content: Path | bytes


@dataclass(frozen=True, slots=True)
class Decoded:
    """Images ``(N, C, H, W)`` of uint8, and which of the pictures they are."""

    images: npt.NDArray[np.uint8]
    kept: list[int]
    findings: tuple[Finding, ...]


def decode(
    pictures: Sequence[Picture], where: Path, shape: tuple[int, ...] | None = None, *, strict: bool = False
) -> Decoded:
    """Decode pictures into one array; what is no image is left out, which is a finding.

    Grey in all of them gives one channel, else three. Transparent pixels become white, the first frame of an animation
    is taken, 16 bits become 8, and an orientation in the file's EXIF data is applied. Unequal sizes are padded to the
    median one with their proportions kept.

    Args:
        where: the source, for messages.
        shape: ``(C, H, W)`` that a model or a training part has settled.
        strict: refuse the first picture that cannot be read instead of leaving it out.

    Raises:
        DataError: no picture is left, there are more values than a data set may have, or `strict`.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's about damaged metadata, and about sizes below our own bound
        return _decode(pictures, where, shape, strict)


def _decode(pictures: Sequence[Picture], where: Path, shape: tuple[int, ...] | None, strict: bool) -> Decoded:
    looks = [_look(picture) for picture in pictures]
    bad = {i: look for i, look in enumerate(looks) if isinstance(look, str)}
    good = {i: look for i, look in enumerate(looks) if not isinstance(look, str)}
    if bad and (strict or not good):
        first = next(iter(bad))
        raise DataError(
            f"{len(bad)} of {len(pictures)} files are no readable images, first {pictures[first].name} ({bad[first]})",
            "remove or replace them",
            file=where,
        )
    if not good:
        raise DataError("there are no images", "give it png or jpeg files", file=where)
    sizes, is_grey = [size for size, _ in good.values()], all(grey for _, grey in good.values())
    channels, size = (1 if is_grey else 3, _common(sizes)) if shape is None else (shape[0], (shape[2], shape[1]))
    check_size(len(good) * channels * size[0] * size[1], where)
    images = np.empty((len(good), channels, size[1], size[0]), dtype=np.uint8)
    kept: list[int] = []
    for i in good:
        pixels = _pixels(pictures[i], channels, size)
        if isinstance(pixels, str):
            bad[i] = pixels
            if strict:
                raise DataError(f"{pictures[i].name} is no readable image ({pixels})", "replace it", file=where)
            continue
        images[len(kept)] = pixels
        kept.append(i)
    if not kept:
        raise DataError("no image can be decoded", "replace them", file=where)
    return Decoded(images[: len(kept)], kept, tuple(_findings(pictures, bad, good, channels, size, where)))


def _look(picture: Picture) -> tuple[Size, bool] | str:
    """Size after rotation and whether it is grey, without decoding; the reason where it is no image."""
    try:
        with _opened(picture) as image:
            turned = image.getexif().get(0x0112, 1) in {5, 6, 7, 8}
            width, height = image.size
            return (height, width) if turned else (width, height), image.mode in _GREY
    except _UNREADABLE as error:
        return _reason(error)


def _pixels(picture: Picture, channels: int, size: Size) -> npt.NDArray[Any] | str:
    """``(C, H, W)``; the reason where it cannot be decoded."""
    try:
        with _opened(picture) as image:
            if max(image.size) > 2 * max(size):
                image.draft(image.mode, (2 * size[0], 2 * size[1]))  # JPEG can be decoded at a fraction of its size
            flat = _flattened(ImageOps.exif_transpose(image)).convert("L" if channels == 1 else "RGB")
            if flat.size != size:
                flat = ImageOps.pad(flat, size, Image.Resampling.BILINEAR)
            return np.asarray(flat).reshape(size[1], size[0], channels).transpose(2, 0, 1)
    except _UNREADABLE as error:
        return _reason(error)


def _opened(picture: Picture) -> Image.Image:
    """Raises one of `_UNREADABLE` for what is no image or too large; nothing is decoded yet."""
    file = io.BytesIO(picture.content) if isinstance(picture.content, bytes) else picture.content
    image = Image.open(file, formats=FORMATS)
    if image.width * image.height > MAX_PIXELS:
        image.close()
        raise ValueError(f"{image.width} x {image.height} pixels are more than {MAX_PIXELS:,}")
    return image


def _flattened(image: Image.Image) -> Image.Image:
    """8 bits, over white where it was transparent."""
    if image.mode.startswith("I"):
        wide = np.asarray(image).astype(np.int64).clip(0, 65_535)
        return Image.fromarray((wide >> 8 if wide.max() > 255 else wide).astype(np.uint8))
    if image.mode in {"LA", "La", "PA", "RGBA", "RGBa"} or "transparency" in image.info:
        clear = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, clear)
    return image


def _common(sizes: list[Size]) -> Size:
    """The one size where there is one that is not too large; else the median, reduced."""
    if len(set(sizes)) == 1 and max(sizes[0]) <= LARGEST_KEPT:
        return sizes[0]
    width, height = (float(np.median([size[axis] for size in sizes])) for axis in (0, 1))
    scale = min(1.0, LARGEST_MADE / max(width, height))
    return max(1, round(width * scale)), max(1, round(height * scale))


def _findings(
    pictures: Sequence[Picture],
    bad: dict[int, str],
    good: dict[int, tuple[Size, bool]],
    channels: int,
    size: Size,
    where: Path,
) -> list[Finding]:
    found: list[Finding] = []
    if bad:
        names = ", ".join(f"{pictures[i].name} ({reason})" for i, reason in list(bad.items())[:3])
        found.append(
            Finding(
                severity="warning",
                subject=where.name,
                message=f"{len(bad)} of {len(pictures)} files are no readable images and are left out",
                evidence=names + (", ..." if len(bad) > 3 else ""),
                remedy="remove or replace them",
                check="values",
            )
        )
    others = [had for had, _ in good.values() if had != size]
    if others:
        small, large = min(others, key=lambda s: s[0] * s[1]), max(others, key=lambda s: s[0] * s[1])
        found.append(
            Finding(
                severity="info",
                subject=where.name,
                message=f"{len(others)} images become {size[0]} x {size[1]} pixels, their proportions kept",
                evidence=f"from {small[0]} x {small[1]} to {large[0]} x {large[1]}",
            )
        )
    greys = sum(grey for _, grey in good.values())
    if channels == 3 and greys:
        found.append(Finding(severity="info", subject=where.name, message=f"{greys} grey images get three channels"))
    return found


def _reason(error: Exception) -> str:
    text = " ".join(str(error).split())
    if isinstance(error, UnidentifiedImageError):
        return "no image"
    return text[:80] or type(error).__name__
