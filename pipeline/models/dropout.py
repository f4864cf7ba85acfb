"""Dropout whose masks come from 16 random bits a value: the same for a model alone and for a member of a cohort.

On a CPU a mask costs a quarter of ``bernoulli_``'s. The rate is rounded to the next 1/65536 and the scale with it, so
that the expectation is exact. Axes: K members, B rows, W values.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

_LEVELS = 2**16
_LOWEST = -(2**15)


def _threshold(rate: float) -> int:
    """Values whose bits, as a signed number, are below it are dropped."""
    return _LOWEST + round(rate * _LEVELS)


def _scale(rate: float) -> float:
    """What kept values are multiplied by."""
    return _LEVELS / (_LEVELS - round(rate * _LEVELS))


def _draw(n: int, device: torch.device, generator: torch.Generator | None) -> Tensor:
    """`n` uniform int16, four to a draw of 64 bits."""
    words = torch.empty((n + 3) // 4, dtype=torch.int64, device=device)
    return words.random_(-(2**63), None, generator=generator).view(torch.int16)[:n]


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
    """

    def __init__(self, rates: Sequence[float], widths: Sequence[int], device: torch.device) -> None:
        self._rates, self._widths = rates, widths
        thresholds = [_threshold(rate) for rate in rates]
        self._threshold_K11 = torch.tensor(thresholds, dtype=torch.int16, device=device)[:, None, None]
        self._scale_K11 = torch.tensor([_scale(rate) for rate in rates], device=device)[:, None, None]

    def __call__(self, x_KBW: Tensor, generators: Sequence[torch.Generator]) -> Tensor:
        if not any(self._rates):
            return x_KBW
        K, B, W = x_KBW.shape
        # What is not drawn belongs to padding, or to members whose threshold keeps everything.
        bits_KBW = torch.empty((K, B, W), dtype=torch.int16, device=x_KBW.device)
        for k, (rate, width, generator) in enumerate(zip(self._rates, self._widths, generators, strict=True)):
            if rate > 0:
                bits_KBW[k, :, :width] = _draw(B * width, x_KBW.device, generator).view(B, width)
        kept_KBW = bits_KBW >= self._threshold_K11
        return x_KBW * kept_KBW.to(x_KBW.dtype).mul_(self._scale_K11)
