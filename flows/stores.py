"""The stores of an experiment, opened in a thread: MLflow takes seconds to import and to migrate, and meanwhile data is
prepared and workers start. The first use waits."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass

from flows.workspace import Workspace
from pipeline.errors import StoreError
from pipeline.registry.base import ModelRegistry
from pipeline.tracking.background import BackgroundTracker
from pipeline.tracking.base import Tracker

DELIVERY_S = 60.0
"""How long the tracker may take to catch up before it is spoken to directly."""


@dataclass(frozen=True, slots=True)
class _Opened:
    tracker: Tracker
    background: BackgroundTracker
    registry: ModelRegistry


@dataclass(frozen=True, slots=True)
class Stores:
    """What an experiment writes to. `background` delivers trials to `tracker` while a search runs; between a `flush`
    and the next trial `tracker` is spoken to directly. Every property raises what the opening raised."""

    _opening: Future[_Opened]

    @property
    def tracker(self) -> Tracker:
        return self._opening.result().tracker

    @property
    def background(self) -> BackgroundTracker:
        return self._opening.result().background

    @property
    def registry(self) -> ModelRegistry:
        return self._opening.result().registry


@contextmanager
def open_stores(uri: str, workspace: Workspace) -> Iterator[Stores]:
    """Open tracker and registry of an absolute tracking URI; on the way out, wait until MLflow has everything."""
    with ThreadPoolExecutor(1, thread_name_prefix="stores") as executor:
        opening = executor.submit(_open, uri, workspace)
        wait_s = DELIVERY_S
        try:
            yield Stores(opening)
        except StoreError:
            wait_s = 0.0  # it is out of order, and was given its time
            raise
        finally:
            if opening.exception() is None:
                opened = opening.result()
                missing = opened.background.close(wait_s)
                opened.tracker.close()
                if missing:
                    what = f"{len(missing)} messages, the first of them the {missing[0].what}: {missing[0].error}"
                    print(f"warning: MLflow does not have {what}; the same command delivers them", file=sys.stderr)


def _open(uri: str, workspace: Workspace) -> _Opened:
    from pipeline.registry.mlflow import MLflowRegistry
    from pipeline.tracking.mlflow import MLflowTracker

    tracker = MLflowTracker(uri, workspace.artifacts)
    return _Opened(tracker, BackgroundTracker(tracker), MLflowRegistry(uri, workspace.state / "registry"))
