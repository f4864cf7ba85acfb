"""A folder of class folders: ``root/cat/1.png``. The name of the first folder below the root is the label."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from pipeline.data.dataset import Dataset
from pipeline.data.findings import Finding
from pipeline.data.readers.pictures import SUFFIXES, Picture, decode
from pipeline.data.readers.request import Request
from pipeline.errors import DataError


def is_image_folder(path: Path) -> bool:
    """Whether a folder has an image somewhere below it."""
    return path.is_dir() and next(_files(path), None) is not None


def image_files(path: Path) -> list[Path]:
    """All that looks like an image by its name, at any depth, in the order of the paths."""
    return sorted(_files(path))


def _files(path: Path) -> Iterator[Path]:
    for root, folders, names in os.walk(path):
        folders[:] = sorted(folder for folder in folders if not folder.startswith("."))
        yield from (Path(root, name) for name in names if Path(name).suffix.lower() in SUFFIXES and name[0] != ".")


def read_image_folder(request: Request) -> Dataset:
    """Images with their folders' names as labels; without labels, all images below the folder in the order of paths.

    Raises:
        DataError: no image can be read, a link leads out of the folder, or images lie outside of class folders.
    """
    request.refuse_other_than("image")
    root = request.path
    files = image_files(root)
    real = root.resolve()
    for file in files:
        if file.is_symlink() and not file.resolve().is_relative_to(real):
            raise DataError("a link leads out of the folder of images", "copy the file into it", file=file)
    findings: list[Finding] = []
    if request.labelled:
        inside = [file for file in files if file.parent != root]
        if not inside:
            raise DataError(
                "the images lie in no class folders", "put each into a folder with the name of its class", file=root
            )
        if len(inside) < len(files):
            findings.append(_left_out(root, len(files) - len(inside)))
        files = inside
    pictures = [Picture(str(file.relative_to(root)), file) for file in files]
    decoded = decode(pictures, root, request.shape, strict=not request.labelled)
    if not request.labelled:
        return Dataset("image", decoded.images, None, root.name)
    labels = [unicodedata.normalize("NFC", files[i].relative_to(root).parts[0]) for i in decoded.kept]
    known = set(labels)
    for folder in sorted(entry.name for entry in root.iterdir() if entry.is_dir() and not entry.name.startswith(".")):
        if unicodedata.normalize("NFC", folder) not in known:
            findings.append(
                Finding(
                    severity="warning",
                    subject=folder,
                    message="the class folder has no readable image: there is no such class",
                    remedy="remove it, or add images",
                    check="classes",
                )
            )
    return Dataset("image", decoded.images, np.array(labels, dtype=object), root.name, (*findings, *decoded.findings))


def _left_out(root: Path, n: int) -> Finding:
    return Finding(
        severity="warning",
        subject=root.name,
        message=f"{n} images lie outside of class folders and are left out",
        remedy="put them into the folder of their class",
        check="labels",
    )
