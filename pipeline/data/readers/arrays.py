"""Arrays: npz archives and the idx files of MNIST."""

from __future__ import annotations

import math
import zipfile
from pathlib import Path
from typing import IO, Any, Final

import numpy as np
import numpy.typing as npt
import pandas as pd

from pipeline.data.dataset import Dataset, Features
from pipeline.data.readers.request import Request, check_ratio, check_size, read_bytes
from pipeline.data.spec import Kind
from pipeline.errors import DataError
from pipeline.text import shown

Array = npt.NDArray[Any]

_PAIRS: Final = (
    ("x", "y"), ("X", "y"), ("x_train", "y_train"), ("X_train", "y_train"), ("images", "labels"),
    ("features", "labels"), ("data", "target"), ("data", "labels"), ("series", "labels"),
)  # fmt: skip
_IDX_TYPES: Final = {8: "u1", 9: "i1", 11: ">i2", 12: ">i4", 13: ">f4", 14: ">f8"}


def read_npz(request: Request) -> Dataset:
    """An npz archive with one array of features and one of labels.

    Shape:
        ``(N, D)`` tabular; ``(N, H, W)`` image when it is uint8, else sequence ``(N, T, D)``; ``(N, H, W, C)`` or
        ``(N, C, H, W)`` image. ``data.kind`` decides where the shape allows both.

    Raises:
        DataError: not an npz file, pickled objects in it, no such arrays, or arrays of different lengths.
    """
    path = request.path
    if not zipfile.is_zipfile(path):
        raise DataError("the file is not an npz archive", "write it again with numpy.savez", file=path)
    try:
        with np.load(path, allow_pickle=False) as archive:
            _check_npz_sizes(path)
            x_name, y_name = array_names(archive.files, request)
            x: Array = archive[x_name]
            y: Array | None = archive[y_name] if y_name is not None and request.labelled else None
    except (ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
        reason = "it holds pickled objects" if "pickle" in str(error) else str(error)
        raise DataError(f"the file is not a readable npz archive ({reason})", "write it again", file=path) from error
    if x.ndim == 0 or len(x) == 0:
        raise DataError(f"array {x_name!r} has no rows", "give it rows of data", file=path)
    if y is not None and (y.ndim != 1 or len(y) != len(x)):
        raise DataError(
            f"arrays {x_name!r} and {y_name!r} must have one label a row, but have shapes {x.shape} and {y.shape}",
            "write them again",
            file=path,
        )
    kind, features = shaped(x, request)
    return Dataset(kind, features, y, path.stem)


def _check_npz_sizes(path: Path) -> None:
    """Members are compressed, and each says its shape itself: refuse what would not fit, or lies, before unpacking."""
    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
        size = sum(member.file_size for member in members)
        check_size(size // 8, path)
        check_ratio(size, path.stat().st_size, path)
        for member in members:
            with archive.open(member) as file:
                n_bytes = _claimed_bytes(file)
            if n_bytes > member.file_size:
                raise DataError(
                    f"array {shown(member.filename)} says that it has {n_bytes:,} bytes, but has {member.file_size:,}",
                    "write it again",
                    file=path,
                )


def _claimed_bytes(file: IO[bytes]) -> int:
    """How large an array says it is; 0 where it holds objects, whose size no header tells."""
    major, _ = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0 if major == 1 else np.lib.format.read_array_header_2_0
    shape, _, dtype = read(file)
    if any(n < 0 for n in shape):
        raise ValueError(f"an array has the shape {shape}")
    return 0 if dtype.hasobject else math.prod(shape) * dtype.itemsize


def array_names(names: list[str], request: Request) -> tuple[str, str | None]:
    """The archive's array of features, and that of labels where it has one.

    Raises:
        DataError: they are not to be recognised.
    """
    for x_name, y_name in _PAIRS:
        chosen = request.target or y_name
        if x_name in names and (chosen in names or not request.labelled):
            return x_name, chosen if chosen in names else None
    if request.target in names and len(names) == 2:
        return next(name for name in names if name != request.target), request.target
    if not request.labelled and len(names) == 1:
        return names[0], None
    raise DataError(
        f"the archive has the arrays {', '.join(names[:10])}",
        "name them x and y, or images and labels" if request.target is None else f"add one named {request.target!r}",
        file=request.path,
    )


def shaped(x: Array, request: Request) -> tuple[Kind, Features]:
    """What an array of features is, by `Request.kind` and its shape; see `read_npz`.

    Raises:
        DataError: no numbers, or a shape that does not fit the kind.
    """
    if x.dtype.kind not in "biuf":
        raise DataError(f"arrays must hold numbers, but got {x.dtype}", "convert it to float32", file=request.path)
    kind = request.kind or _kind_of(x)
    if kind == "tabular" and x.ndim == 2 and min(x.shape) > 0:
        return kind, pd.DataFrame(x, columns=pd.Index([f"x{i}" for i in range(x.shape[1])]))
    if kind == "image" and x.ndim in (3, 4) and min(x.shape) > 0:
        return kind, channels_first(x)
    if kind == "sequence" and x.ndim in (2, 3) and min(x.shape) > 0:
        steps = x.astype(np.float32, copy=False)
        return kind, list(steps if x.ndim == 3 else steps[:, :, None])
    raise DataError(
        f"{kind} data cannot have the shape {x.shape}",
        "use (N, D) for tables, (N, H, W), (N, H, W, C) or (N, C, H, W) for images, (N, T, D) for sequences",
        file=request.path,
    )


def _kind_of(x: Array) -> Kind:
    if x.ndim == 2:
        return "tabular"
    return "sequence" if x.ndim == 3 and x.dtype != np.uint8 else "image"


def channels_first(images: Array) -> Array:
    """``(N, H, W)``, ``(N, H, W, C)`` or ``(N, C, H, W)`` as ``(N, C, H, W)``. An axis of 1, 3 or 4 is the channels."""
    if images.ndim == 3:
        return images[:, None]
    if images.shape[1] not in (1, 3, 4) and images.shape[3] in (1, 3, 4):
        return np.ascontiguousarray(images.transpose(0, 3, 1, 2))
    return images


def is_idx(path: Path) -> bool:
    """Whether a name is that of an idx file, ``…-idx3-ubyte`` with or without ``.gz``."""
    return path.name.removesuffix(".gz").endswith(("-ubyte", ".idx")) or "-idx" in path.name


def labels_beside(images: Path) -> Path:
    """The labels file that belongs to an idx file of images: ``train-images-idx3-ubyte`` has
    ``train-labels-idx1-ubyte`` beside it."""
    name = images.name.replace("images", "labels").replace("idx3", "idx1")
    return images.with_name(name)


def read_idx(request: Request) -> Dataset:
    """An idx file of images (http://yann.lecun.com/exdb/mnist/) and the labels beside it.

    Raises:
        DataError: damaged, of the wrong length, or without its labels file.
    """
    request.refuse_other_than("image")
    images = _parse_idx(request.path)
    if images.ndim not in (3, 4):
        raise DataError(
            f"images need 3 or 4 axes, but the file has {images.ndim}", "name the images file", file=request.path
        )
    labels: Array | None = None
    if request.labelled:
        beside = labels_beside(request.path)
        if beside == request.path or not beside.is_file():
            raise DataError(f"there is no labels file {beside.name} beside it", "put it there", file=request.path)
        labels = _parse_idx(beside)
        if labels.shape != (len(images),):
            raise DataError(
                f"there must be one label an image, but got {len(images)} images and {len(labels)} labels",
                "download both files again",
                file=beside,
            )
    name = request.path.name.split("-idx")[0]
    return Dataset("image", channels_first(images), labels, name)


def _parse_idx(path: Path) -> Array:
    """Two zero bytes, a type, the number of axes, their lengths as big-endian int32, then the values."""
    content = read_bytes(path)
    if len(content) < 4 or content[:2] != b"\0\0" or content[2] not in _IDX_TYPES or not 1 <= content[3] <= 4:
        raise DataError("the file does not start like an idx file", "name an …-idx3-ubyte file", file=path)
    dtype, n_axes = np.dtype(_IDX_TYPES[content[2]]), content[3]
    start = 4 + 4 * n_axes
    shape = tuple(int(n) for n in np.frombuffer(content[4:start], ">i4"))
    expected = start + math.prod(shape) * dtype.itemsize
    if len(shape) != n_axes or min(shape) < 1 or len(content) != expected:
        raise DataError(
            f"the header says shape {shape}, which is {expected} bytes, but the file has {len(content)}",
            "download it again",
            file=path,
        )
    values = np.frombuffer(content, dtype, offset=start).reshape(shape)
    return values.astype(dtype.newbyteorder("="), copy=False)
