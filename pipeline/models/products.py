"""Batched matrix products on a CPU, by the faster of the two BLAS libraries at hand.

torch calls MKL, which leaves AVX-512 unused on processors that are not Intel's; numpy brings OpenBLAS, which uses it.
On one Zen 5 core, products of 16 pairs of 64 x 64 float32 matrices (GFLOP/s; torch 2.13, OpenBLAS 0.3.31): torch
80 to 90, numpy 120 to 230, and with OpenBLAS held to AVX2 85 to 95. On a Xeon with AVX-512, of 8 pairs of 139 x 139 by
64 columns, MKL's are faster: forward, to the weights and to the input 183, 147 and 168 against 125 (188 in slices), 103
and 126; a step of a cohort takes 0.83 to 0.98 of the time (eight shapes, medians of 40 interleaved pairs).
"""

from __future__ import annotations

import functools
import math
from pathlib import Path
from typing import Final

import numpy as np
import torch
from threadpoolctl import threadpool_info
from torch import Tensor

_BY_NUMPY: Final = frozenset({torch.float32, torch.float64})

_SMALL: Final = 10**6
"""Up to so many multiplications OpenBLAS's AVX-512 kernels read the matrices where they lie; of larger ones they make
packed copies first, which costs more than it gains for the few rows of a batch."""
_NARROW: Final = 96
"""Columns up to which that is so: of 187 x 187 by 64 columns, 208 GFLOP/s in slices of 63 rows against 172 whole; of
128 columns as often slower as faster (one Zen 5 core)."""
_SLICE_ROWS: Final = 40
"""Thinner slices gain nothing."""
_GAPS: Final = 64 * 64
"""Values of a product up to which that is slower than a product of its own that is copied: 32 x 30 of 32 pairs take 46
instead of 77 us, 64 x 64 of 16 pairs 78 instead of 86, but 187 x 187 of 16 pairs 690 instead of 525 (one Xeon core)."""
_AVX512: Final = frozenset({"SkylakeX", "Cooperlake", "SapphireRapids"})
"""OpenBLAS's names of its kernels."""


silently: Final = np.errstate(all="ignore")
"""Decorates what calls `bmm`: numpy says nothing of infinities. A member may diverge, and the trainer notices."""


def bmm(a_KMN: Tensor, b_KNP: Tensor, into: Tensor | None = None) -> Tensor:
    """Products of K pairs of matrices, ``(K, M, P)``, outside of autograd.

    Args:
        into: memory of the result, where it has a place already.
    """
    several_threads = torch.get_num_threads() > 1  # numpy takes pair after pair
    if a_KMN.dtype not in _BY_NUMPY or a_KMN.is_cuda or several_threads or _mkl_is_at_home():
        return _by_torch(a_KMN, b_KNP, into)
    K, M, N = a_KMN.shape
    if into is None:
        into = a_KMN.new_empty(K, M, b_KNP.shape[2])
    a, b, out = _array(a_KMN), _array(b_KNP), into.numpy()
    n_rows = _slice_rows(M, N, b.shape[2]) if b_KNP.stride(2) == 1 else M
    for start in range(0, M, n_rows):
        np.matmul(a[:, start : start + n_rows], b, out=out[:, start : start + n_rows])
    return into


def _by_torch(a_KMN: Tensor, b_KNP: Tensor, into: Tensor | None) -> Tensor:
    """Into memory with gaps between the matrices torch multiplies pair after pair: small products are copied there."""
    if into is None:
        return torch.bmm(a_KMN, b_KNP)
    if into.dtype != a_KMN.dtype or (into.stride(0) * len(into) > into.numel() and into[0].numel() <= _GAPS):
        return into.copy_(torch.bmm(a_KMN, b_KNP))
    return torch.bmm(a_KMN, b_KNP, out=into)


def _array(tensor: Tensor) -> np.ndarray:
    return tensor.detach().numpy() if tensor.requires_grad else tensor.numpy()


@functools.cache
def _slice_rows(M: int, N: int, P: int) -> int:
    """Rows of the first matrix that are multiplied at a time: all, where slices gain nothing."""
    if P > _NARROW or M * N * P <= _SMALL or not _has_small_kernels():
        return M
    most = _SMALL // (N * P) // 8 * 8
    return M if most < _SLICE_ROWS else math.ceil(M / math.ceil(M / most) / 8) * 8


@functools.cache
def _mkl_is_at_home() -> bool:
    """Whether torch multiplies with MKL on one of its maker's processors."""
    try:
        processor = Path("/proc/cpuinfo").read_text(errors="replace")
    except OSError:  # not Linux
        return False
    return torch.backends.mkl.is_available() and "GenuineIntel" in processor  # type: ignore[no-untyped-call]


@functools.cache
def _has_small_kernels() -> bool:
    """Whether the BLAS that numpy calls is OpenBLAS with AVX-512 kernels."""
    return any(
        library.get("architecture") in _AVX512 for library in threadpool_info() if "numpy" in library["filepath"]
    )
