"""The search never waits for the store, and nothing that was said gets lost without a word."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path

import pytest

from pipeline.errors import PackageError, StoreError
from pipeline.records import TrialRecord
from pipeline.tracking.background import TOGETHER, BackgroundTracker
from pipeline.tracking.base import StoreRefusedError
from pipeline.tracking.memory import InMemoryTracker
from tests.tracking.records import PARAMS, SEARCH, record, search_info

LONG_S = 20.0
"""Longer than anything here takes: reaching it is a failure."""


class Moody(InMemoryTracker):
    """A store that waits for `gate`, raises the next of `moods` instead of storing, and never takes what is `wrong`."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = threading.Event()
        self.gate.set()
        self.moods: list[Exception] = []
        self.wrong: dict[str, Exception] = {}
        self.heard: list[str] = []
        self.transactions: list[int] = []
        """How much was heard in each."""
        self.start_search(search_info())

    def start_trial(self, search: str, number: int, family: str, params: Mapping[str, object]) -> str:
        self._behave(f"start {number}")
        return super().start_trial(search, number, family, params)

    def finish_trial(self, record: TrialRecord, package: Path | None) -> str:
        self._behave(f"end {record.number}")
        return super().finish_trial(record, package)

    @contextmanager
    def together(self) -> Iterator[None]:
        before = len(self.heard)
        with super().together():
            yield
        self.transactions.append(len(self.heard) - before)

    def _behave(self, what: str) -> None:
        self.gate.wait(LONG_S)
        if self.moods:
            raise self.moods.pop(0)
        if what in self.wrong:
            raise self.wrong[what]
        self.heard.append(what)


@pytest.fixture
def store() -> Moody:
    return Moody()


def test_a_trials_start_is_known_to_be_stored_once_its_future_is_done(store: Moody) -> None:
    background = BackgroundTracker(store)
    run_id = background.start_trial(SEARCH, 12, "mlp", PARAMS).result(LONG_S)
    assert store.runs[f"{SEARCH}/12"].id == run_id
    assert background.close() == ()


def test_a_slow_store_delays_nobody(store: Moody) -> None:
    store.gate.clear()
    background = BackgroundTracker(store)
    started = time.monotonic()
    futures = [background.start_trial(SEARCH, number, "mlp", {}) for number in range(100)]
    assert time.monotonic() - started < 1.0
    assert not any(future.done() for future in futures)
    store.gate.set()
    assert background.close() == ()
    assert all(future.done() for future in futures)


def test_starts_overtake_ends_because_workers_wait_for_them_and_each_keep_their_order(store: Moody) -> None:
    store.gate.clear()
    background = BackgroundTracker(store)
    for number in range(5):
        background.start_trial(SEARCH, number, "mlp", {})
        background.finish_trial(record(number), None)
    store.gate.set()
    background.close()
    assert store.heard == [f"{what} {number}" for what in ("start", "end") for number in range(5)]


def waiting(store: Moody, n: int) -> tuple[BackgroundTracker, list[Future[str]]]:
    """A tracker that is busy with a first trial, while `n` more wait for it."""
    store.gate.clear()
    background = BackgroundTracker(store)
    background.start_trial(SEARCH, 100, "mlp", {})
    until = time.monotonic() + LONG_S
    while not background._delivering and time.monotonic() < until:
        time.sleep(0.001)
    return background, [background.start_trial(SEARCH, number, "mlp", {}) for number in range(n)]


def test_trials_that_wait_are_stored_a_few_at_a_time(store: Moody) -> None:
    background, futures = waiting(store, 2 * TOGETHER + 1)
    store.gate.set()
    run_ids = [future.result(LONG_S) for future in futures]
    assert store.transactions == [1, TOGETHER, TOGETHER, 1]
    assert run_ids == [store.runs[f"{SEARCH}/{number}"].id for number in range(2 * TOGETHER + 1)]
    assert background.close() == ()


def test_a_start_does_not_wait_for_ends_that_could_go_with_it(store: Moody) -> None:
    background, starts = waiting(store, 2)
    ends = [background.finish_trial(record(number), None) for number in range(2)]
    store.gate.set()
    for future in (*starts, *ends):
        future.result(LONG_S)
    assert store.transactions == [1, 2, 2]
    background.close()


def test_one_that_is_wrong_takes_none_of_its_company_along(store: Moody) -> None:
    store.wrong = {"start 1": StoreRefusedError("a param may not have this name")}
    background, futures = waiting(store, 4)
    store.gate.set()
    for number, future in enumerate(futures):
        assert (future.exception(LONG_S) is not None) == (number == 1)
    assert store.transactions == [1], "that of the first"
    assert store.heard[-3:] == [f"start {number}" for number in (0, 2, 3)], "in their order, one by one"
    assert [entry.what for entry in background.close()] == ["start of trial 1"]


def test_an_outage_is_sat_out(store: Moody) -> None:
    store.moods = [StoreError("away"), StoreError("away")]
    background = BackgroundTracker(store)
    assert background.start_trial(SEARCH, 0, "mlp", {}).result(LONG_S)
    assert background.errors() == ()
    background.close()


def test_a_refusal_is_not_repeated_and_the_next_message_is_delivered(store: Moody) -> None:
    store.wrong = {"start 0": StoreRefusedError("a param may not have this name")}
    background = BackgroundTracker(store)
    refused = background.start_trial(SEARCH, 0, "mlp", {})
    accepted = background.start_trial(SEARCH, 1, "mlp", {})
    assert accepted.result(LONG_S)
    assert isinstance(refused.exception(LONG_S), StoreRefusedError)
    assert [undelivered.what for undelivered in background.close()] == ["start of trial 0"]


def test_an_error_of_our_own_never_ends_the_thread(store: Moody) -> None:
    store.wrong = {"start 0": KeyError("a bug")}
    background = BackgroundTracker(store)
    background.start_trial(SEARCH, 0, "mlp", {})
    assert background.start_trial(SEARCH, 1, "mlp", {}).result(LONG_S)
    (undelivered,) = background.close()
    assert isinstance(undelivered.error, KeyError)


def test_an_outage_that_outlasts_patience_gives_the_message_up(store: Moody) -> None:
    store.moods = [StoreError("away")] * 3
    background = BackgroundTracker(store, patience_s=0.3)
    given_up = background.start_trial(SEARCH, 0, "mlp", {})
    assert isinstance(given_up.exception(LONG_S), StoreError)
    background.close()


def test_what_was_put_back_is_delivered_once_the_store_is_there_again(store: Moody) -> None:
    store.moods = [StoreError("away")] * 3
    background = BackgroundTracker(store, patience_s=0.3, again_every_s=0.05)
    assert background.start_trial(SEARCH, 0, "mlp", {}).exception(LONG_S) is not None
    until = time.monotonic() + LONG_S
    while background.errors() and time.monotonic() < until:
        time.sleep(0.01)
    assert background.errors() == ()
    assert f"{SEARCH}/0" in store.runs
    background.close()


def test_closing_tries_what_was_put_back_once_more(store: Moody) -> None:
    store.moods = [StoreError("away")] * 3
    background = BackgroundTracker(store, patience_s=0.3)
    assert background.start_trial(SEARCH, 0, "mlp", {}).exception(LONG_S) is not None
    assert background.close() == ()
    assert f"{SEARCH}/0" in store.runs


def test_a_package_is_written_in_the_threads_time_and_its_failure_is_listed(store: Moody, tmp_path: Path) -> None:
    background = BackgroundTracker(store)
    threads: list[str] = []

    def write() -> Path:
        threads.append(threading.current_thread().name)
        return tmp_path

    def fail() -> Path:
        raise PackageError("damaged weights")

    background.finish_trial(record(1), write)
    background.finish_trial(record(2), fail)
    (undelivered,) = background.close()
    assert threads == ["tracker"]
    assert store.runs[f"{SEARCH}/1"].model == tmp_path
    assert (undelivered.what, str(undelivered.error)) == ("end of trial 2", "damaged weights")


def test_one_message_too_many_is_undelivered_at_once_and_does_not_block(store: Moody) -> None:
    store.gate.clear()
    background = BackgroundTracker(store, capacity=2)
    futures = [background.start_trial(SEARCH, number, "mlp", {}) for number in range(6)]
    late = [future for future in futures if future.done()]
    assert 3 <= len(late) <= 4, "two wait, and one may be with the store already"
    store.gate.set()
    assert len(background.close()) == len(late)


def test_closing_waits_no_longer_than_it_was_told_and_lists_what_remains(store: Moody) -> None:
    store.gate.clear()
    background = BackgroundTracker(store)
    futures = [background.start_trial(SEARCH, number, "mlp", {}) for number in range(3)]
    started = time.monotonic()
    undelivered = background.close(timeout=0.3)
    assert time.monotonic() - started < 5.0
    assert sorted(entry.what for entry in undelivered) == [f"start of trial {number}" for number in range(3)]
    store.gate.set()
    assert futures[0].result(LONG_S), "what the store was busy with is still delivered"


def test_closing_during_an_outage_gives_up_at_the_deadline(store: Moody) -> None:
    store.moods = [StoreError("away")] * 1000
    background = BackgroundTracker(store)
    background.start_trial(SEARCH, 0, "mlp", {})
    background.start_trial(SEARCH, 1, "mlp", {})
    started = time.monotonic()
    assert len(background.close(timeout=0.5)) == 2
    assert time.monotonic() - started < 5.0


def test_closing_twice_is_closing_once(store: Moody) -> None:
    background = BackgroundTracker(store)
    background.start_trial(SEARCH, 0, "mlp", {})
    assert background.close() == background.close() == ()


def test_what_comes_after_closing_is_undelivered(store: Moody) -> None:
    background = BackgroundTracker(store)
    background.close()
    assert background.start_trial(SEARCH, 0, "mlp", {}).exception(LONG_S) is not None
    assert len(background.errors()) == 1


def test_flush_tells_whether_all_is_stored(store: Moody) -> None:
    store.gate.clear()
    background = BackgroundTracker(store)
    background.start_trial(SEARCH, 0, "mlp", {})
    assert not background.flush(timeout=0.05)
    store.gate.set()
    assert background.flush(LONG_S)
    assert store.heard == ["start 0"]
    background.close()
