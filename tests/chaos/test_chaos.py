"""Whatever is killed and whenever: the search ends with exact totals, and nothing that was finished is touched.

One round in the gate; ``make chaos`` plays twenty. A seed decides when whom is killed, and each is printed.
"""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest

from tests.chaos.nemesis import Round
from tests.flows.project import Project

SEED = int(os.environ.get("CHAOS_SEED", random.SystemRandom().randrange(10**6)))
"""Of the first round; the others count on. ``CHAOS_SEED=N`` repeats a run of rounds."""
ROUNDS = int(os.environ.get("CHAOS_ROUNDS", "20"))


def play(folder: Path, seed: int, most_controller_kills: int = 4) -> None:
    one = Round(Project(folder), seed, most_controller_kills)
    print(f"chaos seed {seed}")
    one.play()
    print(f"  {one.starts} starts, {one.controller_kills} controllers and {one.worker_kills} workers killed")
    one.check()


@pytest.mark.slow
def test_a_search_survives_a_round_of_random_kills(tmp_path: Path) -> None:
    play(tmp_path, SEED, most_controller_kills=2)


@pytest.mark.chaos
@pytest.mark.parametrize("number", range(1, ROUNDS))
def test_a_search_survives_random_kills(tmp_path: Path, number: int) -> None:
    play(tmp_path, SEED + number)
