"""The promotion stage: who moves the alias in which mode, and what happens when another search was faster."""

from __future__ import annotations

from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from flows.stages import promote as stage
from flows.stages.evaluate import Evaluated
from flows.stages.experiment import Experiment
from flows.stages.outcome import result_line
from flows.stages.promote import PROMOTION, Promotion, PromotionRecord, promote_stage
from flows.stores import Stores, _Opened
from flows.workspace import Workspace
from pipeline.config import ExperimentConfig
from pipeline.data.config import DataConfig
from pipeline.data.prepare import Prepared, prepare
from pipeline.errors import ChampionMovedError
from pipeline.evaluation.finalists import Evaluation, Finalist
from pipeline.evaluation.intervals import Interval
from pipeline.registry.ledger import history
from pipeline.registry.memory import InMemoryRegistry
from pipeline.search.directory import SearchState
from pipeline.tracking.background import BackgroundTracker
from pipeline.tracking.memory import InMemoryTracker
from tests.packaging.cases import make_case
from tests.tracking.records import SEARCH, finalist, record, search_info


@dataclass(frozen=True, slots=True)
class Stage:
    """A finished search whose trial 0 won, with everything that a promotion needs."""

    config: ExperimentConfig
    workspace: Workspace
    state: SearchState
    prepared: Prepared
    stores: Stores
    runs: dict[int, str]

    def evaluated(self, champion: int | None = None) -> Evaluated:
        score = Interval(value=0.9, low=0.8, high=0.95, confidence=0.95)
        winner = Finalist(trial=0, family="mlp", validation=0.92, n_params=10, test={"accuracy": score})
        evaluation = Evaluation(metric="accuracy", n_rows=10, finalists=(winner,), champion=champion)
        return Evaluated(evaluation, self.runs)

    def promote(self, mode: str, *, asked: bool = False, gates: tuple[dict[str, Any], ...] = ()) -> Promotion:
        promotion = {"model": "digits", "mode": mode, "gates": gates}
        config = ExperimentConfig.model_validate(self.config.model_dump() | {"promotion": promotion})
        experiment = Experiment(config, Path(), self.workspace)
        return promote_stage(experiment, self.state, self.evaluated(), self.prepared, self.stores, asked=asked)

    @property
    def champion(self) -> int | None:
        version = self.stores.registry.champion("digits")
        return None if version is None else version.version


@pytest.fixture
def search(tmp_path: Path) -> Stage:
    tracker = InMemoryTracker()
    tracker.start_search(search_info())
    package = make_case(tmp_path / "case", "tabular", "mlp").write(tmp_path / "package")
    runs = {0: tracker.finish_finalist(SEARCH, finalist(0), package, {})}
    other = tracker.finish_trial(record(1), package)
    registry = InMemoryRegistry(tracker)
    opening: Future[_Opened] = Future()
    opening.set_result(_Opened(tracker, BackgroundTracker(tracker), registry))
    state = SearchState(
        id=SEARCH, experiment="digits", config_yaml="name: digits\n", fingerprint="f", split_hash="s", created=0.0
    )
    config = ExperimentConfig.model_validate({"name": "digits", "data": {"source": "sklearn:iris"}})
    prepared = prepare(DataConfig(source="sklearn:iris"), tmp_path, tmp_path / "data")
    return Stage(config, Workspace(tmp_path / "mlruns"), state, prepared, Stores(opening), runs | {1: other})


def test_auto_moves_the_alias_and_keeps_what_was_said(search: Stage) -> None:
    assert search.promote("auto", gates=({"metric": "accuracy", "min": 0.5},)).promoted
    assert search.champion == 1
    kept = PromotionRecord.model_validate_json((search.workspace.search(SEARCH) / PROMOTION).read_bytes())
    assert kept.promoted
    assert [gate.passed for gate in kept.gates] == [True]


def test_approve_registers_and_waits_until_somebody_asks(search: Stage) -> None:
    waiting = search.promote("approve")
    assert not waiting.promoted
    assert "waits for approval" in waiting.line
    assert result_line(waiting.evaluated, waiting) == waiting.line, "in the morning, too"
    assert search.champion is None
    assert len(search.stores.registry.versions("digits")) == 1
    assert search.promote("approve", asked=True).promoted
    assert search.champion == 1
    assert len(search.stores.registry.versions("digits")) == 1, "the version that waited"


def test_never_leaves_the_registry_alone_until_somebody_asks(search: Stage) -> None:
    assert not search.promote("never").promoted
    assert search.stores.registry.versions("digits") == ()
    assert search.promote("never", asked=True).promoted


@pytest.mark.parametrize("mode", ["auto", "approve", "never"])
def test_no_mode_goes_past_a_gate(search: Stage, mode: str) -> None:
    refused = search.promote(mode, asked=True, gates=({"metric": "accuracy", "min": 0.99},))
    assert not refused.promoted
    assert "not passed" in refused.line
    assert search.stores.registry.versions("digits") == ()


def test_a_winner_is_compared_again_where_another_search_was_faster(
    search: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry = search.stores.registry
    registry.move_champion("digits", registry.register("digits", search.runs[1], "other/1", {}).version, None)
    monkeypatch.setattr(stage, "evaluate_stage", lambda *_: search.evaluated(champion=1))
    done = search.promote("auto")
    assert done.promoted
    assert done.evaluated.evaluation.champion == 1
    moves = history(search.workspace.ledger, "digits")
    assert [(m.action, m.before, m.after) for m in moves] == [("elsewhere", None, 1), ("promote", 1, 2)]


def test_a_champion_that_keeps_moving_ends_in_an_error(search: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    registry = search.stores.registry
    registry.move_champion("digits", registry.register("digits", search.runs[1], "other/1", {}).version, None)
    monkeypatch.setattr(stage, "evaluate_stage", lambda *_: search.evaluated(champion=None))
    with pytest.raises(ChampionMovedError, match="version 1 and not None; compare again"):
        search.promote("auto")
