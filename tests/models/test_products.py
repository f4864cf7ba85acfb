"""Batched products by numpy are torch's, whatever lies how in memory."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

from pipeline.models.products import bmm, use_wide_vectors

WIDE = "flags\t\t: fpu avx512f avx512dq avx512cd avx512bw avx512vl"


def pair(dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(5, 40, 7, generator=generator, dtype=dtype)
    weights = torch.randn(5, 400, generator=generator, dtype=dtype)[:, 3:94].view(5, 13, 7)  # rows of a flat buffer
    return rows, weights


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_products_are_those_of_torch(dtype: torch.dtype) -> None:
    rows, weights = pair(dtype)
    for a, b in (
        (rows, weights.transpose(1, 2)),
        (rows.transpose(1, 2), rows),
        (rows[:1].expand(5, -1, -1), weights.transpose(1, 2)),
        (weights, rows.transpose(1, 2)),
    ):
        torch.testing.assert_close(bmm(a, b), torch.bmm(a, b))


def test_a_product_can_be_put_where_it_belongs() -> None:
    rows, weights = pair(torch.float64)
    buffer = torch.zeros(5, 1_000, dtype=torch.float64)
    place = buffer[:, 10 : 10 + 40 * 13].view(5, 40, 13)
    assert bmm(rows, weights.transpose(1, 2), place) is place
    torch.testing.assert_close(buffer[:, 10 : 10 + 40 * 13].view(5, 40, 13), torch.bmm(rows, weights.transpose(1, 2)))
    assert not buffer[:, :10].any()
    assert not buffer[:, 10 + 40 * 13 :].any()


def test_a_member_that_overflows_is_silent_and_alone() -> None:
    rows = torch.ones(2, 4, 4)
    rows[0] *= 1e38
    product = bmm(rows, rows)
    assert product[0].isinf().all()
    assert product[1].eq(4).all()


def test_wide_vectors_are_used_where_the_processor_has_them(tmp_path: Path) -> None:
    cpuinfo = tmp_path / "cpuinfo"
    for flags, expected in ((WIDE, "SkylakeX"), (WIDE.replace("avx512vl", "avx2"), None), ("Features : neon", None)):
        cpuinfo.write_text(f"processor : 0\n{flags}\n")
        environment: dict[str, str] = {}
        use_wide_vectors(environment, cpuinfo)
        assert environment.get("OPENBLAS_CORETYPE") == expected
        assert environment["OPENBLAS_NUM_THREADS"] == "1"
    environment = {}
    use_wide_vectors(environment, tmp_path / "none")
    assert environment == {"OPENBLAS_NUM_THREADS": "1"}


def test_what_the_user_has_set_stays(tmp_path: Path) -> None:
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text(WIDE)
    environment = {"OPENBLAS_CORETYPE": "Haswell", "OPENBLAS_NUM_THREADS": "2"}
    use_wide_vectors(environment, cpuinfo)
    assert environment == {"OPENBLAS_CORETYPE": "Haswell", "OPENBLAS_NUM_THREADS": "2"}


def test_a_process_with_that_environment_computes_the_same() -> None:
    environment = dict(os.environ)
    use_wide_vectors(environment)
    program = """
import torch
torch.set_num_threads(1)
from pipeline.models.products import bmm
a, b = torch.randn(8, 64, 70, dtype=torch.float64), torch.randn(8, 30, 70, dtype=torch.float64).transpose(1, 2)
torch.testing.assert_close(bmm(a, b), torch.bmm(a, b), rtol=1e-12, atol=1e-12)
"""
    subprocess.run([sys.executable, "-c", program], env=environment, check=True)
