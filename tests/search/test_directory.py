"""A search on disk: its id, its state, its one controller, and what may change between two starts."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.config import load_experiment
from pipeline.errors import SearchError
from pipeline.search.directory import (
    STATE,
    SearchState,
    differences,
    new_id,
    read_state,
    search_lock,
    states_of,
    write_state,
)

NOON = 1_767_268_800.0  # 2026-01-01 12:00 UTC
FILE = "name: digits\ndata:\n  source: sklearn:digits\n"


def state(search: str, created: float = NOON, experiment: str = "digits") -> SearchState:
    return SearchState(
        id=search, experiment=experiment, config_yaml="a: 1", fingerprint="f", split_hash="s", created=created
    )


def resolved(tmp_path: Path, *overrides: str) -> str:
    (tmp_path / "e.yaml").write_text(FILE)
    return load_experiment(tmp_path / "e.yaml", overrides).to_yaml()


def test_ids_say_what_and_when_and_never_collide(tmp_path: Path) -> None:
    names = []
    for _ in range(3):
        names.append(new_id("digits", NOON, tmp_path))
        (tmp_path / names[-1]).mkdir()
    assert names == ["digits-20260101-120000", "digits-20260101-120000-2", "digits-20260101-120000-3"]


def test_searches_of_an_experiment_come_oldest_first_and_others_stay_out(tmp_path: Path) -> None:
    for search, created, experiment in (("b", 1.0, "digits"), ("a", 2.0, "digits"), ("c", 0.0, "adult")):
        write_state(tmp_path / "searches" / search, state(search, created, experiment))
    (tmp_path / "searches" / "half-made").mkdir()
    assert [found.id for found in states_of(tmp_path, "digits")] == ["b", "a"]
    assert states_of(tmp_path / "nowhere", "digits") == []


@pytest.mark.parametrize("content", [b"", b"{}", b"[1]", b"\xff", b'{"id": "a"'])
def test_a_damaged_state_says_where(tmp_path: Path, content: bytes) -> None:
    (tmp_path / STATE).write_bytes(content)
    with pytest.raises(SearchError, match=rf"{STATE}: damaged .*; move .* away"):
        read_state(tmp_path)


@pytest.mark.parametrize(
    "override",
    [
        "search.budget.trials=7", "search.budget.time=5m", "search.budget.per_trial=9", "resources.devices=cpu",
        "evaluate.finalists=9", "promotion.gates=[]", "tracking.models=best",
    ],
)  # fmt: skip
def test_budgets_devices_and_what_comes_after_the_search_may_change(tmp_path: Path, override: str) -> None:
    assert differences(resolved(tmp_path), resolved(tmp_path, override)) == []


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("search.seed=1", "search.seed: 0 -> 1"),
        ("search.metric=log_loss", "search.metric: 'auto' -> 'log_loss'"),
        ("search.space.optimizer.name=sgd", "search.space.optimizer.name: None -> 'sgd'"),
        ("train.max_epochs=5", "train.max_epochs: 100 -> 5"),
        ("data.split.seed=3", "data.split.seed: 0 -> 3"),
        ("tracking.uri=sqlite:///other.db", "tracking.uri: 'sqlite:///mlruns/mlflow.db' -> 'sqlite:///other.db'"),
    ],
)
def test_what_decides_a_trials_result_may_not_change(tmp_path: Path, override: str, said: str) -> None:
    assert said in differences(resolved(tmp_path), resolved(tmp_path, override))


def test_a_second_controller_learns_who_is_the_first(tmp_path: Path) -> None:
    directory = tmp_path / "digits-1"
    with (
        search_lock(directory),
        pytest.raises(SearchError, match=r"search digits-1 is already running: pid \d+ on .*; wait"),
        search_lock(directory),
    ):
        pass
    with search_lock(directory):
        assert (directory / "lock").read_text().startswith("pid ")
