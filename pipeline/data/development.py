"""Prepared tensors on disk, mapped into memory: every worker process of a search shares the same pages.

Worker processes import this, so it needs torch, safetensors and pydantic only.
"""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict
from safetensors.torch import load_file, save_file
from torch import Tensor

from pipeline.data.spec import DataSpec
from pipeline.data.tensors import Development, Inputs, Part

TENSORS = "development.safetensors"
DESCRIPTION = "development.json"


class _Description(BaseModel):
    """What the tensors mean; a file of its own, so that workers need not parse the preprocessor."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    spec: DataSpec
    fingerprint: str


def save_development(directory: Path, development: Development) -> None:
    """Write the tensors and what they mean into `directory`."""
    tensors: dict[str, Tensor] = {}
    parts = {"train": development.train}
    if development.folds is None:
        parts["validation"] = development.validation
    else:
        tensors["folds"] = development.folds
    if development.moments is not None:
        tensors["moments"] = development.moments
    for name, part in parts.items():
        named = {**part.inputs._asdict(), "target": part.target}
        tensors |= {f"{name}.{field}": tensor.contiguous() for field, tensor in named.items() if tensor is not None}
    save_file(tensors, directory / TENSORS)
    description = _Description(spec=development.spec, fingerprint=development.fingerprint)
    (directory / DESCRIPTION).write_text(description.model_dump_json(), encoding="utf-8")


def load_development(directory: Path) -> Development:
    """The training and validation part of a prepared data set, as copy-on-write views of its file."""
    description = _Description.model_validate_json((directory / DESCRIPTION).read_bytes())
    tensors = load_file(directory / TENSORS)
    train, folds = _part(tensors, "train"), tensors.get("folds")
    return Development(
        spec=description.spec,
        train=train,
        validation=_part(tensors, "validation") if folds is None else train,
        fingerprint=description.fingerprint,
        folds=folds,
        moments=tensors.get("moments"),
    )


def _part(tensors: dict[str, Tensor], name: str) -> Part:
    inputs = Inputs(*(tensors.get(f"{name}.{field}") for field in Inputs._fields))  # type: ignore[arg-type]
    return Part(inputs, tensors[f"{name}.target"])
