"""Checkpoints: one file a trial, replaced atomically, its checksum in front. A damaged one is as good as none."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from pathlib import Path
from typing import Any

from safetensors.torch import load, save
from torch import Tensor

CHECKPOINT = "checkpoint.safetensors"
_DIGEST_BYTES = 32


def save_checkpoint(directory: Path, tensors: dict[str, Tensor], meta: dict[str, Any]) -> None:
    """Replace the trial's checkpoint.

    No fsync: a kill of the process cannot tear a renamed file, and what a power cut tears is found by its checksum and
    costs this trial's epochs, not its search.
    """
    body = save({name: value.contiguous() for name, value in tensors.items()}, {"meta": json.dumps(meta)})
    directory.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{CHECKPOINT}.", dir=directory)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(hashlib.sha256(body).digest())
            file.write(body)
        os.replace(name, directory / CHECKPOINT)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def load_checkpoint(directory: Path) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
    """Tensors and meta data of the trial's checkpoint; None where there is none, or only a damaged one."""
    try:
        content = (directory / CHECKPOINT).read_bytes()
    except FileNotFoundError:
        return None
    digest, body = content[:_DIGEST_BYTES], content[_DIGEST_BYTES:]
    if hashlib.sha256(body).digest() != digest:
        return None
    length = int.from_bytes(body[:8], "little")
    header = json.loads(body[8 : 8 + length])
    return load(body), json.loads(header["__metadata__"]["meta"])


def discard_checkpoint(directory: Path) -> None:
    """Remove the trial's checkpoint: its end is on record."""
    (directory / CHECKPOINT).unlink(missing_ok=True)
