"""A tracker in a thread of its own: the search says what happened and goes on; MLflow may be slow, or away."""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pipeline.errors import StoreError
from pipeline.records import TrialRecord
from pipeline.tracking.base import StoreRefusedError, Tracker

_LOG = logging.getLogger(__name__)

CAPACITY: Final = 10_000
"""Messages that may wait. At 15 ms a trial the thread keeps up with 60 trials a second, so only an outage fills it."""
FIRST_PAUSE_S: Final = 0.2
LONGEST_PAUSE_S: Final = 15.0
PATIENCE_S: Final = 600.0
"""How long one message is repeated before it is given up: then it is undelivered, and the next one gets its turn."""

PackageSource = Path | Callable[[], Path | None] | None
"""A package's folder, or a function that writes the package and is called in the tracker's thread."""


@dataclass(frozen=True, slots=True)
class Undelivered:
    """A message that the store does not have. The search's records have it; replaying them delivers it."""

    what: str
    error: Exception


@dataclass(frozen=True, slots=True)
class _Message:
    what: str
    deliver: Callable[[], str]
    done: Future[str]


class BackgroundTracker:
    """Delivers trials to a tracker in the order in which they were said, one at a time.

    No method waits for the store but `flush` and `close`, and none raises what the store raises: a failed delivery sets
    its future's exception and is listed by `errors`. Between `flush` and the next message the wrapped tracker may be
    used directly.

    Args:
        tracker: the tracker that is written to; only this object's thread uses it while messages wait.
        capacity: messages that may wait; one too many is undelivered at once.
        patience_s: seconds for which one message is repeated while the store is out of order.
    """

    def __init__(self, tracker: Tracker, *, capacity: int = CAPACITY, patience_s: float = PATIENCE_S) -> None:
        self._tracker = tracker
        self._patience_s = patience_s
        self._queue: queue.Queue[_Message | None] = queue.Queue(capacity)
        self._undelivered: list[Undelivered] = []
        self._closing = threading.Event()
        self._deadline = float("inf")
        self._idle = threading.Condition()
        self._open = 0
        self._thread = threading.Thread(target=self._run, name="tracker", daemon=True)
        self._thread.start()

    def start_trial(self, search: str, number: int, family: str, params: Mapping[str, object]) -> Future[str]:
        """Create the trial's run; the future's result is the run id, there once the run exists."""
        chosen = dict(params)
        return self._say(f"start of trial {number}", lambda: self._tracker.start_trial(search, number, family, chosen))

    def finish_trial(self, record: TrialRecord, package: PackageSource) -> Future[str]:
        """Deliver a finished trial and its model."""

        def deliver() -> str:
            folder = package() if callable(package) else package
            return self._tracker.finish_trial(record, folder)

        return self._say(f"end of trial {record.number}", deliver)

    def errors(self) -> tuple[Undelivered, ...]:
        """What could not be delivered so far."""
        with self._idle:
            return tuple(self._undelivered)

    def flush(self, timeout: float) -> bool:
        """Wait until everything said so far is delivered or given up; False where `timeout` seconds were not enough."""
        with self._idle:
            return self._idle.wait_for(lambda: self._open == 0, timeout)

    def close(self, timeout: float = 60.0) -> tuple[Undelivered, ...]:
        """Deliver what waits, for at most `timeout` seconds, and end the thread; what remains is undelivered."""
        if not self._closing.is_set():
            self._deadline = time.monotonic() + timeout
            self._closing.set()
            try:
                self._queue.put(None, timeout=timeout)
            except queue.Full:
                _LOG.debug("the thread sees the deadline by itself")
        self._thread.join(max(0.0, self._deadline - time.monotonic()) + FIRST_PAUSE_S)
        self._give_up_waiting()
        return self.errors()

    def _say(self, what: str, deliver: Callable[[], str]) -> Future[str]:
        message = _Message(what, deliver, Future())
        with self._idle:
            self._open += 1
        if self._closing.is_set():
            self._fail(message, StoreError(f"the tracker is closed, and the {what} came after that"))
            return message.done
        try:
            self._queue.put_nowait(message)
        except queue.Full:
            self._fail(message, StoreError(f"{self._queue.maxsize} messages wait for MLflow already"))
        return message.done

    def _run(self) -> None:
        while (message := self._queue.get()) is not None:
            try:
                run_id = self._deliver(message)
            except Exception as error:
                self._fail(message, error)
            else:
                message.done.set_result(run_id)
                self._settle()

    def _deliver(self, message: _Message) -> str:
        """Repeat what may work later; a refusal or a bug of ours is final."""
        until = time.monotonic() + self._patience_s
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
                message = self._queue.get_nowait()
            except queue.Empty:
                self._queue.put_nowait(None)  # for the thread, should it come back from a slow store
                return
            if message is not None:
                self._fail(message, StoreError("the tracker was closed before its turn came"))
