"""The Prefect flow of an experiment: five tasks over the plain stages, artifacts for people, nothing per trial."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from prefect import flow, task
from prefect.artifacts import create_link_artifact, create_markdown_artifact, create_table_artifact
from prefect.cache_policies import NO_CACHE

from flows.leaderboard import leaderboard
from flows.run import Result, Run
from flows.stages import Evaluated, Promotion, card_of
from pipeline.data.card import card_markdown
from pipeline.data.prepare import Prepared
from pipeline.records import read_records
from pipeline.search.directory import SearchState
from pipeline.search.progress import Progress

LEADERBOARD_ROWS = 50


def artifact_key(experiment: str, kind: str) -> str:
    """Prefect's artifact keys are lower-case letters, digits and dashes; one key a kind keeps its versions together."""
    return "-".join("".join(c if c.isalnum() else " " for c in f"{experiment} {kind}".lower()).split())


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
def search_task(run: Run, prepared: Prepared, state: SearchState) -> Progress:
    """Train and prune trials until the budget is used up."""
    return run.search(prepared, state)


@task(name="evaluate", cache_policy=NO_CACHE)
def evaluate_task(run: Run, prepared: Prepared, state: SearchState) -> Evaluated:
    """Read the sealed test once for the finalists."""
    return run.evaluate(prepared, state)


@task(name="promote", cache_policy=NO_CACHE)
def promote_task(run: Run, prepared: Prepared, state: SearchState, evaluated: Evaluated) -> Promotion:
    """Move the champion alias if every gate is passed."""
    return run.promote(prepared, state, evaluated)


@task(name="report", cache_policy=NO_CACHE)
def report_task(run: Run, state: SearchState, progress: Progress, evaluated: Evaluated, promotion: Promotion) -> Path:
    """Write the summary, and Prefect's artifacts."""
    path = run.report(state, progress, evaluated, promotion)
    name = state.experiment
    rows = leaderboard(read_records(run.experiment.workspace.search(state.id)))[:LEADERBOARD_ROWS]
    create_table_artifact(
        key=artifact_key(name, "leaderboard"),
        table=[{k: "" if v is None else v for k, v in row.model_dump().items()} for row in rows],
        description=f"Search {state.id}: best trials first",
    )
    create_markdown_artifact(
        key=artifact_key(name, "summary"), markdown=path.read_text(encoding="utf-8"), description=promotion.line
    )
    create_link_artifact(
        key=artifact_key(name, "mlflow"),
        link=run.stores.tracker.run_url(state.id),
        link_text=f"MLflow run of {state.id}",
        description="`automl ui` serves it",
    )
    return path


def run_with_prefect(run: Run, on_start: Callable[[], None] = lambda: None) -> Result:
    """Run an experiment as a flow run named after its search."""

    @flow(
        name=f"automl-{run.experiment.config.name}",
        flow_run_name=f"{run.experiment.config.name}",
        validate_parameters=False,
        persist_result=False,
    )
    def automl_search() -> Result:
        on_start()
        prepared = prepare_task(run)
        state = run.find_search(prepared)
        progress = search_task(run, prepared, state)
        evaluated = evaluate_task(run, prepared, state)
        promotion = promote_task(run, prepared, state, evaluated)
        report = report_task(run, state, progress, evaluated, promotion)
        return Result(state, progress, evaluated.evaluation, promotion, report)

    return automl_search()
