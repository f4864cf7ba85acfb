"""EDGE mlflow: what a store keeps of searches, for those who want to remove it consistently."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from mlflow import MlflowClient
from mlflow.entities import Run, ViewType

from pipeline.tracking.artifacts import local_folder
from pipeline.tracking.model_folder import HISTORY_TAG
from pipeline.tracking.projection import MODEL_PATH, PACKAGE, ROLE, SEARCH, TRIAL
from pipeline.tracking.store import open_store, store_errors

PAGE: Final = 1000


@dataclass(frozen=True, slots=True)
class KeptRun:
    """One run of a search."""

    id: str
    role: str
    """``search``, ``trial`` or ``finalist``."""
    trial: int | None
    model: Path | None
    """Its model's folder, where it has one on this machine."""
    files: Path | None
    """Its artifact folder, where that is on this machine."""


class Retention:
    """Reads and removes what an MLflow store has of searches.

    Args:
        uri: absolute tracking URI.

    Raises:
        StoreError: the store cannot be opened.
    """

    def __init__(self, uri: str) -> None:
        self._client: MlflowClient = open_store(uri)

    def runs(self, search: str) -> list[KeptRun]:
        """All runs of a search, its parent last."""
        with store_errors(f"read the runs of {search}"):
            found = list(self._all(f"tags.`{SEARCH}` = '{search}'", ViewType.ACTIVE_ONLY))
        kept = []
        for run in found:
            tags, folder = run.data.tags, local_folder(run.info.artifact_uri)
            model = folder / MODEL_PATH if folder is not None and PACKAGE in tags else None
            trial = int(tags[TRIAL]) if TRIAL in tags else None
            kept.append(KeptRun(run.info.run_id, tags[ROLE], trial, model, folder))
        return sorted(kept, key=lambda run: run.role == "search")

    def all_run_ids(self) -> set[str]:
        """Of every run, deleted ones included: MLflow can restore them."""
        with store_errors("read all runs"):
            return {run.info.run_id for run in self._all("", ViewType.ALL)}

    def registered_runs(self) -> dict[str, str]:
        """Run id to ``model v3``, for the runs behind registered versions."""
        with store_errors("read the registered versions"):
            versions = self._client.search_model_versions(max_results=10_000)
            return {v.run_id: f"{v.name} v{v.version}" for v in versions if v.run_id}

    def forget_model(self, run: str) -> None:
        """Take back that the run has a model; its files are removed by the caller, afterwards."""
        with store_errors(f"forget the model of run {run}"):
            tags = self._client.get_run(run).data.tags
            for name in (PACKAGE, HISTORY_TAG):
                if name in tags:
                    self._client.delete_tag(run, name)

    def delete(self, run: str) -> None:
        """Delete a run; MLflow shows it no more."""
        with store_errors(f"delete run {run}"):
            self._client.delete_run(run)

    def _all(self, query: str, view: int) -> Iterator[Run]:
        experiments = [e.experiment_id for e in self._client.search_experiments(view_type=ViewType.ALL)]
        token = None
        while experiments:
            page = self._client.search_runs(experiments, query, view, max_results=PAGE, page_token=token)
            yield from page
            token = page.token
            if not token:
                return
