"""Dropout: the rate and the scale are right, and a cohort's masks are those of its members alone."""

from __future__ import annotations

import pytest
import torch

from pipeline.models.dropout import Dropout, StackedDropout


@pytest.mark.parametrize("rate", [0.0, 0.1, 0.5, 0.9])
def test_values_are_dropped_at_the_rate_and_keep_their_expectation(rate: float) -> None:
    torch.manual_seed(0)
    y = Dropout(rate)(torch.ones(1000, 1000))
    assert (y == 0).float().mean().item() == pytest.approx(rate, abs=2e-3)
    assert y.mean().item() == pytest.approx(1, abs=5e-3)


def test_bits_are_independent_between_neighbours() -> None:
    """Eight values share a draw: none may say anything of another."""
    torch.manual_seed(0)
    kept = (Dropout(0.5)(torch.ones(800_000)) > 0).float().view(-1, 8)
    assert torch.corrcoef(kept.T).fill_diagonal_(0).abs().max() < 0.02
    assert (kept.mean(0) - 0.5).abs().max() < 0.01


@pytest.mark.parametrize("rate", [0.999, 0.0019])
def test_a_rate_between_two_levels_keeps_the_expectation_of_the_level_that_it_is_rounded_to(rate: float) -> None:
    torch.manual_seed(0)
    y = Dropout(rate)(torch.ones(2_000_000))
    assert y.isfinite().all()
    assert (y == 0).float().mean().item() == pytest.approx(rate, abs=4e-3)
    assert y.mean().item() == pytest.approx(1, abs=4e-2)


def test_nothing_is_dropped_in_evaluation() -> None:
    x = torch.randn(5, 7)
    assert torch.equal(Dropout(0.9).eval()(x), x)


RATES = (0.3, 0.0, 0.7)


def test_a_members_mask_is_its_own_whatever_the_company() -> None:
    units = (5, 8, 3)
    x_KWB = torch.randn(3, 8, 11)
    generators = [torch.Generator().manual_seed(seed) for seed in range(3)]
    together = StackedDropout(RATES, units, torch.device("cpu"))(x_KWB, generators)
    for k, (rate, n_units) in enumerate(zip(RATES, units, strict=True)):
        torch.manual_seed(k)
        assert torch.equal(together[k, :n_units].T, Dropout(rate, by_unit=True)(x_KWB[k, :n_units].T))


def test_members_of_one_shape_draw_in_the_order_of_their_values() -> None:
    x_KTD = torch.randn(3, 11, 8)
    generators = [torch.Generator().manual_seed(seed) for seed in range(3)]
    together = StackedDropout(RATES, None, torch.device("cpu"))(x_KTD, generators)
    for k, rate in enumerate(RATES):
        torch.manual_seed(k)
        assert torch.equal(together[k], Dropout(rate)(x_KTD[k]))


@pytest.mark.parametrize("units", [(8, 8, 8), (5, 8, 3)])
def test_layers_that_are_drawn_for_together_drop_what_they_would_drop_one_by_one(units: tuple[int, ...]) -> None:
    dropout = StackedDropout(RATES, units, torch.device("cpu"), n_layers=2)
    generators = [torch.Generator().manual_seed(seed) for seed in range(3)]
    batches = [torch.randn(3, 8, rows) for rows in (11, 11, 6, 11)]  # the last of an epoch is a smaller one
    together = [(x_KWB, [dropout(x_KWB, generators) for _ in range(2)]) for x_KWB in batches]
    for k, (rate, n_units) in enumerate(zip(RATES, units, strict=True)):
        torch.manual_seed(k)
        alone = Dropout(rate, by_unit=True)
        for x_KWB, layers in together:
            for dropped_KWB in layers:
                assert torch.equal(dropped_KWB[k, :n_units].T, alone(x_KWB[k, :n_units].T))
        if rate:
            assert torch.equal(torch.get_rng_state(), generators[k].get_state()), "a checkpoint can be made here"


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("rate", [0.004, 0.3, 0.999])
def test_a_mask_is_nought_or_the_scale_in_any_precision(rate: float, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    alone = Dropout(rate)(torch.ones(3, 5000, dtype=dtype))
    generators = [torch.Generator().manual_seed(0)]
    together = StackedDropout([rate], None, torch.device("cpu"))(torch.ones(1, 3, 5000, dtype=dtype), generators)
    assert len(alone.unique()) == 2
    assert torch.equal(together[0], alone)


def test_memory_for_bits_does_not_grow_with_the_lengths_that_were_seen() -> None:
    dropout = StackedDropout(RATES, None, torch.device("cpu"))
    generators = [torch.Generator().manual_seed(seed) for seed in range(3)]
    for length in range(1, 20):
        dropout(torch.ones(3, length, 8), generators)
    assert len(dropout._bits) == 2
