"""Two seasonal series from a file to a champion that forecasts them, and again when a week has been added."""

from __future__ import annotations

import warnings
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import pytest

from pipeline.evaluation.finalists import Evaluation
from tests.flows.project import Project

HORIZON = 6
FILE = """
name: load
data:
  source: load.csv
  target: load
  kind: forecast
  forecast: {time: when, series: site, horizon: 6, context: 24, season: 24}
search: {families: [mlp], budget: {trials: 3}}
train: {max_epochs: 12}
evaluate: {finalists: 1, bootstrap: 200}
"""


def series(n_days: int, seed: int = 0) -> pd.DataFrame:
    """Hourly load of two sites: a daily wave, a weekly one, a trend, and noise."""
    frames = []
    for place, site in enumerate(("north", "south")):
        rng, hours = np.random.default_rng(seed + place), np.arange(24 * n_days)
        wave = 10 * np.sin(2 * np.pi * (hours + 3 * place) / 24) + 6 * np.sin(2 * np.pi * hours / 168)
        when = pd.date_range("2024-01-01", periods=len(hours), freq="h").strftime("%Y-%m-%d %H:%M:%S")
        load = 50 + 0.01 * hours + wave + rng.normal(0, 0.5, len(hours))
        frames.append(pd.DataFrame({"when": when, "site": site, "load": load}))
    return pd.concat(frames, ignore_index=True)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    project = Project(tmp_path_factory.mktemp("forecast"), name="load")
    series(28).to_csv(project.folder / "load.csv", index=False)
    project.file.write_text(FILE)
    return project


def evaluation(project: Project) -> Evaluation:
    return Evaluation.model_validate_json((project.directory() / "evaluation.json").read_bytes())


def test_a_search_beats_the_naive_forecast_and_says_so(project: Project) -> None:
    done = project.run()
    assert "it beats the naive forecast: mae " in done.out
    found = evaluation(project)
    assert found.forecast is not None
    assert found.forecast.skill > 0.2
    assert found.winner.test["mae"].value < found.forecast.naive["mae"].value
    assert project.champion() == 1
    project.totals_agree(3)
    [winner] = [run for run in project.runs("finalist") if "test/skill" in run.data.metrics]
    assert winner.data.metrics["test/skill"] == pytest.approx(found.forecast.skill)
    page = (project.directory() / "report.html").read_text()
    assert "<h2>Forecasts</h2>" in page
    assert "beats the naive forecast" in (project.directory() / "summary.md").read_text()


def test_the_champion_forecasts_every_series_from_raw_rows(project: Project) -> None:
    history = series(28)
    known = history[history.groupby("site").cumcount() < 27 * 24]
    known.sample(frac=1, random_state=0).to_csv(project.folder / "known.csv", index=False)
    project.here("predict", "load", "known.csv", "-o", "ahead.csv")
    ahead = pd.read_csv(project.folder / "ahead.csv")
    assert ahead.columns.tolist() == ["series", "step", "time", "prediction"]
    assert ahead["series"].tolist() == ["north"] * HORIZON + ["south"] * HORIZON
    truth = history[history.groupby("site").cumcount().between(27 * 24, 27 * 24 + HORIZON - 1)]
    assert ahead["time"].tolist() == truth["when"].tolist()
    assert np.abs(ahead["prediction"].to_numpy() - truth["load"].to_numpy()).mean() < 3

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # MLflow's own, of types that are not checked
        mlflow.set_tracking_uri(project.uri)
        served = mlflow.pyfunc.load_model("models:/load@champion").predict(known)
    assert served["prediction"].tolist() == pytest.approx(ahead["prediction"].tolist(), rel=1e-6)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (lambda rows: rows.drop(columns="load"), "lacks the column 'load'"),
        (lambda rows: rows.groupby("site").head(20), "needs the last 24 steps of a series, but series 'north' has 20"),
        (lambda rows: rows.drop(index=660), "series 'north' has 11 after its last gap"),
        (lambda rows: pd.concat([rows, rows.tail(1)]), "series 'south' both have"),
    ],
)
def test_a_past_that_is_not_enough_is_said_in_a_line(project: Project, rows: object, message: str) -> None:
    assert callable(rows)
    rows(series(28)).to_csv(project.folder / "bad.csv", index=False)
    done = project.here("predict", "load", "bad.csv", "-o", "bad-ahead.csv", code=2)
    assert message in done.err
    assert len(done.err.strip().splitlines()) == 1
    assert not Path(project.folder / "bad-ahead.csv").exists()


def test_check_shows_windows_and_parts_with_their_times(project: Project) -> None:
    said = project.here("check", project.file.name).out
    assert "load: forecast data, forecast, minimize mae" in said
    assert "6 steps of 1 hour are forecast from 24" in said
    assert "training 2024-01-02 00:00:00 to 2024-01-17 19:00:00, validation 2024-01-17 20:00:00 to" in said


@pytest.mark.slow
def test_a_week_later_the_champion_is_compared_on_windows_that_are_new_to_both(project: Project) -> None:
    series(35).to_csv(project.folder / "load.csv", index=False)
    project.run()
    found = evaluation(project)
    assert found.champion == 1
    assert found.champion_problem is None
    assert found.champion_reading is not None
    assert found.champion_reading.known
    assert 0 < found.champion_reading.n_rows <= found.n_rows
    assert (project.directory() / "drift.json").exists()
