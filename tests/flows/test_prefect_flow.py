"""Under Prefect: one flow run with five task runs and its artifacts, all state in the project's folder."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from flows.search_flow import artifact_key
from tests.flows.project import tabular_project

pytestmark = pytest.mark.slow


def rows(database: Path, query: str) -> list[tuple[str, ...]]:
    with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as connection:
        return connection.execute(query).fetchall()


def test_a_search_is_a_flow_run_of_five_tasks(tmp_path: Path) -> None:
    project = tabular_project(tmp_path)
    result = project.automl("run", "small.yaml", "--trials", "4", "--json").json
    assert sum(result["trials"].values()) == 4
    project.totals_agree(4)

    database = project.state / "prefect" / "prefect.db"
    assert rows(database, "SELECT f.name, r.state_type FROM flow_run r JOIN flow f ON f.id = r.flow_id") == [
        ("automl-small", "COMPLETED")
    ]
    tasks = rows(database, "SELECT name, state_type FROM task_run ORDER BY start_time")
    assert [name.rsplit("-", 1)[0] for name, _ in tasks] == ["prepare", "search", "evaluate", "promote", "report"]
    assert {state for _, state in tasks} == {"COMPLETED"}
    artifacts = rows(database, "SELECT key, type FROM artifact ORDER BY key")
    keys = [key for key, _ in artifacts]
    assert keys == ["small-data", "small-history", "small-leaderboard", "small-mlflow", "small-summary"]
    assert not list((tmp_path / "home").iterdir()), "nothing is written into the home folder"
    made = {path.name for path in tmp_path.iterdir()}
    assert made == {"small.yaml", "train.csv", "test.csv", "home", "mlruns"}


def test_artifact_keys_are_what_prefect_accepts() -> None:
    assert artifact_key("Adult_v1.2", "leaderboard") == "adult-v1-2-leaderboard"
