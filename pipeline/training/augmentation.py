"""Images changed at random while training: mirrored, shifted, partly covered, mixed. Off costs nothing.

What happens to a batch is a function of the member's seed and the step alone, by a hash and without a generator's
state: so it is the same alone and in a cohort, on any device, and after a resume. Axes: K members, B rows of a batch,
C channels, H height, W width.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import torch
import torch.nn.functional as F
from torch import Tensor

from pipeline.data.spec import DataSpec
from pipeline.training.config import AugmentationConfig, TrialConfig

_FIELD_BITS: Final = 15
"""A row's 64 bits are four numbers below 2^15 and, above them, a coin."""
_GAMMA: Final = -0x61C8864680B583EB


class Augmenter:
    """Changes the batches of K members, each by its own choices. Pixels that come from outside are 0, the channel's
    mean, as what is covered.

    Sources: a shift by up to so many pixels and mirror images as in ResNet's training (arXiv 1512.03385, section 4.2);
    a covered square whose centre lies anywhere in the image (Cutout, arXiv 1708.04552); pairs of rows and of their
    losses, one share a batch (mixup, arXiv 1710.09412). Rows are in random order, so a row's partner is its neighbour.
    """

    def __init__(self, configs: Sequence[AugmentationConfig], seeds: Sequence[int], device: torch.device) -> None:
        self._seed_K = torch.tensor(seeds, dtype=torch.int64)
        self._mixup = [config.mixup for config in configs]
        self._margin = max(config.shift for config in configs)
        self._flips = any(config.flip == "horizontal" for config in configs)
        self._covers = any(config.cutout for config in configs)
        self._shift_K1 = torch.tensor([config.shift for config in configs], device=device)[:, None]
        self._cutout_K1 = torch.tensor([config.cutout for config in configs], device=device)[:, None]
        self._flip_K1 = torch.tensor([config.flip == "horizontal" for config in configs], device=device)[:, None]

    def __call__(self, x_KBCHW: Tensor, steps: Sequence[int]) -> tuple[Tensor, Tensor | None]:
        """The changed batch, and where some member mixes the share ``(K, 1)`` of its own rows; the rest is that of
        `partners`.

        Args:
            steps: how many steps each member has taken.
        """
        K, B, C, H, W = x_KBCHW.shape
        key_K = _hashed(self._seed_K + _GAMMA * (1 + torch.tensor(steps)))
        bits_KB = _hashed(key_K.to(x_KBCHW.device)[:, None] + _GAMMA * torch.arange(1, B + 1, device=x_KBCHW.device))
        x_NCHW = x_KBCHW.flatten(0, 1)
        if self._flips:
            flipped_N = ((bits_KB < 0) & self._flip_K1).flatten()
            x_NCHW = torch.where(flipped_N[:, None, None, None], x_NCHW.flip(3), x_NCHW)
        if self._margin:
            down_N, right_N = (
                (_below(bits_KB, field, 2 * self._shift_K1 + 1) + self._margin - self._shift_K1).flatten()
                for field in (0, 1)
            )
            x_NCHW = _windows(x_NCHW, self._margin, down_N, right_N)
        if self._covers:
            rows_N, columns_N = (_below(bits_KB, field, side).flatten() for field, side in ((2, H), (3, W)))
            size_N = self._cutout_K1.expand(K, B).flatten()
            covered_NHW = _span(rows_N, size_N, H)[:, :, None] & _span(columns_N, size_N, W)[:, None, :]
            x_NCHW = x_NCHW.masked_fill(covered_NHW[:, None], 0)
        x_KBCHW = x_NCHW.view(K, B, C, H, W)
        if not any(self._mixup):
            return x_KBCHW, None
        own_K1 = self._own_shares(key_K).to(x_KBCHW)[:, None]
        return torch.lerp(partners(x_KBCHW), x_KBCHW, own_K1[:, :, None, None, None]), own_K1

    def _own_shares(self, key_K: Tensor) -> Tensor:
        """float64 ``(K,)``: a draw from Beta(alpha, alpha) by its quantile function; 1 for members that do not mix."""
        from scipy.special import betaincinv  # here: it takes 0.1 s, and few trials mix

        uniform_K = (_shifted(_hashed(key_K), 11) + 0.5) * 2.0**-53
        return torch.tensor(
            [float(betaincinv(a, a, u)) if a else 1.0 for a, u in zip(self._mixup, uniform_K.tolist(), strict=True)],
            dtype=torch.float64,
        )


def make_augmenter(configs: Sequence[TrialConfig], spec: DataSpec, device: torch.device) -> Augmenter | None:
    """The augmenter of these members; None where none of them changes anything.

    Raises:
        ValueError: the data is no images.
    """
    chosen = [config.augmentation for config in configs]
    if all(config == AugmentationConfig() for config in chosen):
        return None
    if spec.kind != "image":
        raise ValueError(f"only images are augmented, but got {spec.kind} data")
    return Augmenter(chosen, [config.seed for config in configs], device)


def partners(rows_KB: Tensor) -> Tensor:
    """Each row's partner: the row before it, ``(K, B, …)``."""
    return rows_KB.roll(1, dims=1)


def _windows(x_NCHW: Tensor, margin: int, down_N: Tensor, right_N: Tensor) -> Tensor:
    """Each image cut out of its padded self, so many pixels from the top left corner."""
    H, W = x_NCHW.shape[2:]
    views = F.pad(x_NCHW, (margin, margin, margin, margin)).unfold(2, H, 1).unfold(3, W, 1)
    return views[torch.arange(len(x_NCHW), device=x_NCHW.device), :, down_N, right_N]


def _span(centre_N: Tensor, size_N: Tensor, side: int) -> Tensor:
    """Which of `side` places lie in a stretch around the centre: bool ``(N, side)``."""
    start_N1 = (centre_N - size_N // 2)[:, None]
    place = torch.arange(side, device=centre_N.device)
    return (place >= start_N1) & (place < start_N1 + size_N[:, None])


def _below(bits_KB: Tensor, field: int, n: Tensor | int) -> Tensor:
    """A number from 0 to n - 1 from one of a row's four fields; n may be one a member."""
    return ((_shifted(bits_KB, field * _FIELD_BITS) & (2**_FIELD_BITS - 1)) * n) >> _FIELD_BITS


def _hashed(bits: Tensor) -> Tensor:
    """The finaliser of splitmix64 (Steele, Lea and Flood, OOPSLA 2014) on int64, whose products wrap."""
    bits = (bits ^ _shifted(bits, 30)) * -0x40A7B892E31B1A47
    bits = (bits ^ _shifted(bits, 27)) * -0x6B2FB644ECCEEE15
    return bits ^ _shifted(bits, 31)


def _shifted(bits: Tensor, by: int) -> Tensor:
    """Shifted to the right with zeros coming in, as unsigned numbers are."""
    return (bits >> by) & (2 ** (64 - by) - 1) if by else bits
