"""Batched products by numpy are torch's, whatever lies how in memory."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from pipeline.models import products
from pipeline.models.products import bmm, silently


def pair(dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(5, 40, 7, generator=generator, dtype=dtype)
    weights = torch.randn(5, 400, generator=generator, dtype=dtype)[:, 3:94].view(5, 13, 7)  # rows of a flat buffer
    return rows, weights


@pytest.fixture(autouse=True, params=["numpy", "torch"])
def library(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Either BLAS, whatever the processor here."""
    monkeypatch.setattr(products, "_mkl_is_at_home", lambda: request.param == "torch")


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


@pytest.mark.parametrize("width", [13, 130])
def test_a_product_can_be_put_where_values_are_of_another_type(width: int) -> None:
    rows, weights = (torch.randn(2, width, 30).bfloat16() for _ in range(2))
    place = torch.zeros(2, width, width)
    assert bmm(rows, weights.transpose(1, 2), place) is place
    torch.testing.assert_close(place, torch.bmm(rows, weights.transpose(1, 2)).float())


def test_a_member_that_overflows_is_silent_and_alone() -> None:
    rows = torch.ones(2, 4, 4)
    rows[0] *= 1e38
    product = silently(bmm)(rows, rows)
    assert product[0].isinf().all()
    assert product[1].eq(4).all()


def test_large_products_are_taken_in_slices_where_that_is_faster(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = {}
    for small_kernels in (False, True):
        monkeypatch.setattr(products, "_has_small_kernels", lambda has=small_kernels: has)
        products._slice_rows.cache_clear()
        rows[small_kernels] = [
            products._slice_rows(*shape) for shape in ((187, 187, 64), (96, 96, 64), (187, 187, 128))
        ]
        generator = torch.Generator().manual_seed(0)
        weights = torch.randn(3, 187, 150, generator=generator, dtype=torch.float64)
        values = torch.randn(3, 150, 64, generator=generator, dtype=torch.float64)
        torch.testing.assert_close(bmm(weights, values), torch.bmm(weights, values))
    products._slice_rows.cache_clear()
    assert rows == {False: [187, 96, 187], True: [64, 96, 187]}


@pytest.mark.parametrize(("processor", "at_home"), [("GenuineIntel", True), ("AuthenticAMD", False), (None, False)])
def test_torch_multiplies_where_its_library_is_at_home(
    processor: str | None, at_home: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read_text(path: Path, **_: object) -> str:
        assert path == Path("/proc/cpuinfo")
        if processor is None:
            raise FileNotFoundError(path)
        return f"vendor_id\t: {processor}\n"

    monkeypatch.undo()  # of the library that is chosen above
    monkeypatch.setattr(Path, "read_text", read_text)
    products._mkl_is_at_home.cache_clear()
    assert products._mkl_is_at_home() == (at_home and torch.backends.mkl.is_available())
    products._mkl_is_at_home.cache_clear()
