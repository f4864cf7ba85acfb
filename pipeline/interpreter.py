"""Python's own housekeeping, where people wait for it."""

from __future__ import annotations

import atexit
import gc
from typing import Final

THRESHOLDS: Final = (100_000, 20, 20)
"""Of `gc.set_threshold`; Python's are 700, 10, 10."""


def collect_rarely() -> None:
    """Look for cyclic garbage less often, and not at all when the process ends.

    Our libraries are a million objects that stay. Python looks through all of them again and again while they are
    imported (1.1 of 3.9 s of CPU for `automl run`, on one Zen 5 core and Python 3.11), and twice more at the end
    (1.2 to 1.9 s), when the system takes all memory back anyway.
    """
    gc.set_threshold(*THRESHOLDS)
    atexit.register(gc.freeze)  # functions registered first are called last
