"""The port to experiment tracking. `InMemoryTracker` and `MLflowTracker` implement it, under one contract suite."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from pydantic import BaseModel, ConfigDict, Field

from pipeline.errors import StoreError
from pipeline.records import TrialRecord
from pipeline.redaction import Redacted

SearchStatus = Literal["FINISHED", "FAILED", "KILLED"]


class StoreRefusedError(StoreError):
    """The store understood and refused: saying the same again is of no use. Other StoreErrors may pass."""


class SearchInfo(BaseModel):
    """What is known of a search when it starts: the parent run."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str
    experiment: str
    metric: str
    direction: Literal["maximize", "minimize"]
    params: dict[str, Redacted]
    """Constants of the search, flattened from the resolved experiment file."""
    config_yaml: str
    """As `ExperimentConfig.to_yaml` gives it: secrets are masked."""
    data_fingerprint: str
    data_source: Redacted
    data_schema: dict[str, str]
    """Feature name to type, for MLflow's dataset input."""
    n_rows: int
    texts: dict[str, Redacted] = Field(default_factory=dict)
    """Files of the parent run by artifact path: the data card."""


class FinalistInfo(BaseModel):
    """One finalist's reading of the sealed test."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    trial: int
    family: str
    params: dict[str, str | int | float | bool | None]
    metrics: dict[str, float]
    """``test/<metric>`` with ``_lo`` and ``_hi``, and what else was measured."""


@dataclass(frozen=True, slots=True)
class Survey:
    """What a store has of a search, now."""

    states: Mapping[int, str]
    """Trial number to state; ``unfinished`` where its run has not ended as any of ours."""
    running: int
    """Runs of any role that are RUNNING."""
    doubled: int
    """Runs beyond the first with one key."""


class Tracker(Protocol):
    """Every method is idempotent: said twice, it is there once. `search` and trial numbers are the keys."""

    def together(self) -> AbstractContextManager[None]:
        """Trials that start or end inside are stored at once at its end, where the store can do that.

        Raises:
            StoreError: one of them failed; each can be said again alone, whether or not it was stored.
        """
        ...

    def start_search(self, info: SearchInfo) -> str:
        """Create (or find, and set RUNNING again) the parent run; return its id."""
        ...

    def start_trial(self, search: str, number: int, family: str, params: Mapping[str, object]) -> str:
        """Create (or find) the trial's child run, RUNNING, before it trains; return its id."""
        ...

    def finish_trial(self, record: TrialRecord, package: Path | None) -> str:
        """Write curve, summary metrics, tags and the final status of a trial, and its loadable model when `package`
        (a directory as `pipeline.packaging` writes it) is given; return the run id. Creates a run that is missing."""
        ...

    def finish_finalist(self, search: str, info: FinalistInfo, package: Path | None, files: Mapping[str, Path]) -> str:
        """Create (or find) a finalist's run with its sealed-test metrics, its model and files; return the run id."""
        ...

    def finish_search(
        self,
        search: str,
        status: SearchStatus,
        metrics: Mapping[str, float],
        tags: Mapping[str, str],
        files: Mapping[str, Path],
    ) -> None:
        """End the parent run: totals as metrics, tags, and files by artifact path (``report/report.html``)."""
        ...

    def interrupt_search(self, search: str) -> None:
        """The search stops, resumable: neither its parent run nor a trial's run stays RUNNING without an owner."""
        ...

    def end_search(self, search: str, status: SearchStatus) -> None:
        """Set the status of a search that nobody runs; trials' runs that are still RUNNING are KILLED."""
        ...

    def survey(self, search: str) -> Survey | None:
        """What the store has, read without changing anything; None where it has no run of the search."""
        ...

    def trial_states(self, search: str) -> dict[int, str]:
        """Trial number to state (RUNNING, COMPLETE, PRUNED, FAIL) as the store has it: one entry a child run.

        Raises:
            StoreError: two runs claim one trial.
        """
        ...

    def run_url(self, search: str) -> str:
        """Where a person opens the parent run: a URI, relative to the UI's address when it is local."""
        ...

    def close(self) -> None:
        """Wait until everything said has been stored."""
        ...
