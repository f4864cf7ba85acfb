"""A checkpoint is whole or it is none."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from pipeline.training.checkpoint import CHECKPOINT, discard_checkpoint, load_checkpoint, save_checkpoint

TENSORS = {"a": torch.arange(1000, dtype=torch.float32), "step": torch.tensor(7)}
META = {"epoch": 3, "curve": [1.5, 2.5]}


def test_what_was_saved_comes_back(tmp_path: Path) -> None:
    assert load_checkpoint(tmp_path) is None
    save_checkpoint(tmp_path, TENSORS, META)
    tensors, meta = load_checkpoint(tmp_path) or pytest.fail("no checkpoint")
    assert meta == META
    assert all(torch.equal(tensors[name], value) for name, value in TENSORS.items())
    discard_checkpoint(tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("percent", range(0, 100, 5))
def test_a_truncated_checkpoint_is_none(tmp_path: Path, percent: int) -> None:
    save_checkpoint(tmp_path, TENSORS, META)
    path = tmp_path / CHECKPOINT
    content = path.read_bytes()
    path.write_bytes(content[: len(content) * percent // 100])
    assert load_checkpoint(tmp_path) is None


@pytest.mark.parametrize("share", [0.0, 0.01, 0.1, 0.5, 0.9, 0.999])
def test_a_flipped_bit_is_found(tmp_path: Path, share: float) -> None:
    save_checkpoint(tmp_path, TENSORS, META)
    path = tmp_path / CHECKPOINT
    content = bytearray(path.read_bytes())
    content[int(share * (len(content) - 1))] ^= 1
    path.write_bytes(content)
    assert load_checkpoint(tmp_path) is None
