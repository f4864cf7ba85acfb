"""Dropout whose masks come from 8 random bits a value: the same for a model alone and for a member of a cohort.

On a CPU a mask costs an eighth of ``bernoulli_``'s. The rate is rounded to the next 1/256 (by 0.002 at most) and the
scale with it, so that the expectation is exact. Axes: K members, L layers, B rows, W values.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

_LEVELS = 2**8
_LOWEST = -(2**7)
_AT_ONCE = 8
"""Values to a draw of 64 bits."""


def _dropped(rate: float) -> int:
    """Levels of `_LEVELS` at which a value is dropped; never all of them."""
    return min(round(rate * _LEVELS), _LEVELS - 1)


def _threshold(rate: float) -> int:
    """Values whose bits, as a signed number, are below it are dropped."""
    return _LOWEST + _dropped(rate)


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
    """Zeroes values with probability `rate` while training, and scales the others up."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.rate == 0:
            return x
        kept = _draw(x.numel(), x.device, None).view(x.shape) >= _threshold(self.rate)
        return x * kept.to(x.dtype).mul_(_scale(self.rate))

    def extra_repr(self) -> str:
        return f"rate={self.rate:g}"


class StackedDropout:
    """The dropout of a cohort: each member's mask is drawn from its own generator, as `Dropout` alone draws it.

    Args:
        rates, widths: of each member; a narrower member draws for its own width only.
        n_layers: so many calls in a row, of one shape, are drawn for together: on a CPU a step of 10 members of three
            layers then costs 10 draws, not 30.
    """

    def __init__(
        self, rates: Sequence[float], widths: Sequence[int], device: torch.device, *, n_layers: int = 1
    ) -> None:
        self._rates, self._widths, self._n_layers = rates, widths, n_layers
        thresholds = [_threshold(rate) for rate in rates]
        self._threshold_K11 = torch.tensor(thresholds, dtype=torch.int8, device=device)[:, None, None]
        self.scale_K11 = torch.tensor([_scale(rate) for rate in rates], device=device)[:, None, None]
        """What a member's kept values are multiplied by."""
        self._bits: dict[int, _Bits] = {}
        self._drawn: list[Tensor] = []
        """Of the layers to come, the next one last."""

    def __call__(self, x_KBW: Tensor, generators: Sequence[torch.Generator]) -> Tensor:
        mask_KBW = self.mask(x_KBW.shape[1], x_KBW.dtype, generators)
        return x_KBW if mask_KBW is None else x_KBW * mask_KBW

    def mask(self, B: int, dtype: torch.dtype, generators: Sequence[torch.Generator]) -> Tensor | None:
        """What the next layer's `B` rows are multiplied by: 0 or the scale; None where nothing is dropped at all."""
        if not any(self._rates):
            return None
        if not self._drawn:
            if B not in self._bits:
                self._bits[B] = _Bits(self._rates, self._widths, B, self._n_layers, self.scale_K11.device)
            self._drawn = list(self._bits[B].draw(generators).unbind(1))[::-1]
        # Layer by layer, each just before its use: all masks at once leave the cache before they are needed.
        return (self._drawn.pop() >= self._threshold_K11) * self.scale_K11.to(dtype)


class _Bits:
    """Random bits for `n_layers` layers of B rows of every member, in memory that is used again."""

    def __init__(
        self, rates: Sequence[float], widths: Sequence[int], B: int, n_layers: int, device: torch.device
    ) -> None:
        K, W = len(widths), max(widths)
        # A CPU's generator gives the same words in one draw as in several; a GPU's does not.
        self._n_draws = 1 if device.type == "cpu" else n_layers
        # What is not drawn belongs to padding, or to members whose threshold keeps everything.
        words_KLN = torch.zeros((K, n_layers, _n_words(B * W)), dtype=torch.int64, device=device)
        self._bits_KLBW = words_KLN.view(torch.int8)[:, :, : B * W].view(K, n_layers, B, W)
        self._words: list[Tensor | None] = []
        self._from: list[Tensor] = []
        self._to: list[Tensor] = []
        for k, (rate, width) in enumerate(zip(rates, widths, strict=True)):
            if rate == 0:
                self._words.append(None)
            elif width == W:  # drawn where it is to lie
                self._words.append(words_KLN[k])
            else:
                own_LN = torch.empty((n_layers, _n_words(B * width)), dtype=torch.int64, device=device)
                self._words.append(own_LN)
                self._from += own_LN.view(torch.int8)[:, : B * width].view(n_layers, B, width).unbind()
                self._to += self._bits_KLBW[k, :, :, :width].unbind()

    def draw(self, generators: Sequence[torch.Generator]) -> Tensor:
        """``(K, L, B, W)``, int8; overwritten by the next draw."""
        for words, generator in zip(self._words, generators, strict=True):
            if words is not None:
                for part in words.chunk(self._n_draws):
                    part.random_(-(2**63), None, generator=generator)
        if self._to:
            torch._foreach_copy_(self._to, self._from)
        return self._bits_KLBW
