"""What a training process sets for itself holds in every thread that computes."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.patience import PATIENCE_S

HALVE = """
import sys
import torch
from pipeline.training.process import set_up_training

if sys.argv[1] == "set up":
    set_up_training(2)
else:
    torch.set_num_threads(2)
small = torch.full((4_000_000,), 1.2e-38) * 0.5
print(int(torch.count_nonzero(small)))
"""


@pytest.mark.parametrize(("mode", "left"), [("as it is", 4_000_000), ("set up", 0)])
def test_no_thread_of_an_operation_keeps_what_is_too_small_for_a_full_mantissa(mode: str, left: int) -> None:
    command = [sys.executable, "-c", HALVE, mode]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=PATIENCE_S)
    assert int(done.stdout) == left
