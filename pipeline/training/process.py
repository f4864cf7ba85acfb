"""What a training process asks of its C library and its processor."""

from __future__ import annotations

import ctypes
import sys

import torch

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
"""Of mallopt(3), as in glibc's malloc.h."""


def set_up_training(threads: int) -> None:
    """Make this process one that trains, with so many threads inside an operation. Before the first one: threads that
    run already do not flush."""
    torch.set_num_threads(threads)
    _keep_freed_memory()
    _flush_denormals()


def _keep_freed_memory() -> None:
    """Let this process keep what it frees, for blocks up to 32 MiB, glibc's limit.

    Otherwise activations of 128 KiB and more may go back to the system and come as fresh pages every step: 176 page
    faults, 0.4 ms of 2.4, a step of 32 members of 64-64-64-10 at batch 64. Does nothing where the C library is another.
    """
    if sys.platform == "linux" and hasattr(ctypes.CDLL(None), "mallopt"):
        library = ctypes.CDLL(None)
        library.mallopt(_MMAP_THRESHOLD, 32 * 2**20)
        library.mallopt(_TRIM_THRESHOLD, 2**30)


def _flush_denormals() -> None:
    """Have this thread, and those that it starts from now on, take numbers too small for a full mantissa for zero:
    below 1.2e-38 in float32, 2.2e-308 in float64.

    Processors compute with such numbers in microcode, and a net that has learned its data is full of them: gradients
    of classes that are out of the question, their squares, momentum that fades. ``python -m benchmarks denormals``
    finds what they cost, and no weight changed without them. Does nothing on a processor that cannot flush; GPUs
    compute with them at full speed.
    """
    torch.set_flush_denormal(True)
