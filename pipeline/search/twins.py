"""Equal configurations are trained once: a suggestion that repeats an earlier one gets the earlier one's result.

It is told, not asked again: a sampler that repeats itself has little else to say (in a small discrete space asking
again would not end), the budget stays a count of suggestions, and trials, runs and records agree as always.
"""

from __future__ import annotations

from collections import defaultdict

from pipeline.records import TrialRecord
from pipeline.search.live import LiveTrial


class Twins:
    """Which trial was the first of its configuration, seeds aside, and who waits for its result."""

    def __init__(self) -> None:
        self._first: dict[str, int] = {}
        self._done: set[int] = set()
        self._waiting: dict[int, list[LiveTrial]] = defaultdict(list)

    @property
    def n_waiting(self) -> int:
        return sum(len(trials) for trials in self._waiting.values())

    def claim(self, trial: LiveTrial) -> bool:
        """Whether an earlier trial has or will have this one's result; then it waits here."""
        first = self._first.setdefault(trial.config.digest, trial.number)
        if first == trial.number:
            return False
        self._waiting[first].append(trial)
        return True

    def ended(self, record: TrialRecord) -> list[LiveTrial]:
        """A trial ended; who waited for it in vain, because it failed, which may have been bad luck, or because the
        search's time was up before it was trained."""
        digest = record.config.digest
        if record.state == "FAIL" or not record.curve:
            if self._first.get(digest) == record.number:
                del self._first[digest]
            return self._waiting.pop(record.number, [])
        self._first.setdefault(digest, record.number)
        self._done.add(record.number)
        return []

    def ready(self) -> list[tuple[LiveTrial, int]]:
        """Trials whose result is there, and whose it is."""
        numbers = [number for number in self._waiting if number in self._done]
        return [(trial, number) for number in numbers for trial in self._waiting.pop(number)]

    def leave(self) -> list[LiveTrial]:
        """All that still wait; nobody waits any more."""
        return [trial for number in list(self._waiting) for trial in self._waiting.pop(number)]
