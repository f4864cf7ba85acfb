"""Loading packages: nothing is believed before it is checked, and nothing of a package is ever run.

In this order: only known files, none a link, none too large; their hashes; their schemas; the weights' names, shapes
and types against a module that has no memory yet, and their values; and at last the stored outputs, which the loaded
model must give again.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load
from torch import Tensor

from pipeline.data.spec import DataSpec
from pipeline.errors import PackageError
from pipeline.packaging.contents import (
    DATA,
    MANIFEST,
    MAX_BYTES,
    MODEL,
    PROBE,
    WEIGHTS,
    DataDescription,
    Manifest,
    ModelDescription,
)
from pipeline.packaging.module import build, shapes
from pipeline.packaging.predictor import Predictor
from pipeline.packaging.probe import check_probe
from pipeline.training.config import TrialConfig

B = TypeVar("B", bound=BaseModel)


def load_package(directory: Path, digest: str | None = None) -> Predictor:
    """The model of a package, verified.

    Args:
        digest: what `package_digest` said when the package was stored, where that is known from elsewhere.

    Raises:
        PackageError: anything at all is not as it was written, in one line.
    """
    contents = _read_contained(directory)
    _check_hashes(directory, contents, digest)
    model = _parse(directory / MODEL, contents[MODEL], ModelDescription)
    data = _parse(directory / DATA, contents[DATA], DataDescription)
    weights = _tensors(directory / WEIGHTS, contents[WEIGHTS])
    _check_fit(directory / WEIGHTS, weights, model.config, data.spec)
    module = build(model.config, data.spec)
    module.load_state_dict(weights)
    predictor = Predictor(
        spec=data.spec,
        preprocessor=data.preprocessor,
        config=model.config,
        provenance=model.provenance,
        module=module.eval(),
        temperature=model.temperature,
        conformal=model.conformal,
    )
    check_probe(directory / PROBE, _tensors(directory / PROBE, contents[PROBE]), predictor)
    return predictor


def _read_contained(directory: Path) -> dict[str, bytes]:
    """All files, read once: what is hashed is what is parsed."""
    try:
        with os.scandir(directory) as entries:
            found = list(entries)
    except OSError as error:
        raise PackageError(f"{directory}: cannot be read as a model package: {error.strerror}") from error
    for entry in found:
        if entry.name not in MAX_BYTES:
            raise PackageError(f"{entry.path}: a package has {', '.join(sorted(MAX_BYTES))} and nothing else")
        if not entry.is_file(follow_symlinks=False):
            raise PackageError(f"{entry.path}: must be a plain file, not a link or folder")
    missing = sorted(MAX_BYTES.keys() - {entry.name for entry in found})
    if missing:
        raise PackageError(f"{directory / missing[0]}: missing from the package")
    return {entry.name: _read_bounded(Path(entry.path), MAX_BYTES[entry.name]) for entry in found}


def _read_bounded(path: Path, limit: int) -> bytes:
    try:
        with open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NOFOLLOW)) as file:
            size = os.fstat(file.fileno()).st_size
            content = file.read(limit + 1) if size <= limit else b""
    except OSError as error:
        raise PackageError(f"{path}: cannot be read: {error.strerror}") from error
    if max(size, len(content)) > limit:
        raise PackageError(f"{path}: must have at most {limit:,} bytes, but has {size:,}")
    return content


def _check_hashes(directory: Path, contents: dict[str, bytes], digest: str | None) -> None:
    if digest is not None and hashlib.sha256(contents[MANIFEST]).hexdigest() != digest:
        raise PackageError(f"{directory / MANIFEST}: this is another package than the one that was stored")
    manifest = _parse(directory / MANIFEST, contents[MANIFEST], Manifest)
    for name, entry in manifest.files.items():
        content = contents[name]
        if len(content) != entry.size or hashlib.sha256(content).hexdigest() != entry.sha256:
            raise PackageError(f"{directory / name}: does not match its hash in the manifest; fetch the package again")


def _parse(path: Path, content: bytes, schema: type[B]) -> B:
    try:
        return schema.model_validate_json(content)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise PackageError(f"{path}: {where + ': ' if where else ''}{_one_line(first['msg'])}") from error


def _tensors(path: Path, content: bytes) -> dict[str, Tensor]:
    try:
        tensors = load(content)
    except (SafetensorError, KeyError, ValueError) as error:
        raise PackageError(f"{path}: is not a safetensors file: {_one_line(str(error))}") from error
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not tensor.isfinite().all():
            raise PackageError(f"{path}: {name[:100]!r} has values that are not finite")
    return tensors


def _check_fit(path: Path, weights: dict[str, Tensor], config: TrialConfig, spec: DataSpec) -> None:
    """The weights are exactly those of the module that the config describes; nothing is allocated to find out."""
    try:
        expected = shapes(config, spec)
    except (RuntimeError, ValueError, TypeError) as error:
        raise PackageError(f"{path}: the config builds no {config.family}: {_one_line(str(error))}") from error
    if expected.keys() != weights.keys():
        name = min(expected.keys() ^ weights.keys())
        state = "missing" if name in expected else "unknown"
        raise PackageError(f"{path}: {name[:100]!r} is {state} in a {config.family} of this config")
    for name, (shape, dtype) in expected.items():
        tensor = weights[name]
        if tensor.shape != shape or tensor.dtype != dtype:
            raise PackageError(
                f"{path}: {name!r} must be {dtype} {tuple(shape)}, but is {tensor.dtype} {tuple(tensor.shape)}"
            )


def _one_line(text: str) -> str:
    return " ".join(text.split())[:300]
