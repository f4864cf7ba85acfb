"""Memory that a training process keeps for its next step."""

from __future__ import annotations

import ctypes
import sys

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
"""Of mallopt(3), as in glibc's malloc.h."""


def keep_freed_memory() -> None:
    """Let this process keep what it frees, for blocks up to 32 MiB, glibc's limit.

    Otherwise activations of 128 KiB and more may go back to the system and come as fresh pages every step: 176 page
    faults, 0.4 ms of 2.4, a step of 32 members of 64-64-64-10 at batch 64. Does nothing where the C library is another.
    """
    if sys.platform == "linux" and hasattr(ctypes.CDLL(None), "mallopt"):
        library = ctypes.CDLL(None)
        library.mallopt(_MMAP_THRESHOLD, 32 * 2**20)
        library.mallopt(_TRIM_THRESHOLD, 2**30)
