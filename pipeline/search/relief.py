"""Half of a cohort moves to a slot that would idle: near the end of a budget nothing else is left to train there.

Those who move are suspended at their epoch's end, which leaves a checkpoint, and go on from it in the other process.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from pipeline.search.live import LiveTrial
from pipeline.search.pool import Worker


class Relief:
    """One move at a time."""

    def __init__(self) -> None:
        self._leaving: set[int] = set()
        self._left: list[LiveTrial] = []

    def choose(
        self, workers: Sequence[Worker], running: Mapping[int, LiveTrial], pays: Callable[[LiveTrial, int], bool]
    ) -> tuple[Worker, list[int]] | None:
        """Whom to ask to leave which worker, if one idles and another has several trials.

        Args:
            pays: whether a cohort of a trial's class and this size ends sooner on two slots.
        """
        if self._leaving or not any(worker.ready for worker in workers):
            return None
        for worker in sorted(workers, key=lambda w: -len(w.jobs)):
            stay = [number for number in worker.jobs if running[number].verdict is None and running[number].curve]
            if len(stay) > 1 and pays(running[stay[0]], len(stay)):
                self._leaving = set(stay[(len(stay) + 1) // 2 :])
                return worker, sorted(self._leaving)
        return None

    def gone(self, number: int, moved: LiveTrial | None = None) -> list[LiveTrial]:
        """A trial left, or ended before it could; the new cohort once all of them have."""
        if number not in self._leaving:
            return []
        self._leaving.discard(number)
        if moved is not None:
            self._left.append(moved)
        if self._leaving:
            return []
        together, self._left = self._left, []
        return together
