"""An experiment's stages as five Prefect tasks, with artifacts for people and nothing per trial."""

from __future__ import annotations

import base64
import os
from collections.abc import Callable
from typing import Any

from prefect import State, flow, task
from prefect.artifacts import (
    create_image_artifact,
    create_markdown_artifact,
    create_table_artifact,
)
from prefect.cache_policies import NO_CACHE
from prefect.states import Cancelled

from flows.environment import MLFLOW_UI, MLFLOW_UI_VARIABLE
from flows.leaderboard import leaderboard
from flows.run import Result, Run
from flows.stages import HISTORY, Evaluated, Promotion, card_of
from pipeline.data.card import card_markdown
from pipeline.data.prepare import Prepared
from pipeline.errors import Interrupted
from pipeline.records import read_records
from pipeline.search.directory import SearchState
from pipeline.search.progress import Progress

LEADERBOARD_ROWS = 50


def artifact_key(experiment: str, kind: str) -> str:
    """Prefect's artifact keys are lower-case letters, digits and dashes; one key a kind keeps its versions together."""
    return "-".join("".join(c if c.isalnum() else " " for c in f"{experiment} {kind}".lower()).split())


def mlflow_page(url: str) -> str:
    """A page of MLflow's UI: of the server that the experiment names, of the one that ``automl up`` has started, or of
    where ``automl ui`` would be."""
    return f"{os.environ.get(MLFLOW_UI_VARIABLE, MLFLOW_UI)}{url}" if url.startswith("/") else url


def _cell(value: Any) -> Any:
    """For a table that people read."""
    return "" if value is None else round(value, 6) if isinstance(value, float) else value


@task(name="prepare", cache_policy=NO_CACHE)
def prepare_task(run: Run) -> Prepared:
    """Read, check, split and scale the data; its card is an artifact."""
    prepared = run.prepare()
    config = run.experiment.config
    card = card_of(config, prepared)
    create_markdown_artifact(
        key=artifact_key(config.name, "data"),
        markdown=card_markdown(card),
        description=f"{card.n_rows} rows of {card.kind} data, {len(card.findings)} findings",
    )
    return prepared


@task(name="search", cache_policy=NO_CACHE)
def search_task(run: Run, prepared: Prepared, state: SearchState) -> Progress | State[Any]:
    """Train and prune trials until the budget is used up. An interrupted search is Cancelled, not Failed."""
    try:
        return run.search(prepared, state)
    except Interrupted as stopped:
        return Cancelled(message=str(stopped))


@task(name="evaluate", cache_policy=NO_CACHE)
def evaluate_task(run: Run, prepared: Prepared, state: SearchState) -> Evaluated:
    """Read the sealed test once for the finalists."""
    return run.evaluate(prepared, state)


@task(name="promote", cache_policy=NO_CACHE)
def promote_task(run: Run, prepared: Prepared, state: SearchState, evaluated: Evaluated) -> Promotion:
    """Move the champion alias if every gate is passed."""
    return run.promote(prepared, state, evaluated)


@task(name="report", cache_policy=NO_CACHE)
def report_task(run: Run, state: SearchState, progress: Progress, evaluated: Evaluated, promotion: Promotion) -> Result:
    """Write the summary, and Prefect's artifacts."""
    result = run.report(state, progress, evaluated, promotion)
    name = state.experiment
    rows = leaderboard(read_records(run.experiment.workspace.search(state.id)))[:LEADERBOARD_ROWS]
    create_table_artifact(
        key=artifact_key(name, "leaderboard"),
        table=[{k: _cell(v) for k, v in row.model_dump().items()} for row in rows],
        description=f"Search {state.id}: best trials first",
    )
    create_markdown_artifact(
        key=artifact_key(name, "summary"),
        markdown=result.report.read_text(encoding="utf-8"),
        description=result.outcome.line,
    )
    picture = base64.b64encode((run.experiment.workspace.search(state.id) / HISTORY).read_bytes()).decode()
    create_image_artifact(
        key=artifact_key(name, "history"),
        image_url=f"data:image/svg+xml;base64,{picture}",
        description=f"Search {state.id}: every trial",
    )
    page = mlflow_page(run.stores.tracker.run_url(state.id))
    create_markdown_artifact(
        key=artifact_key(name, "mlflow"),
        markdown=f"- [{state.id} in MLflow]({page})\n- [its report]({page}/artifacts/report/summary.md)\n",
        description="`automl up` and `automl ui` serve these pages",
    )
    return result


def run_tasks(run: Run, prepared: Prepared, state: SearchState) -> Result:
    """The tasks after `prepare`, one after the other, in a flow.

    Raises:
        Interrupted: the search was stopped; its task is Cancelled.
    """
    progress = search_task(run, prepared, state)
    if isinstance(progress, State):
        raise Interrupted(progress.message or "interrupted", run.stop.by)
    evaluated = evaluate_task(run, prepared, state)
    promotion = promote_task(run, prepared, state, evaluated)
    return report_task(run, state, progress, promotion.evaluated, promotion)


def run_with_prefect(run: Run, on_start: Callable[[], None] = lambda: None) -> Result:
    """Run an experiment as a flow run named after it.

    Raises:
        Interrupted: it was stopped; the flow run is Cancelled.
    """

    @flow(
        name=f"automl-{run.experiment.config.name}",
        flow_run_name=f"{run.experiment.config.name}",
        validate_parameters=False,
        persist_result=False,
    )
    def automl_search() -> Result | State[Any]:
        on_start()
        prepared = prepare_task(run)
        state = run.find_search(prepared)
        try:
            return run_tasks(run, prepared, state)
        except Interrupted as stopped:
            return Cancelled(message=str(stopped))

    result = automl_search()
    if isinstance(result, State):
        raise Interrupted(result.message or "interrupted", run.stop.by)
    return result
