"""A tracker in a thread of its own: the search says what happened and goes on; MLflow may be slow, or away."""

from __future__ import annotations

import functools
import itertools
import logging
import math
import queue
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from pipeline.errors import StoreError
from pipeline.records import TrialRecord
from pipeline.tracking.base import SearchInfo, StoreRefusedError, Tracker

_LOG = logging.getLogger(__name__)

CAPACITY: Final = 10_000
"""Messages that may wait. At 20 ms a trial the thread keeps up with 50 trials a second, so only an outage fills it."""
FIRST_PAUSE_S: Final = 0.2
LONGEST_PAUSE_S: Final = 15.0
PATIENCE_S: Final = 600.0
"""How long one message is repeated before it is put back: then it is undelivered, and the next one gets its turn."""
AGAIN_EVERY_S: Final = 60.0
"""How often what was put back is tried again."""
TOGETHER: Final = 4
"""Most trials of one lane that are stored at once: 19 ms a trial, and 19 with 8, against 29 call by call (medians of 4
rounds, SQLite, one Zen 5 core). For as long as a transaction takes, whoever else writes to the database waits."""

_START, _END, _CLOSE = 0, 1, 2
"""Lanes: a trial whose run is missing keeps a worker waiting, one whose end is not stored yet keeps nobody."""

PackageSource = Path | Callable[[], Path | None] | None
"""A package's folder, or a function that writes the package and is called in the tracker's thread."""


@dataclass(frozen=True, slots=True)
class Undelivered:
    """A message that the store does not have. The search's records have it; replaying them delivers it."""

    what: str
    error: Exception


@dataclass(frozen=True, slots=True)
class _Message:
    lane: int
    number: int
    """In the order of saying."""
    what: str
    deliver: Callable[[], str]
    done: Future[str]
    patience_s: float
    trial: bool
    """Whether it may be stored in one transaction with others. It has been tried where this is False."""


_Entry = tuple[int, int, _Message | None]
"""Lane and number, by which the queue is in order, and what was said; None ends the thread."""


class BackgroundTracker:
    """Delivers trials to a tracker, a few at a time: what starts before what ends, each in the order of saying.

    No method waits for the store but `flush` and `close`, and none raises what the store raises: a failed delivery sets
    its future's exception and is listed by `errors`. What failed for the time being is tried again every minute, and
    leaves the list once it is delivered. Between `flush` and the next message the wrapped tracker may be
    used directly.

    Args:
        tracker: the tracker that is written to; only this object's thread uses it while messages wait.
        capacity: messages that may wait; one too many is undelivered at once.
        patience_s: seconds for which one message is repeated while the store is out of order.
        again_every_s: seconds between two attempts to deliver what was put back.
    """

    def __init__(
        self,
        tracker: Tracker,
        *,
        capacity: int = CAPACITY,
        patience_s: float = PATIENCE_S,
        again_every_s: float = AGAIN_EVERY_S,
    ) -> None:
        self._tracker = tracker
        self._patience_s, self._again_every_s = patience_s, again_every_s
        self._put_back: list[tuple[_Message, Undelivered]] = []
        self._queue: queue.PriorityQueue[_Entry] = queue.PriorityQueue(capacity)
        self._numbers = itertools.count()
        self._undelivered: list[Undelivered] = []
        self._delivering: tuple[_Message, ...] = ()
        """What the thread is busy with."""
        self._closing = threading.Event()
        self._deadline = float("inf")
        self._idle = threading.Condition()
        self._open = 0
        self._thread = threading.Thread(target=self._run, name="tracker", daemon=True)
        self._thread.start()

    def start_search(self, info: SearchInfo) -> Future[str]:
        """Create (or find) the parent run. Nothing can be delivered before it exists, so this is never given up."""
        return self._say(_START, f"start of search {info.id}", lambda: self._tracker.start_search(info), math.inf)

    def interrupt_search(self, search: str) -> Future[str]:
        """Say that nobody works at the search for now."""

        def deliver() -> str:
            self._tracker.interrupt_search(search)
            return search

        return self._say(_END, f"interruption of search {search}", deliver)

    def start_trial(self, search: str, number: int, family: str, params: Mapping[str, object]) -> Future[str]:
        """Create the trial's run; the future's result is the run id, there once the run exists."""
        chosen = dict(params)
        return self._say(
            _START,
            f"start of trial {number}",
            lambda: self._tracker.start_trial(search, number, family, chosen),
            trial=True,
        )

    def finish_trial(self, record: TrialRecord, package: PackageSource) -> Future[str]:
        """Deliver a finished trial and its model."""

        @functools.cache
        def folder() -> Path | None:
            return package() if callable(package) else package

        def deliver() -> str:
            return self._tracker.finish_trial(record, folder())

        return self._say(_END, f"end of trial {record.number}", deliver, trial=True)

    def errors(self) -> tuple[Undelivered, ...]:
        """What could not be delivered so far."""
        with self._idle:
            return tuple(self._undelivered)

    def flush(self, timeout: float) -> bool:
        """Wait until everything said so far is delivered or given up; False where `timeout` seconds were not enough."""
        with self._idle:
            return self._idle.wait_for(lambda: self._open == 0, timeout)

    def close(self, timeout: float = 60.0) -> tuple[Undelivered, ...]:
        """Deliver what waits, for at most `timeout` seconds, and end the thread; what remains is undelivered, and so is
        what a slow store is busy with."""
        if not self._closing.is_set():
            self._deadline = time.monotonic() + timeout
            self._closing.set()
            try:
                self._queue.put((_CLOSE, next(self._numbers), None), timeout=timeout)
            except queue.Full:
                _LOG.debug("the thread sees the deadline by itself")
        self._thread.join(max(0.0, self._deadline - time.monotonic()) + FIRST_PAUSE_S)
        self._give_up_waiting()
        late = StoreError("the tracker was closed while the store was busy with it")
        return self.errors() + tuple(Undelivered(message.what, late) for message in self._delivering)

    def _say(
        self,
        lane: int,
        what: str,
        deliver: Callable[[], str],
        patience_s: float | None = None,
        *,
        trial: bool = False,
    ) -> Future[str]:
        patience_s = self._patience_s if patience_s is None else patience_s
        message = _Message(lane, next(self._numbers), what, deliver, Future(), patience_s, trial)
        with self._idle:
            self._open += 1
        if self._closing.is_set():
            self._fail(message, StoreError(f"the tracker is closed, and the {what} came after that"))
        else:
            self._put(message)
        return message.done

    def _put(self, message: _Message) -> None:
        try:
            self._queue.put_nowait((message.lane, message.number, message))
        except queue.Full:
            self._fail(message, StoreError(f"{self._queue.maxsize} messages wait for MLflow already"))

    def _run(self) -> None:
        again = time.monotonic() + self._again_every_s
        while True:
            try:
                timeout = max(0.01, again - time.monotonic()) if self._put_back else None
                _, _, message = self._queue.get(timeout=timeout)
            except queue.Empty:
                self._try_again()
                again = time.monotonic() + self._again_every_s
                continue
            if message is None:
                self._try_again()
                return
            if message.trial:
                self._delivering = (message, *self._company(message.lane))
                self._deliver_together(self._delivering)
            else:
                self._delivering = (message,)
                if not self._deliver_alone(message):
                    again = time.monotonic() + self._again_every_s
            self._delivering = ()

    def _company(self, lane: int) -> list[_Message]:
        """The trials that wait next in a lane, as many as may be stored with one more."""
        found: list[_Message] = []
        while len(found) < TOGETHER - 1:
            with self._queue.mutex:
                _, _, message = self._queue.queue[0] if self._queue.queue else (_CLOSE, 0, None)
            if message is None or message.lane != lane or not message.trial:
                break
            try:
                _, _, message = self._queue.get_nowait()
            except queue.Empty:  # `close` has given it up
                break
            assert message is not None, "the end comes after all that is said"
            found.append(message)
        return found

    def _deliver_together(self, messages: Sequence[_Message]) -> None:
        """Store all of them, or put all back in their places to be delivered alone: one of them is wrong, or the store
        is out of order."""
        try:
            with self._tracker.together():
                run_ids = [message.deliver() for message in messages]
        except Exception as error:
            _LOG.info("the %s and what came with it, together: %s", messages[0].what, error)
            for message in messages:
                self._put(replace(message, trial=False))
        else:
            for message, run_id in zip(messages, run_ids, strict=True):
                self._succeed(message, run_id)

    def _deliver_alone(self, message: _Message) -> bool:
        """False where it is put back to be tried again later."""
        try:
            run_id = self._deliver(message)
        except Exception as error:
            self._fail(message, error)
            if isinstance(error, StoreError) and not isinstance(error, StoreRefusedError):
                self._put_back.append((message, self._undelivered[-1]))
                return False
        else:
            self._succeed(message, run_id)
        return True

    def _try_again(self) -> None:
        """Deliver what was put back, in its order, until the store is out of order again."""
        while self._put_back and time.monotonic() < self._deadline:
            message, undelivered = self._put_back[0]
            try:
                message.deliver()
            except StoreRefusedError:
                self._put_back.pop(0)
            except StoreError:
                return
            else:
                self._put_back.pop(0)
                with self._idle:
                    self._undelivered.remove(undelivered)

    def _deliver(self, message: _Message) -> str:
        """Repeat what may work later; a refusal or a bug of ours is final."""
        until = time.monotonic() + message.patience_s
        pause = FIRST_PAUSE_S
        while True:
            try:
                return message.deliver()
            except StoreRefusedError:
                raise
            except StoreError as error:
                if time.monotonic() + pause > min(until, self._deadline):
                    raise
                _LOG.info("%s: %s; next attempt in %.1f s", message.what, error, pause)
            if self._closing.is_set():
                time.sleep(FIRST_PAUSE_S)
            else:
                self._closing.wait(pause)
                pause = min(2 * pause, LONGEST_PAUSE_S)

    def _succeed(self, message: _Message, run_id: str) -> None:
        message.done.set_result(run_id)
        self._settle()

    def _fail(self, message: _Message, error: Exception) -> None:
        _LOG.info("%s is not in the tracker: %s", message.what, error)
        with self._idle:
            self._undelivered.append(Undelivered(message.what, error))
        message.done.set_exception(error)
        self._settle()

    def _settle(self) -> None:
        with self._idle:
            self._open -= 1
            self._idle.notify_all()

    def _give_up_waiting(self) -> None:
        while True:
            try:
                _, _, message = self._queue.get_nowait()
            except queue.Empty:
                # For the thread, should it come back from a slow store.
                self._queue.put_nowait((_CLOSE, next(self._numbers), None))
                return
            if message is not None:
                self._fail(message, StoreError("the tracker was closed before its turn came"))
