"""What every model registry does: the fake in memory and the real one are held to the same words."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from pipeline.errors import GateError, StoreError
from pipeline.packaging import load_package, package_digest
from pipeline.registry.base import CHAMPION, PREVIOUS, ModelRegistry
from pipeline.registry.memory import InMemoryRegistry
from pipeline.registry.mlflow import MLflowRegistry
from pipeline.tracking.base import Tracker
from pipeline.tracking.memory import InMemoryTracker
from pipeline.tracking.mlflow import MLflowTracker
from tests.tracking.records import SEARCH, record, search_info
from tests.tracking.stores import copy_database


@dataclass(frozen=True, slots=True)
class Registered:
    """A registry under test, with the runs of a search to register."""

    registry: ModelRegistry
    tracker: Tracker
    runs: tuple[str, ...]
    without_model: str

    def register(self, number: int, name: str = "digits") -> int:
        return self.registry.register(
            name, self.runs[number], f"{SEARCH}/{number}", {"automl.trial": str(number)}
        ).version


@pytest.fixture(params=["memory", "mlflow"])
def store(request: pytest.FixtureRequest, tmp_path: Path, package: Path) -> Registered:
    tracker: Tracker
    registry: ModelRegistry
    if request.param == "memory":
        tracker = InMemoryTracker()
        registry = InMemoryRegistry(tracker)
    else:
        uri = copy_database(request.getfixturevalue("database"), tmp_path)
        tracker = MLflowTracker(uri, tmp_path / "artifacts")
        registry = MLflowRegistry(uri, tmp_path / "registry")
    tracker.start_search(search_info())
    runs = tuple(tracker.finish_trial(record(number), package) for number in range(3))
    return Registered(registry, tracker, runs, tracker.finish_trial(record(9), None))


def test_nothing_is_registered_at_first(store: Registered) -> None:
    assert store.registry.names() == ()
    assert store.registry.versions("digits") == ()
    assert store.registry.champion("digits") is None


def test_a_registered_run_is_a_version_with_its_tags(store: Registered) -> None:
    version = store.registry.register("digits", store.runs[0], "key", {"automl.search": SEARCH})
    assert (version.name, version.version, version.run_id, version.aliases) == ("digits", 1, store.runs[0], ())
    assert version.tags["automl.search"] == SEARCH
    assert version.tags["automl.key"] == "key"
    assert store.registry.names() == ("digits",)
    assert store.registry.versions("digits") == (version,)


def test_registering_twice_is_registering_once(store: Registered) -> None:
    assert [store.register(0), store.register(0), store.register(1), store.register(0)] == [1, 1, 2, 1]
    assert [version.version for version in store.registry.versions("digits")] == [2, 1], "newest first"


def test_names_keep_apart(store: Registered) -> None:
    assert store.register(0, "digits") == store.register(0, "adult") == 1
    assert store.registry.names() == ("adult", "digits")


def test_a_run_without_a_model_is_not_registered(store: Registered) -> None:
    with pytest.raises(StoreError, match="no model"):
        store.registry.register("digits", store.without_model, "key", {})
    assert store.registry.versions("digits") == ()


def test_the_champion_moves_and_leaves_the_one_before_as_previous(store: Registered) -> None:
    first, second = store.register(0), store.register(1)
    store.registry.move_champion("digits", first, None)
    champion = store.registry.champion("digits")
    assert champion is not None
    assert (champion.version, champion.aliases) == (first, (CHAMPION,))
    store.registry.move_champion("digits", second, first)
    newest, oldest = store.registry.versions("digits")
    assert newest.aliases == (CHAMPION,)
    assert oldest.aliases == (PREVIOUS,)


def test_a_rollback_is_a_move_like_any_other(store: Registered) -> None:
    first, second = store.register(0), store.register(1)
    store.registry.move_champion("digits", first, None)
    store.registry.move_champion("digits", second, first)
    store.registry.move_champion("digits", first, second)
    newest, oldest = store.registry.versions("digits")
    assert (oldest.aliases, newest.aliases) == ((CHAMPION,), (PREVIOUS,))


@pytest.mark.parametrize("expected", [None, 2, 99])
def test_a_champion_that_is_not_the_expected_one_stays(store: Registered, expected: int | None) -> None:
    first, second = store.register(0), store.register(1)
    store.registry.move_champion("digits", first, None)
    with pytest.raises(GateError, match="champion of digits is version 1"):
        store.registry.move_champion("digits", second, expected)
    champion = store.registry.champion("digits")
    assert champion is not None
    assert champion.version == first


def test_a_champion_that_was_expected_and_is_not_there_is_said(store: Registered) -> None:
    version = store.register(0)
    with pytest.raises(GateError, match="not 7"):
        store.registry.move_champion("digits", version, 7)
    assert store.registry.champion("digits") is None


def test_the_champion_does_not_move_to_a_version_that_does_not_exist(store: Registered) -> None:
    store.register(0)
    for name in ("digits", "unknown"):
        with pytest.raises(GateError, match="no version 5"):
            store.registry.move_champion(name, 5, None)


def test_moving_the_champion_to_itself_keeps_the_previous_one(store: Registered) -> None:
    first, second = store.register(0), store.register(1)
    store.registry.move_champion("digits", first, None)
    store.registry.move_champion("digits", second, first)
    store.registry.move_champion("digits", second, second)
    newest, oldest = store.registry.versions("digits")
    assert (newest.aliases, oldest.aliases) == ((CHAMPION,), (PREVIOUS,))


def test_a_move_whose_answer_got_lost_may_be_said_again(store: Registered) -> None:
    first, second = store.register(0), store.register(1)
    store.registry.move_champion("digits", first, None)
    store.registry.move_champion("digits", second, first)
    store.registry.move_champion("digits", second, first)
    newest, oldest = store.registry.versions("digits")
    assert (newest.aliases, oldest.aliases) == ((CHAMPION,), (PREVIOUS,))


def test_tags_are_added_to_a_version(store: Registered) -> None:
    version = store.register(0)
    store.registry.tag("digits", version, {"automl.promoted": "true"})
    (found,) = store.registry.versions("digits")
    assert found.tags["automl.promoted"] == "true"
    assert found.tags["automl.trial"] == "0"


def test_a_versions_package_is_downloaded_whole_and_as_often_as_asked(
    store: Registered, tmp_path: Path, package: Path
) -> None:
    version = store.register(0)
    for _ in range(2):
        folder = store.registry.download("digits", version, tmp_path / "here")
        assert package_digest(folder) == package_digest(package)
        load_package(folder, package_digest(package))


def test_a_version_that_does_not_exist_is_a_store_error(store: Registered, tmp_path: Path) -> None:
    with pytest.raises(StoreError):
        store.registry.download("digits", 1, tmp_path)
