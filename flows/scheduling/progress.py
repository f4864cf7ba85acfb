"""A running search in Prefect's UI: a progress bar every few seconds, a line of log every half minute."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from uuid import UUID

from prefect.artifacts import create_progress_artifact, update_progress_artifact
from prefect.logging import get_run_logger

from flows.live import share_done, summary
from flows.scheduling.client import UNREACHABLE
from flows.search_flow import artifact_key
from pipeline.search.progress import Progress

BAR_EVERY_S = 3.0
LOG_EVERY_S = 30.0


@contextmanager
def reporting(experiment: str) -> Iterator[Callable[[Progress], None]]:
    """A callback for the search stage. Where Prefect's server is gone the search goes on without it."""
    bar: UUID | None = None
    reachable, next_bar, next_log = True, 0.0, time.monotonic() + LOG_EVERY_S
    last: Progress | None = None

    def draw(progress: Progress) -> None:
        nonlocal bar, reachable
        share = 100 * share_done(progress)
        try:
            if bar is None:
                created = create_progress_artifact(
                    progress=share, key=artifact_key(experiment, "progress"), description=summary(progress)
                )
                assert isinstance(created, UUID)
                bar = created
            else:
                update_progress_artifact(bar, progress=share, description=summary(progress))
        except UNREACHABLE as error:
            reachable = False
            get_run_logger().warning("no progress from here on: %s", error)

    def show(progress: Progress) -> None:
        nonlocal next_bar, next_log, last
        now, last = time.monotonic(), progress
        if reachable and now >= next_bar:
            next_bar = now + BAR_EVERY_S
            draw(progress)
        if now >= next_log:
            next_log = now + LOG_EVERY_S
            get_run_logger().info(summary(progress))

    yield show
    if last is not None and reachable:
        draw(last)
