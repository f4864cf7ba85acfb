"""Dropout whose masks come from 8 random bits a value: the same for a model alone and for a member of a cohort.

On a CPU a mask costs an eighth of ``bernoulli_``'s. The rate is rounded to the next 1/256 (by 0.002 at most) and the
scale with it, so that the expectation is exact. Axes: K members, L layers, B rows, W units.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

_LEVELS = 2**8
_LOWEST = -(2**7)
_AT_ONCE = 8
"""Values to a draw of 64 bits."""
_SHAPES_KEPT = 2
"""A full batch and an epoch's last one; sequences come in any number of lengths, whose memory is not kept."""


def _dropped(rate: float) -> int:
    """Levels of `_LEVELS` at which a value is dropped; never all of them."""
    return min(round(rate * _LEVELS), _LEVELS - 1)


def _highest_dropped(rate: float) -> int:
    """Values whose bits are, as a signed number, at most this are dropped."""
    return _LOWEST + _dropped(rate) - 1


def _scale(rate: float) -> float:
    """What kept values are multiplied by."""
    return _LEVELS / (_LEVELS - _dropped(rate))


def _n_words(n: int) -> int:
    return (n + _AT_ONCE - 1) // _AT_ONCE


def _draw(n: int, device: torch.device, generator: torch.Generator | None) -> Tensor:
    """`n` uniform int8, eight to a draw of 64 bits."""
    words = torch.empty(_n_words(n), dtype=torch.int64, device=device)
    return words.random_(-(2**63), None, generator=generator).view(torch.int8)[:n]


class Dropout(nn.Module):
    """Zeroes values with probability `rate` while training, and scales the others up.

    Args:
        by_unit: of a matrix ``(B, W)``, draw for a unit's rows one after the other, as cohorts lay them out; else the
            draws are in the order of the values.
    """

    def __init__(self, rate: float, *, by_unit: bool = False) -> None:
        super().__init__()
        self.rate, self.by_unit = rate, by_unit

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.rate == 0:
            return x
        bits = _draw(x.numel(), x.device, None)
        bits = bits.view(x.shape[::-1]).t().contiguous() if self.by_unit else bits.view(x.shape)
        return x * _mask(bits, _highest_dropped(self.rate), _scale(self.rate), x.dtype)

    def extra_repr(self) -> str:
        return f"rate={self.rate:g}"


def _mask(
    bits: Tensor, highest_dropped: int | Tensor, scale: float | Tensor, dtype: torch.dtype, into: Tensor | None = None
) -> Tensor:
    """0 where the bits are at most the highest that is dropped, else the scale.

    By arithmetic on floating-point numbers: torch compares int8 one by one and makes bool float as slowly (127,000
    values on one Zen 5 core: 48 and 57 us, all of this 25).
    """
    values = bits.to(dtype) if into is None else into.copy_(bits)
    return values.sub_(highest_dropped).clamp_(0, 1).mul_(scale)


class StackedDropout:
    """The dropout of a cohort: each member's mask is drawn from its own generator, as `Dropout` alone draws it.

    Args:
        rates: of each member.
        units: of each member, with ``by_unit``: what lies beyond is padding, and not drawn for. None where all members
            are of one shape.
        n_layers: so many calls in a row, of one shape, are drawn for together: on a CPU a step of 10 members of three
            layers then costs 10 draws, not 30.

    Shape:
        ``(K, W, B)``, the rows last, with `units`; else ``(K, M, N)`` in the order of `Dropout` without ``by_unit``.
    """

    def __init__(
        self, rates: Sequence[float], units: Sequence[int] | None, device: torch.device, *, n_layers: int = 1
    ) -> None:
        self._rates, self._units, self._n_layers = rates, units, n_layers
        by_member_K2 = torch.tensor([(_highest_dropped(rate), _scale(rate)) for rate in rates], device=device)
        self._highest_dropped_K11, self._scale_K11 = by_member_K2[:, :, None, None].unbind(1)
        self._constants: dict[torch.dtype, tuple[Tensor, Tensor]] = {}
        """Both, in types that were asked for."""
        self._bits: dict[tuple[int, int], _Bits] = {}
        self._drawn: list[Tensor] = []
        """Of the layers to come, the next one last."""

    def __call__(self, x_KMN: Tensor, generators: Sequence[torch.Generator]) -> Tensor:
        mask_KMN = self.mask((x_KMN.shape[1], x_KMN.shape[2]), x_KMN.dtype, generators)
        return x_KMN if mask_KMN is None else x_KMN * mask_KMN

    def scale(self, dtype: torch.dtype) -> Tensor:
        """What a member's kept values are multiplied by, ``(K, 1, 1)``."""
        return self._as(dtype)[1]

    def _as(self, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        if dtype not in self._constants:
            self._constants[dtype] = self._highest_dropped_K11.to(dtype), self._scale_K11.to(dtype)
        return self._constants[dtype]

    def mask(
        self,
        shape: tuple[int, int],
        dtype: torch.dtype,
        generators: Sequence[torch.Generator],
        into: Tensor | None = None,
    ) -> Tensor | None:
        """What the next layer's values ``(K, *shape)`` are multiplied by: 0 or the scale; None where nothing is dropped
        at all.

        Args:
            into: memory of the mask, where it has a place already.
        """
        if not any(self._rates):
            return None
        if not self._drawn:
            if shape not in self._bits:
                if len(self._bits) == _SHAPES_KEPT:
                    self._bits.pop(next(iter(self._bits)))
                units = [shape[0]] * len(self._rates) if self._units is None else self._units
                self._bits[shape] = _Bits(self._rates, units, shape, self._n_layers, self._scale_K11.device)
            self._drawn = self._bits[shape].draw(generators)
        # Layer by layer, each just before its use: all masks at once leave the cache before they are needed.
        return _mask(self._drawn.pop(), *self._as(dtype), dtype, into)


class _Bits:
    """Random bits for `n_layers` layers ``(M, N)`` of every member, in memory that is used again."""

    def __init__(
        self, rates: Sequence[float], units: Sequence[int], shape: tuple[int, int], n_layers: int, device: torch.device
    ) -> None:
        M, N = shape
        # A CPU's generator gives the same words in one draw as in several; a GPU's does not.
        n_draws = 1 if device.type == "cpu" else n_layers
        # What is not drawn belongs to padding, or to members whose threshold keeps everything.
        words_KLN = torch.zeros((len(units), n_layers, _n_words(M * N)), dtype=torch.int64, device=device)
        bits_KLMN = words_KLN.view(torch.int8)[:, :, : M * N].view(len(units), n_layers, M, N)
        # Cut once: views cost a small network's step as much as what is done with them.
        self._last_first = tuple(reversed(bits_KLMN.unbind(1)))
        self._draws = [
            words_LN[:, : _n_words(n_units * N)].chunk(n_draws) if rate else ()
            for rate, n_units, words_LN in zip(rates, units, words_KLN, strict=True)
        ]

    def draw(self, generators: Sequence[torch.Generator]) -> list[Tensor]:
        """``(K, M, N)``, int8, of each layer, the last one first; overwritten by the next draw."""
        for draws, generator in zip(self._draws, generators, strict=True):
            for words_LN in draws:
                words_LN.random_(-(2**63), None, generator=generator)
        return list(self._last_first)
