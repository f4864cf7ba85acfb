"""Many promoters at once, and a kill after every write: the champion serves and is the best, the ledger knows how."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from pipeline.tracking.mlflow import MLflowTracker
from tests.chaos.server import Server
from tests.conftest import REPOSITORY
from tests.tracking.records import record, search_info
from tests.tracking.stores import copy_database

N_RUNS = 3
N_PROMOTERS = int(os.environ.get("CHAOS_PROMOTERS", "50"))
N_ROUNDS = int(os.environ.get("CHAOS_PROMOTER_ROUNDS", "20"))


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("server"))
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope="module", params=["sqlite", pytest.param("server", marks=pytest.mark.chaos)])
def given(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, package: Path, database: Path
) -> dict[str, Any]:
    """Where promoters promote, and runs with models for them."""
    folder = tmp_path_factory.mktemp(request.param)
    sqlite = request.param == "sqlite"
    uri = copy_database(database, folder) if sqlite else request.getfixturevalue("server").uri
    tracker = MLflowTracker(uri, folder / "artifacts")
    tracker.start_search(search_info())
    runs = [tracker.finish_trial(record(number), package) for number in range(N_RUNS)]
    warm = copy_database(database, folder / "warm")
    return {"uri": uri, "state": str(folder / "registry"), "runs": runs, "warm": warm, "package": str(package)}


def promoters(given: dict[str, Any], *tasks: tuple[str, dict[str, Any]]) -> list[Any]:
    """What processes of their own did, task by task."""
    process = subprocess.run(
        [sys.executable, "-m", "tests.registry.promoters", json.dumps(given | {"tasks": tasks})], cwd=REPOSITORY,
        env=os.environ | {"PYTHONPATH": str(REPOSITORY)}, capture_output=True, text=True, timeout=1800, check=False,
    )  # fmt: skip
    assert process.returncode == 0, process.stderr[-3000:]
    return list(json.loads(process.stdout))


@pytest.fixture(scope="module")
def outcomes(given: dict[str, Any]) -> dict[str, Any]:
    """A race, and kills after each write of a promotion: from one process that imports MLflow."""
    tasks: dict[str, tuple[str, dict[str, Any]]] = {
        "race": ("race", {"name": "raced", "n": 8, "kills": False, "seed": 1}),
        "promote": ("steps", {"action": "promote", "another": False}),
    }
    return dict(zip(tasks, promoters(given, *tasks.values()), strict=True))


def is_linear(moves: list[Any]) -> bool:
    """Every move starts where the one before it ended, the first from nowhere."""
    return [before for before, _, _ in moves] == [None, *(after for _, after, _ in moves)][:-1]


def test_of_many_promoters_the_best_candidate_is_the_champion_and_every_move_was_an_improvement(
    outcomes: dict[str, Any],
) -> None:
    seen = outcomes["race"]
    assert seen["score"] == 7
    assert is_linear(seen["moves"])
    scores = [seen["versions"][str(after)] for _, after, _ in seen["moves"]]
    assert scores == sorted(set(scores))
    assert all(action == "promote" for *_, action in seen["moves"])
    assert seen["aliases"]["champion"] == seen["moves"][-1][1]


def test_a_kill_after_any_write_of_a_promotion_leaves_a_champion_that_serves_and_the_next_one_mends_the_books(
    outcomes: dict[str, Any],
) -> None:
    the_books_are_mended(outcomes["promote"], "promote", another=False)


@pytest.mark.chaos
@pytest.mark.parametrize(("action", "another"), [("rollback", False), ("promote", True)])
def test_so_does_a_kill_of_a_rollback_and_so_does_another_promoter(
    given: dict[str, Any], action: str, another: bool
) -> None:
    (steps,) = promoters(given, ("steps", {"action": action, "another": another}))
    the_books_are_mended(steps, action, another=another)


def the_books_are_mended(steps: list[Any], action: str, *, another: bool) -> None:
    assert len(steps) >= 7, "there are that many writes"
    assert [step["survived"] for step in steps] == [False] * (len(steps) - 1) + [True]
    before, wanted = {"promote": (1, 2), "rollback": (2, 1)}[action]
    for step in steps:
        killed, healed = step["killed"], step["healed"]
        assert killed["champion"] in {before, wanted}
        assert is_linear(killed["moves"])
        assert is_linear(healed["moves"])
        assert healed["moves"][-1][1] == healed["champion"]
        assert healed["promoted"]
        assert all(kind in {"promote", "rollback"} for *_, kind in healed["moves"]), "none is taken for somebody else's"
        if action == "promote":
            assert healed["score"] == (7 if another else 5)
            assert len(healed["versions"]) <= 2 + another, "registered once, however often it was tried"
        else:
            assert healed["champion"] == killed["champion"]
    assert {step["killed"]["champion"] for step in steps} == {before, wanted}, "kills before and after the alias moved"


@pytest.mark.chaos
@pytest.mark.parametrize("number", range(N_ROUNDS))
def test_many_promoters_under_kills_end_with_the_best_champion_and_a_linear_ledger(
    given: dict[str, Any], number: int
) -> None:
    work = {"name": f"round-{number}", "n": N_PROMOTERS, "kills": True, "seed": number}
    (seen,) = promoters(given, ("race", work))
    print(f"{seen['killed']} kills, {len(seen['moves'])} moves")
    assert seen["killed"] > 0
    assert seen["score"] == N_PROMOTERS - 1
    assert len(set(seen["versions"].values())) == len(seen["versions"]), "no candidate is registered twice"
    assert is_linear(seen["moves"])
    scores = [seen["versions"][str(after)] for _, after, _ in seen["moves"]]
    assert all(worse < better for worse, better in pairwise(scores))
    assert all(action == "promote" for *_, action in seen["moves"])
