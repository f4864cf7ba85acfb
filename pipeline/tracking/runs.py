"""MLflow runs by our idempotency keys: what is there is found, in memory or in the store, and never made twice."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from mlflow import MlflowClient
from mlflow.entities import Run

from pipeline.tracking import entities, projection
from pipeline.tracking.projection import KEY, PACKAGE, ROLE, SEARCH, STATE, STATUS, RunStatus

PARENT: Final = "mlflow.parentRunId"
PAGE: Final = 1000


@dataclass(slots=True)
class KnownRun:
    """What is known of a run without asking the store."""

    id: str
    artifact_uri: str
    running: bool
    described: bool
    """It has its params and its data set."""
    state: str | None
    """Set once tags and status agree: a kill between the last two writes of a trial leaves only the tag."""
    package: str | None
    """Digest of the package inside its model."""


class Runs:
    """The runs of the searches that this process writes or reads."""

    def __init__(self, client: MlflowClient) -> None:
        self._client = client
        self._children: dict[str, KnownRun] = {}
        self._doubtful: set[str] = set()
        """Keys whose creation was asked for and not answered: looked for before they are created again."""

    def find(self, experiments: list[str], key: str) -> Run | None:
        """The run with this key, as the store has it."""
        found = self._client.search_runs(experiments, f"tags.`{KEY}` = '{key}'", max_results=1)
        return found[0] if found else None

    def create(self, experiment: str, name: str, tags: dict[str, str], started: float) -> Run:
        """A new run with the key that is in `tags`."""
        key = tags[KEY]
        found = self.find([experiment], key) if key in self._doubtful else None
        if found is not None:
            return found
        self._doubtful.add(key)
        run = self._client.create_run(
            experiment,
            start_time=projection.milliseconds(started),
            tags=tags | entities.source_tags(),
            run_name=name,
        )
        self._doubtful.discard(key)
        return run

    def child(self, experiment: str, parent: str, name: str, tags: dict[str, str], started: float) -> KnownRun:
        """The child run with the key that is in `tags`, created where it is missing. `learn` comes first."""
        key = tags[KEY]
        if key not in self._children:
            self._children[key] = known(self.create(experiment, name, tags | {PARENT: parent}, started))
        return self._children[key]

    def learn(self, experiment: str, search: str) -> None:
        """Read the children of a search that earlier processes created.

        Of several with one key the one that got furthest stays, and the others are deleted (MLflow keeps deleted runs
        until its own garbage collection): a server may carry out a request that its client had given up, after the
        client has looked whether it did.
        """
        for run in self.stored_children(experiment, search):
            key, found = run.data.tags[KEY], known(run)
            kept = self._children.setdefault(key, found)
            if kept.id != found.id:
                worse, self._children[key] = sorted((kept, found), key=lambda r: (r.state is not None, r.described))
                self._client.delete_run(worse.id)

    def stored_children(self, experiment: str, search: str) -> Iterator[Run]:
        """The children of a search as the store has them now."""
        token = None
        while True:
            page = self._client.search_runs(
                [experiment],
                f"tags.`{SEARCH}` = '{search}' AND tags.`{ROLE}` != 'search'",
                max_results=PAGE,
                page_token=token,
            )
            yield from page
            token = page.token
            if not token:
                return

    def running_children(self, search: str) -> list[KnownRun]:
        """Known children of a search that have not ended."""
        return [run for key, run in self._children.items() if key.startswith(f"{search}/") and run.running]

    def go_on(self, run: KnownRun) -> None:
        """Set a run RUNNING again."""
        self._client.update_run(run.id, status="RUNNING")
        run.running = True

    def end(self, run: KnownRun, status: RunStatus, at: float) -> None:
        """Set a run's final status, as of Unix time `at`."""
        self._client.set_terminated(run.id, status, projection.milliseconds(at))
        run.running = False


def known(run: Run) -> KnownRun:
    """What a stored run says of itself."""
    tags = run.data.tags
    state = tags.get(STATE)
    agree = any(state == ours and run.info.status == theirs for ours, theirs in STATUS.items())
    return KnownRun(
        id=run.info.run_id,
        artifact_uri=run.info.artifact_uri,
        running=run.info.status == "RUNNING",
        described=run.inputs is not None and bool(run.inputs.dataset_inputs),
        state=state if agree else None,
        package=tags.get(PACKAGE),
    )
