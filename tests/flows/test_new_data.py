"""New data under a schedule: what becomes of the search before, of its champion, and what is said about the data."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pandas as pd
import pytest
from prefect.logging.loggers import disable_run_logger

from flows.run import Run, open_run
from flows.scheduling.flow import _supersede
from flows.stages.drift import ChampionDrift
from flows.workspace import Workspace
from pipeline.config import load_experiment
from pipeline.evaluation.finalists import Evaluation
from pipeline.search.directory import write_state
from tests.flows.project import Project, append_rows, make_table, tabular_project

pytestmark = pytest.mark.slow


@contextlib.contextmanager
def opened(project: Project) -> Iterator[Run]:
    workspace = Workspace(project.state)
    with (
        contextlib.chdir(project.folder),
        disable_run_logger(),
        open_run(load_experiment(project.file), project.folder, workspace, lambda _: None) as run,
    ):
        yield run


def test_an_unfinished_search_of_other_data_is_closed_even_if_mlflow_never_heard_of_it(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    project = tabular_project(tmp_path_factory.mktemp("superseded"))
    with opened(project) as run:
        first = run.find_search(run.prepare())
        write_state(project.state / "searches" / first.id, first)
    with opened(project) as run:
        _supersede(run, run.prepare())
    assert [search.status for search in project.searches()] == ["unfinished"], "the same data: it is gone on with"

    make_table(project.folder, seed=1)
    with opened(project) as run:
        prepared = run.prepare()
        _supersede(run, prepared)
        assert run.find_search(prepared).id != first.id
    assert [search.status for search in project.searches()] == ["finished"]
    assert project.searches()[0].reason.startswith("superseded: the data itself")


def test_the_champion_is_compared_on_rows_that_are_new_to_it_and_drift_is_reported(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    project = Project(tmp_path_factory.mktemp("grown"))
    make_table(project.folder, n=1200)
    project.file.write_text(
        "name: small\ndata: {source: train.csv, target: buys, split: {by: stratified}}\n"
        "search: {budget: {trials: 3}}\ntrain: {max_epochs: 3}\n"
    )
    project.run()
    append_rows(project.folder, 400, seed=1)
    table = pd.read_csv(project.folder / "train.csv")
    table.loc[900:, "income"] *= 10  # another currency
    table.to_csv(project.folder / "train.csv", index=False)
    project.run()

    evaluation = Evaluation.model_validate_json((project.directory() / "evaluation.json").read_bytes())
    reading = evaluation.champion_reading
    assert evaluation.n_rows == 260
    assert reading is not None
    assert reading.known
    assert 240 <= reading.n_rows <= 260, "yesterday's test rows are still test rows, but for a few"
    found = ChampionDrift.model_validate_json((project.directory() / "drift.json").read_bytes())
    assert (found.champion, found.n_then, found.n_now) == (1, 180, reading.n_rows)
    assert found.now == reading.test["roc_auc"]
    assert [column.name for column in found.data.columns if column.moved] == ["income"]
    summary = (project.directory() / "summary.md").read_text()
    assert "## Since champion v1 was trained" in summary
    assert "1 of 4 columns have moved: income" in summary
    assert f"of the {reading.n_rows} of 260 test rows that are new to both" in summary
    [parent] = project.runs("search")
    assert parent.data.tags["automl.drift"].startswith("1 of 4 columns have moved: income")
