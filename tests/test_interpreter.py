"""Python collects garbage where it helps, and not where people wait."""

from __future__ import annotations

import subprocess
import sys

END = """
import atexit, gc
atexit.register(lambda: print(gc.get_freeze_count() > 1000, gc.get_threshold()))  # called after what comes later
from pipeline.interpreter import collect_rarely
collect_rarely()
"""


def test_nothing_that_is_alive_at_the_end_is_looked_through() -> None:
    done = subprocess.run([sys.executable, "-c", END], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "True (100000, 20, 20)"
