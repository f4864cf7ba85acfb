"""torch's threads inside an operation."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def one_thread() -> Iterator[None]:
    """Compute with one thread, for what is small: a second one would wait for work in a loop, beside those who have
    some (a forward pass of 8 rows beside two training processes on two cores: 7 ms instead of 0.3, and the core that
    the loop took)."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
