"""Promotion: the alias moves from the version it was compared with, to one that loads, and the ledger says so."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from pipeline.errors import GateError, PackageError
from pipeline.registry.base import ModelVersion
from pipeline.registry.ledger import history
from pipeline.registry.memory import InMemoryRegistry
from pipeline.registry.promotion import promote, rollback
from pipeline.tracking.memory import InMemoryTracker
from tests.tracking.records import SEARCH, record, search_info


@dataclass(frozen=True, slots=True)
class Shop:
    """A registry over a search with three completed trials, and its ledger."""

    registry: InMemoryRegistry
    runs: list[str]
    ledger: Path

    def promote(self, trial: int, expected: int | None, action: str = "promote") -> ModelVersion:
        return promote(
            self.registry, "adult", self.runs[trial], f"{SEARCH}/{trial}", {"automl.trial": str(trial)},
            expected=expected, action=action, evidence=["accuracy 0.9", "beats v1"], verify=loads, ledger=self.ledger,
        )  # fmt: skip

    def champion(self) -> int | None:
        version = self.registry.champion("adult")
        return None if version is None else version.version


def loads(_version: ModelVersion) -> None:
    """A model that verifies."""


def is_damaged(version: ModelVersion) -> None:
    raise PackageError(f"v{version.version}: weights do not match their hash")


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    package = tmp_path / "package"
    package.mkdir()
    tracker = InMemoryTracker()
    tracker.start_search(search_info())
    runs = [tracker.finish_trial(record(number), package) for number in range(3)]
    return Shop(InMemoryRegistry(tracker), runs, tmp_path / "registry" / "ledger.jsonl")


def test_a_promotion_registers_moves_the_alias_and_writes_it_down(shop: Shop) -> None:
    version = shop.promote(0, expected=None)
    assert (version.version, shop.champion()) == (1, 1)
    (move,) = history(shop.ledger, "adult")
    assert (move.action, move.before, move.after, move.evidence) == ("promote", None, 1, ("accuracy 0.9", "beats v1"))
    assert move.who
    champion = shop.registry.champion("adult")
    assert champion is not None
    assert champion.tags["automl.evidence"] == "accuracy 0.9 | beats v1"


def test_a_champion_that_moved_since_the_comparison_is_not_overwritten(shop: Shop) -> None:
    shop.promote(0, expected=None)
    shop.promote(1, expected=1)  # somebody else was faster
    with pytest.raises(GateError, match="version 2 and not 1; compare again"):
        shop.promote(2, expected=1)
    assert shop.champion() == 2
    assert len(history(shop.ledger, "adult")) == 2, "a move that did not happen is not on the ledger"


def test_a_model_that_does_not_load_never_becomes_the_champion(shop: Shop) -> None:
    shop.promote(0, expected=None)
    with pytest.raises(PackageError, match="v2"):
        promote(
            shop.registry, "adult", shop.runs[1], "key", {}, expected=1, action="force", evidence=[],
            verify=is_damaged, ledger=shop.ledger,
        )  # fmt: skip
    assert shop.champion() == 1
    assert len(history(shop.ledger, "adult")) == 1


def test_a_promotion_that_is_repeated_after_a_kill_makes_no_second_version(shop: Shop) -> None:
    shop.registry.register("adult", shop.runs[0], f"{SEARCH}/0", {})  # and there it was killed
    assert shop.promote(0, expected=None).version == 1
    assert [version.version for version in shop.registry.versions("adult")] == [1]


def test_a_rollback_goes_to_the_previous_champion_and_back_again(shop: Shop) -> None:
    shop.promote(0, expected=None)
    shop.promote(1, expected=1)
    for expected in (1, 2):
        assert rollback(shop.registry, "adult", verify=loads, ledger=shop.ledger, reason="worse on Mondays")
        assert shop.champion() == expected
    moves = history(shop.ledger, "adult")
    assert [(move.action, move.before, move.after) for move in moves[2:]] == [("rollback", 2, 1), ("rollback", 1, 2)]
    assert moves[-1].evidence == ("worse on Mondays",)


def test_a_rollback_without_a_previous_champion_or_to_a_damaged_one_changes_nothing(shop: Shop) -> None:
    with pytest.raises(GateError, match="no previous champion"):
        rollback(shop.registry, "adult", verify=loads, ledger=shop.ledger, reason="")
    shop.promote(0, expected=None)
    shop.promote(1, expected=1)
    with pytest.raises(PackageError, match="v1"):
        rollback(shop.registry, "adult", verify=is_damaged, ledger=shop.ledger, reason="")
    assert shop.champion() == 2
    assert len(history(shop.ledger, "adult")) == 2


def test_the_ledger_keeps_models_apart(shop: Shop) -> None:
    shop.promote(0, expected=None)
    assert history(shop.ledger, "other") == []
    assert history(shop.ledger.with_name("missing"), "adult") == []
