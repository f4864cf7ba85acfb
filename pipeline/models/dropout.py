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
        n_layers: so many calls in a row, of one shape, are drawn for together: on a CPU a step of 10 members of three
            layers then costs 10 draws, not 30.
    """

    def __init__(
        self, rates: Sequence[float], widths: Sequence[int], device: torch.device, *, n_layers: int = 1
    ) -> None:
        self._rates, self._widths, self._n_layers = rates, widths, n_layers
        thresholds = [_threshold(rate) for rate in rates]
        self._threshold_K111 = torch.tensor(thresholds, dtype=torch.int16, device=device)[:, None, None, None]
        self._scale_K111 = torch.tensor([_scale(rate) for rate in rates], device=device)[:, None, None, None]
        self._bits: dict[int, _Bits] = {}
        self._masks: list[Tensor] = []
        """Of the layers to come, the next one last."""

    def __call__(self, x_KBW: Tensor, generators: Sequence[torch.Generator]) -> Tensor:
        if not any(self._rates):
            return x_KBW
        if not self._masks:
            B = x_KBW.shape[1]
            if B not in self._bits:
                self._bits[B] = _Bits(self._rates, self._widths, B, self._n_layers, x_KBW.device)
            kept_KLBW = self._bits[B].draw(generators) >= self._threshold_K111
            masks_KLBW = kept_KLBW * self._scale_K111.to(x_KBW.dtype)
            self._masks = list(masks_KLBW.unbind(1))[::-1]
        return x_KBW * self._masks.pop()


class _Bits:
    """Random bits for `n_layers` layers of B rows of every member, in memory that is used again."""

    def __init__(
        self, rates: Sequence[float], widths: Sequence[int], B: int, n_layers: int, device: torch.device
    ) -> None:
        K, W = len(widths), max(widths)
        # A CPU's generator gives the same words in one draw as in several; a GPU's does not.
        self._n_draws = 1 if device.type == "cpu" else n_layers
        # What is not drawn belongs to padding, or to members whose threshold keeps everything.
        self._bits_KLBW = torch.zeros((K, n_layers, B, W), dtype=torch.int16, device=device)
        self._words: list[Tensor | None] = []
        self._from: list[Tensor] = []
        self._to: list[Tensor] = []
        for k, (rate, width) in enumerate(zip(rates, widths, strict=True)):
            n_words = (B * width + 3) // 4
            self._words.append(torch.empty((n_layers, n_words), dtype=torch.int64, device=device) if rate > 0 else None)
            if (words := self._words[-1]) is not None:
                self._from += [layer.view(torch.int16)[: B * width].view(B, width) for layer in words]
                self._to += [layer_BW[:, :width] for layer_BW in self._bits_KLBW[k]]

    def draw(self, generators: Sequence[torch.Generator]) -> Tensor:
        """``(K, L, B, W)``, int16; overwritten by the next draw."""
        for words, generator in zip(self._words, generators, strict=True):
            if words is not None:
                for part in words.chunk(self._n_draws):
                    part.random_(-(2**63), None, generator=generator)
        torch._foreach_copy_(self._to, self._from)
        return self._bits_KLBW
