"""The controller with scripted workers: exact budgets, one trial's trouble is its own, a restart loses nothing."""

from __future__ import annotations

import errno
import math
import pkgutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
from optuna.trial import TrialState

from pipeline.config import Budget, SearchConfig
from pipeline.errors import SearchError, SearchPausedError
from pipeline.files import sha256_file
from pipeline.models import FAMILIES
from pipeline.records import trial_directory, write_record
from pipeline.search.controller import Controller
from pipeline.search.progress import Progress
from pipeline.search.study import N_STARTUP, OptunaSuggester, open_study
from pipeline.training.checkpoint import CHECKPOINT
from pipeline.training.config import OptimisationConfig, TrialConfig
from pipeline.training.trainer import WEIGHTS
from tests.search.fakes import FakePool, Script
from tests.search.searches import BAD, DEADLY, FIRST, GOOD, HANGING, Search, scripts


@pytest.mark.parametrize("n_workers", [1, 2, 5, 12])
def test_the_trial_budget_is_exact_for_any_number_of_workers(search: Search, n_workers: int) -> None:
    reason, progress = search.run(FakePool(scripts({}), n_workers))
    assert reason == "trial budget used up"
    assert search.states() == dict.fromkeys(range(7), "COMPLETE")
    assert (progress.asked, progress.ended, progress.complete) == (7, 7, 7)
    assert Counter(n for begun in search.pool.begun for n in begun) == Counter(range(7)), "each trained once"
    assert search.sink.begun == list(range(7))


def test_a_record_holds_the_best_epoch_and_the_whole_curve(search: Search) -> None:
    search.run(FakePool(lambda number, _: Script(scores=(0.5, 0.9, 0.9, 0.7))))
    record = search.records()[3]
    assert (record.objective, record.best_epoch) == (0.9, 2)
    assert [m.metrics["accuracy"] for m in record.curve] == [0.5, 0.9, 0.9, 0.7]
    assert record.weights_sha256 is not None


def test_one_trials_trouble_is_its_own(search: Search) -> None:
    zoo = {1: BAD, 2: DEADLY, 3: HANGING, 4: Script(scores=(), then="fail")}
    reason, progress = search.run(FakePool(scripts(zoo)), budget=Budget(trials=7, per_trial=0.3))
    assert reason == "trial budget used up"
    assert search.states() == {0: "COMPLETE", 1: "FAIL", 2: "FAIL", 3: "FAIL", 4: "FAIL", 5: "COMPLETE", 6: "COMPLETE"}
    errors = {number: record.error or "" for number, record in search.records().items()}
    assert errors[1] == "ValueError: trial 1 cannot learn"
    assert errors[2].startswith("worker_died: killed by signal 9 (SIGKILL), 3 times; out of memory")
    assert errors[3] == "timeout: trained longer than budget.per_trial, 0.3 s"
    assert all(record.objective is None for record in search.records().values() if record.state == "FAIL")
    assert progress.last_error is not None
    assert search.checkpoints() == [], "whose end is on record needs none"


def test_a_trial_whose_worker_died_is_begun_again_and_may_complete(search: Search) -> None:
    pool = FakePool(lambda number, times: DEADLY if number == 2 and times < 2 else GOOD)
    search.run(pool)
    assert search.states() == dict.fromkeys(range(7), "COMPLETE")
    assert sum(2 in begun for begun in pool.begun) == 3
    assert [m.epoch for m in search.records()[2].curve] == [1, 2, 3], "what is reported again is not counted twice"


def test_nothing_but_failures_stops_the_search_with_the_reason(search: Search) -> None:
    with pytest.raises(SearchError, match=r"all 5 trials failed, the last one with: ValueError: trial \d cannot learn"):
        search.run(FakePool(scripts({}, otherwise=BAD)), budget=Budget(trials=100))
    assert len(search.records()) == 5


def test_one_success_among_failures_keeps_the_search_going(search: Search) -> None:
    search.run(FakePool(scripts({0: GOOD}, otherwise=BAD), n_workers=1), budget=Budget(trials=12))
    assert Counter(search.states().values()) == {"COMPLETE": 1, "FAIL": 11}


@pytest.mark.parametrize("deaf_epochs", [0, 3])
def test_a_trial_is_told_to_stop_once_and_ends_as_pruned(tmp_path: Path, deaf_epochs: int) -> None:
    search = Search(tmp_path, pruner="median")
    better = Script(scores=(0.9,) * 9)
    pool = FakePool(scripts({6: Script(scores=(0.1,) * 9)}, otherwise=better), n_workers=1, deaf_epochs=deaf_epochs)
    search.run(pool)
    assert pool.verdicts == [(6, "prune")]
    assert search.states() == dict.fromkeys(range(6), "COMPLETE") | {6: "PRUNED"}
    record = search.records()[6]
    assert len(record.curve) < 9
    assert record.objective == pytest.approx(0.1), "what it reached stays on record"


def test_a_trial_whose_worker_died_before_it_stopped_is_told_again(tmp_path: Path) -> None:
    search = Search(tmp_path, pruner="median")
    worse = [Script(scores=(0.1,) * 8, then="die"), Script(scores=(0.1,) * 20)]
    better = Script(scores=(0.9,) * 20)
    pool = FakePool(lambda number, times: worse[times] if number == 6 else better, n_workers=1, deaf_epochs=9)
    search.run(pool)
    assert pool.verdicts == [(6, "prune")] * 2
    assert search.states() == dict.fromkeys(range(6), "COMPLETE") | {6: "PRUNED"}


def test_when_the_time_is_up_running_trials_finish_and_nothing_is_left_open(search: Search) -> None:
    pool = FakePool(scripts({}, otherwise=Script(scores=(0.5,) * 100_000)))
    reason, progress = search.run(pool, budget=Budget(trials=None, time=0.3))
    assert reason == "time budget used up"
    states = search.states()
    assert Counter(states.values())["COMPLETE"] == 2, "those that were training count with their best epoch"
    dismissed = [record for record in search.records().values() if record.state == "PRUNED"]
    assert {record.error for record in dismissed} <= {"not started: time budget used up"}
    assert progress.asked == progress.ended


def test_a_stop_leaves_a_search_that_the_next_start_finishes(search: Search) -> None:
    pool = FakePool(lambda number, _: Script(scores=(0.5,) * (10 + 20 * number)))
    reason, progress = search.run(pool, lambda p: search.stop.request() if p.ended >= 2 else None)
    assert reason == "interrupted"
    before = search.records()
    assert 2 <= len(before) < 7
    assert {verdict for _, verdict in pool.verdicts} == {"suspend"}

    reason, progress = search.run(FakePool(scripts({})))
    assert reason == "trial budget used up"
    assert progress.ended == 7
    assert search.states() == dict.fromkeys(range(7), "COMPLETE")
    again = {n for begun in search.pool.begun for n in begun}
    assert not again & before.keys(), "what had ended is not trained again"
    rates = [record.params["optimizer.lr"] for record in search.records().values()]
    assert len(set(rates)) == 7, "a resumed sampler does not repeat its suggestions"


def test_a_second_stop_does_not_wait_for_the_epoch(search: Search) -> None:
    def stop_twice(progress: Progress) -> None:
        if progress.running:
            search.stop.request()
            search.stop.request()

    hanging = FakePool(scripts({}, otherwise=HANGING))
    reason, _ = search.run(hanging, stop_twice)
    assert reason == "interrupted"
    assert search.records() == {}
    search.run(FakePool(scripts({})))
    assert search.states() == dict.fromkeys(range(7), "COMPLETE")


def test_a_record_that_the_study_never_heard_of_is_replayed_and_not_trained_again(search: Search) -> None:
    """As after a kill between the record and `tell`."""
    search.run(FakePool(scripts({}, otherwise=HANGING)), lambda p: [search.stop.request() for _ in p.running] and None)
    study = open_study(search.directory, "s", "maximize", SearchConfig(), 9, several_families=False).optuna
    left = [trial.number for trial in study.trials if trial.state == TrialState.RUNNING]
    assert left
    number = left[0]
    other = Search(search.directory / "other")
    other.run(FakePool(scripts({})), budget=Budget(trials=number + 1))
    lost = other.records()[number].model_copy(update={"params": study.trials[number].params, "objective": 0.99})
    write_record(trial_directory(search.directory, number), lost)
    (trial_directory(search.directory, number) / CHECKPOINT).write_bytes(b"checkpoint")

    _, progress = search.run(FakePool(scripts({})))
    assert all(number not in begun for begun in search.pool.begun)
    assert search.states()[number] == "COMPLETE"
    assert (progress.best, progress.best_trial) == (0.99, number)
    assert search.checkpoints() == []


def test_a_finished_search_is_left_alone_and_a_larger_budget_goes_on(search: Search) -> None:
    search.run(FakePool(scripts({})))
    first = search.records()
    search.run(FakePool(scripts({})))
    assert search.pool.begun == []
    assert search.records() == first
    search.run(FakePool(scripts({})), budget=Budget(trials=9))
    assert search.states() == dict.fromkeys(range(9), "COMPLETE")
    assert {n: r for n, r in search.records().items() if n < 7} == first


def test_the_plans_first_trials_come_first_and_once(search: Search) -> None:
    pool = FakePool(scripts({}, otherwise=Script(scores=(0.5,) * 30)), n_workers=1)
    search.run(pool, lambda p: search.stop.request() if p.ended >= 2 else None, first=FIRST)
    search.run(FakePool(scripts({})))
    tried = [search.records()[number].params for number in range(7)]
    assert tried[:3] == list(FIRST)
    assert all(params not in FIRST for params in tried[3:])


def three_points(suggester: OptunaSuggester, seed: int) -> TrialConfig:
    """A space of three configurations."""
    model = FAMILIES["mlp"].config.model_validate({"n_layers": suggester.integer("mlp.n_layers", 1, 3)})
    return TrialConfig(family="mlp", model=model, optimisation=OptimisationConfig(), seed=seed)


@pytest.mark.parametrize("n_workers", [1, 3])
def test_equal_configurations_are_trained_once_and_have_the_same_result(search: Search, n_workers: int) -> None:
    pool = FakePool(lambda number, _: Script(scores=(0.5, 0.5 + number / 100)), n_workers)
    search.run(pool, suggest=three_points, budget=Budget(trials=20))
    assert search.states() == dict.fromkeys(range(20), "COMPLETE")
    trained = [number for begun in pool.begun for number in begun]
    assert len(trained) == len(set(trained)) == 3
    records = search.records()
    for record in records.values():
        if record.number in trained:
            assert record.duplicate_of is None
            continue
        assert record.duplicate_of in trained
        first = records[record.duplicate_of]
        assert record.params == first.params
        assert (record.objective, record.best_epoch, record.train_s) == (first.objective, first.best_epoch, 0.0)
        weights = trial_directory(search.directory, record.number) / WEIGHTS
        assert sha256_file(weights) == record.weights_sha256


def test_a_configuration_that_failed_is_tried_again(search: Search) -> None:
    pool = FakePool(scripts({0: BAD}), n_workers=1)
    one = lambda suggester, seed: three_points(suggester, seed).model_copy(  # noqa: E731
        update={"model": FAMILIES["mlp"].config.model_validate({"n_layers": 1})}
    )
    search.run(pool, suggest=one, budget=Budget(trials=4))
    assert search.states() == {0: "FAIL", 1: "COMPLETE", 2: "COMPLETE", 3: "COMPLETE"}
    assert pool.begun == [(0,), (1,)]


def configurations_with_a_curve(search: Search) -> set[str]:
    return {record.config.digest for record in search.records().values() if record.curve}


def test_a_configuration_that_was_never_trained_is_trained_where_there_is_more_time(
    search: Search, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While one trains the next is asked for, and then the time is up."""
    over = False

    def look(progress: Progress) -> None:
        nonlocal over
        over = progress.asked > progress.ended + len(progress.running) > N_STARTUP

    def suggest(suggester: OptunaSuggester, seed: int) -> TrialConfig:
        model = FAMILIES["mlp"].config.model_validate({"width": suggester.integer("mlp.width", 8, 24)})
        return TrialConfig(family="mlp", model=model, optimisation=OptimisationConfig(), seed=seed)

    with monkeypatch.context() as hurried:
        hurried.setattr(Controller, "elapsed", property(lambda _: math.inf if over else 0.0))
        long = Script(scores=(0.5,) * 100_000)
        first = FakePool(lambda number, _: GOOD if number < N_STARTUP else long, n_workers=1)
        search.run(first, look, suggest=suggest, budget=Budget(trials=None, time=1.0), foreseeable=False)
    [untrained] = [record.config.digest for record in search.records().values() if not record.curve]
    assert untrained not in configurations_with_a_curve(search)
    search.run(FakePool(scripts({}), n_workers=1), budget=Budget(trials=100))
    assert untrained in configurations_with_a_curve(search)


def test_a_stopped_search_knows_its_configurations_when_it_goes_on(search: Search) -> None:
    slow = FakePool(lambda number, _: Script(scores=(0.5,) * (3 + 40 * number)), n_workers=1)
    search.run(slow, lambda p: search.stop.request() if p.ended >= 1 else None, suggest=three_points)
    before = {number for begun in slow.begun for number in begun if number in search.records()}
    pool = FakePool(scripts({}))
    search.run(pool)
    assert search.states() == dict.fromkeys(range(7), "COMPLETE")
    trained = before | {number for begun in pool.begun for number in begun}
    assert len({search.records()[number].config.digest for number in trained}) == len(trained)


@pytest.mark.parametrize(
    ("budget", "n_good", "failures", "said"),
    [
        (
            Budget(trials=99, failures=3),
            1,
            3,
            "3 trials failed, and search.budget.failures is 3; the last one with: Val",
        ),
        (Budget(trials=99, failures=1), 0, 1, "1 trials failed, and search.budget.failures is 1"),
        (Budget(trials=99), 10, 20, "20 of 30 trials failed .* the last one with: ValueError: trial 29 cannot learn"),
        (Budget(trials=99), 25, 26, "26 of 51 trials failed"),
    ],
    ids=["as the file says", "none allowed", "many", "more than half"],
)
def test_a_search_that_fails_too_much_ends(
    search: Search, budget: Budget, n_good: int, failures: int, said: str
) -> None:
    pool = FakePool(scripts(dict.fromkeys(range(n_good), GOOD), otherwise=BAD), n_workers=1)
    with pytest.raises(SearchError, match=said):
        search.run(pool, budget=budget)
    assert Counter(record.state for record in search.records().values())["FAIL"] == failures


def test_under_the_floor_of_free_disk_nothing_is_trained_and_the_search_is_resumable(search: Search) -> None:
    pool = FakePool(scripts({}))
    with pytest.raises(SearchPausedError, match=r"GiB are free, fewer than resources\.min_free_disk_gb.*automl gc"):
        search.run(pool, disk_floor=2**60)
    assert pool.begun == []
    search.run(FakePool(scripts({})), disk_floor=0)
    assert search.states() == dict.fromkeys(range(7), "COMPLETE")


def test_a_disk_that_gets_full_in_the_middle_suspends_what_trains(
    search: Search, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.search.controller.DISK_LOOK_S", 0.0)
    pool = FakePool(lambda number, _: Script(scores=(0.5,) * (3 + 50 * number)))
    free = lambda _path: SimpleNamespace(free=0 if pool.begun else 10)  # noqa: E731
    monkeypatch.setattr("pipeline.search.controller.shutil.disk_usage", free)
    with pytest.raises(SearchPausedError):
        search.run(pool, disk_floor=5)
    assert {verdict for _, verdict in pool.verdicts} == {"suspend"}
    before = search.records()
    search.run(FakePool(scripts({})), disk_floor=0)
    assert search.states() == dict.fromkeys(range(7), "COMPLETE")
    assert {n: search.records()[n] for n in before} == before


@pytest.mark.parametrize("place", ["pipeline.records.write_atomic", "pipeline.search.journal.os.fsync"])
@pytest.mark.parametrize("nth", [3, 6, 11])
def test_a_write_that_finds_the_disk_full_pauses_the_search(
    search: Search, monkeypatch: pytest.MonkeyPatch, place: str, nth: int
) -> None:
    calls = 0
    module, _, name = place.rpartition(".")
    real: Callable[..., None] = getattr(pkgutil.resolve_name(module), name)

    def full(*arguments: object) -> None:
        nonlocal calls
        calls += 1
        if calls >= nth:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(place, full)
        with pytest.raises(SearchPausedError, match="No space left on device"):
            search.run(FakePool(scripts({})), budget=Budget(trials=12))
    before = search.records()
    search.run(FakePool(scripts({})))
    assert search.states() == dict.fromkeys(range(12), "COMPLETE")
    assert {n: search.records()[n] for n in before} == before
