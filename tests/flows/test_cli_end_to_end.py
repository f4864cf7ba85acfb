"""From a file to a champion, with real stores and processes: what a user may rely on when `automl run` is through."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx
import pandas as pd
import pytest
from sklearn.metrics import accuracy_score, roc_auc_score

from flows.commands.models import predict_source
from pipeline.data.tensors import Inputs
from pipeline.errors import InputError
from pipeline.files import sha256_file
from pipeline.packaging.int8 import Quantised, quantise
from pipeline.packaging.predictor import Predictor
from pipeline.records import TrialRecord
from pipeline.tracking.artifacts import local_folder
from tests.flows.project import Done, Project, tabular_project
from tests.flows.webhook import listening
from tests.helpers import umask

pytestmark = pytest.mark.slow

LOAD_EVERYTHING = """
import json, sys
import mlflow, pandas as pd
mlflow.set_tracking_uri(sys.argv[1])
rows = pd.read_csv("test.csv")
model = mlflow.pyfunc.load_model("models:/small@champion")
champion = model.predict(rows)
assert "set" in model.metadata.signature.outputs.input_names()
loaded = {run: mlflow.pyfunc.load_model(f"runs:/{run}/model").predict(rows)["probability_yes"].tolist()
          for run in sys.argv[2:]}
print(json.dumps({"prediction": champion["prediction"].tolist(), "yes": champion["probability_yes"].tolist(),
                  "set": champion["set"].tolist(),
                  "loaded": loaded}))
"""


@dataclass(frozen=True, slots=True)
class Seen:
    """A project's stores at one moment."""

    done: Done
    records: list[TrialRecord]
    readings: int
    moves: int
    champion: int | None
    searches: int
    finalists: dict[str, dict[str, float]]
    """Finalist runs: name to metrics."""
    workers: int
    """Worker processes that ever wrote a log since it was last removed."""


def worker_logs(project: Project) -> list[Path]:
    return list(project.state.glob("searches/*/workers/*"))


def see(project: Project, done: Done) -> Seen:
    finalists = {run.info.run_name: dict(run.data.metrics) for run in project.runs("finalist")}
    return Seen(
        done, project.records(), len(project.readings()), len(project.moves()), project.champion(),
        len(project.searches()), finalists, len(worker_logs(project)),
    )  # fmt: skip


@pytest.fixture(scope="module")
def told() -> Iterator[tuple[str, list[Any]]]:
    """A webhook that says it is broken: its URL, and what it got."""
    with listening(status=500) as webhook:
        yield webhook


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory, told: tuple[str, list[Any]]) -> Project:
    """Nothing is pruned: how many trials complete, and are no finalists, would be chance."""
    project = tabular_project(tmp_path_factory.mktemp("tabular"))
    searched = project.file.read_text().replace("search: {", "search: {pruner: none, ")
    project.file.write_text(f"{searched}notify: {{webhook: '{told[0]}'}}\nevaluate: {{conformal: 0.8}}\n")
    return project


@pytest.fixture(scope="module")
def first(project: Project) -> Seen:
    """The first run: eight trials on a table with categories and missing values."""
    done = project.run("--json")
    project.totals_agree(8)
    return see(project, done)


@pytest.fixture(scope="module")
def in_fresh_process(project: Project, first: Seen) -> dict[str, Any]:
    """What MLflow loads and predicts in another process, when the first run is through."""
    complete = [run.info.run_id for run in project.runs("trial") if run.data.tags["automl.state"] == "COMPLETE"]
    answer: dict[str, Any] = project.python(LOAD_EVERYTHING, project.uri, *complete)
    assert len(answer["loaded"]) == len(complete) > 0
    return answer


def test_the_result_is_json_and_nothing_else_is_on_stdout(first: Seen) -> None:
    result = first.done.json
    assert sum(result["trials"].values()) == 8
    assert result["promotion"]["promoted"]
    assert result["winner"]["trial"] in {record.number for record in first.records if record.state == "COMPLETE"}
    assert Path(result["report"]).is_file()


def test_every_completed_trials_model_loads_and_predicts_raw_rows(in_fresh_process: dict[str, Any]) -> None:
    for probabilities in in_fresh_process["loaded"].values():
        assert len(probabilities) == 125
        assert all(0 <= p <= 1 for p in probabilities)


def test_the_champion_scores_in_a_fresh_process_exactly_what_was_reported(
    project: Project, first: Seen, in_fresh_process: dict[str, Any]
) -> None:
    target = pd.read_csv(project.folder / "test.csv")["buys"]
    reported = first.done.json["winner"]["test"]
    assert accuracy_score(target, in_fresh_process["prediction"]) == pytest.approx(reported["accuracy"]["value"])
    roc_auc = roc_auc_score(target == "yes", in_fresh_process["yes"])
    assert roc_auc == pytest.approx(reported["roc_auc"]["value"], abs=1e-9)
    assert roc_auc > 0.8, "the problem is easy; a model that learned nothing would have 0.5"


def test_automl_predict_agrees_with_mlflow_row_by_row(
    project: Project, first: Seen, in_fresh_process: dict[str, Any]
) -> None:
    project.automl("predict", "small", "test.csv", "-o", "out.csv")
    table = pd.read_csv(project.folder / "out.csv")
    assert list(table) == ["prediction", "probability_no", "probability_yes", "set"]
    assert table["prediction"].tolist() == in_fresh_process["prediction"]
    assert table["probability_yes"].to_numpy() == pytest.approx(in_fresh_process["yes"], abs=1e-9)


def test_conformal_sets_are_served_as_predicted_and_their_coverage_was_measured_at_the_one_reading(
    project: Project, first: Seen, in_fresh_process: dict[str, Any]
) -> None:
    project.here("predict", "small", "test.csv", "-o", "sets.csv")
    sets = [json.loads(held) for held in pd.read_csv(project.folder / "sets.csv")["set"]]
    assert sets == in_fresh_process["set"]
    target = pd.read_csv(project.folder / "test.csv")["buys"]
    held = sum(label in labels for label, labels in zip(target, sets, strict=True)) / len(target)
    measured = first.done.json["winner"]["coverage"]
    assert (measured["level"], measured["held"]["value"]) == (0.8, pytest.approx(held))
    assert measured["size"]["value"] == pytest.approx(sum(map(len, sets)) / len(sets))
    # 75 rows to fit on and 125 to measure on: a right fit is below 0.6 once in ten thousand.
    assert held > 0.6
    for metrics in first.finalists.values():
        assert metrics["test/coverage_lo"] <= metrics["test/coverage"] <= metrics["test/coverage_hi"]
        assert 1 <= metrics["test/set_size"] <= 2
    summary = Path(first.done.json["report"])
    assert "Conformal sets that ask for 0.8 of the rows" in summary.read_text()
    for name in ("report.html", "model-card.md"):
        assert "conformal sets were to hold 0.8 of the rows" in summary.with_name(name).read_text().lower()


@pytest.mark.parametrize(
    ("model", "said"),
    [
        ("nobody", "registered models: small"),
        ("small@challenger", "no alias challenger"),
        ("small/9", "no version 9"),
        ("a b", "NAME@ALIAS"),
    ],
)
def test_a_model_that_is_not_there_is_refused_with_those_that_are(
    project: Project, first: Seen, model: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(project.folder)
    monkeypatch.setenv("PREFECT_HOME", str(project.state / "prefect"))
    with pytest.raises(InputError, match=said):
        predict_source(model, "test.csv", Path("never.csv"), "sqlite:///mlruns/mlflow.db")
    assert not (project.folder / "never.csv").exists()


def test_the_report_is_an_artifact_of_the_search_and_can_be_made_again(project: Project, first: Seen) -> None:
    (parent,) = project.runs("search")
    folder = local_folder(parent.info.artifact_uri)
    assert folder is not None
    logged = (folder / "report" / "report.html").read_text()
    card = (folder / "report" / "model-card.md").read_text()
    assert "promoted small v1" in card
    assert "- columns: age" in card
    with umask(0o022):
        made = project.here("report", "small", "-o", str(project.folder / "again.html"), "--json").json
    again = Path(made["report"]).read_text()
    assert Path(made["report"]).stat().st_mode & 0o777 == 0o644, "it is for whoever it was made for"
    for page in (logged, again):
        assert "promoted small v1" in page
        assert "Calibration" in page
    refused = project.here("report", "small", "-o", "page.txt", code=2)
    assert "must be an .html file" in refused.err


def test_champion_and_trial_become_scripts_that_say_what_was_recorded(project: Project, first: Seen) -> None:
    """What the scripts do is shown in tests/packaging/test_script.py."""
    champion = project.here("export", "small", "--script", "champion.py", "--json").json
    winner = first.done.json["winner"]
    assert (champion["trial"], champion["largest_difference"]) == (winner["trial"], pytest.approx(0, abs=1e-6))
    said = (project.folder / "champion.py").read_text()
    assert f'recorded_test="{winner["test"]["roc_auc"]["value"]:.4f} [' in said
    assert (project.folder / "champion.rows.npz").exists()
    other = next(r for r in first.records if r.state == "COMPLETE" and f"#{r.number:03d}" not in str(first.finalists))
    project.here("export", "small", "--script", "trial.py", "--trial", str(other.number))
    assert "not read on the sealed test" in (project.folder / "trial.py").read_text()
    refused = project.here("export", "small", "--script", "trial.py", "--trial", "99", code=2)
    assert "trial 99" in refused.err
    assert "did not complete" in refused.err


def test_the_sealed_test_is_read_once_and_for_finalists_only(project: Project, first: Seen) -> None:
    assert first.readings == 1
    leaked = [name for run in project.runs("trial") for name in run.data.metrics if name.startswith("test/")]
    assert leaked == []
    assert first.finalists
    for metrics in first.finalists.values():
        for name in ("accuracy", "roc_auc", "log_loss"):
            low, value, high = (metrics[f"test/{name}{end}"] for end in ("_lo", "", "_hi"))
            assert low <= value <= high
            assert low < high


def test_every_finalists_run_has_its_scores_by_slice(project: Project, first: Seen) -> None:
    for run in project.runs("finalist"):
        folder = local_folder(run.info.artifact_uri)
        assert folder is not None
        rows = list(csv.DictReader((folder / "slices" / "slices.csv").read_text().splitlines()))
        assert {"age", "income", "town", "buys"} == {row["column"] for row in rows}
        assert all(float(row["accuracy_lo"]) <= float(row["accuracy"]) <= float(row["accuracy_hi"]) for row in rows)
        assert all(int(row["rows"]) >= 30 for row in rows)


def test_what_the_winner_uses_is_measured_and_logged_with_the_search(project: Project, first: Seen) -> None:
    (parent,) = project.runs("search")
    folder = local_folder(parent.info.artifact_uri)
    assert folder is not None
    found = json.loads((folder / "explanation" / "explanation.json").read_text())
    assert found["trial"] == first.done.json["winner"]["trial"]
    assert {column["column"] for column in found["importance"]["columns"]} == {"age", "income", "town"}
    assert "importance" in (folder / "explanation" / "explanation.svg").read_text().lower()
    assert "What it uses" in (folder / "report" / "report.html").read_text()


def test_only_the_owner_can_read_the_state_folder(project: Project, first: Seen) -> None:
    assert project.state.stat().st_mode & 0o077 == 0


def test_leaderboard_and_trial_are_readable_by_people_and_programs(project: Project, first: Seen) -> None:
    rows = project.here("leaderboard", "small", "--json").json
    assert len(rows) == 8
    complete = [row for row in rows if row["state"] == "COMPLETE"]
    assert [row["rank"] for row in complete] == list(range(1, len(complete) + 1))
    scores = [row["score"] for row in complete]
    assert scores == sorted(scores, reverse=True)
    as_csv = list(csv.DictReader(io.StringIO(project.here("leaderboard", "small", "--csv").out)))
    assert [int(row["trial"]) for row in as_csv] == [row["trial"] for row in rows]
    best = rows[0]["trial"]
    assert f"#{best:03d}" in project.here("leaderboard", "small.yaml", "--limit", "1").out
    trial = project.here("trial", "small", str(best), "--json").json
    assert trial["objective"] == pytest.approx(scores[0])
    assert "optimizer.name" in project.here("trial", "small", str(best)).out


@pytest.fixture(scope="module")
def second(project: Project, first: Seen, in_fresh_process: dict[str, Any]) -> Seen:
    """The same command again."""
    assert first.workers
    for log in worker_logs(project):
        log.unlink()
    return see(project, project.run("--json"))


def test_running_again_repeats_nothing(first: Seen, second: Seen) -> None:
    assert second.records == first.records
    assert (second.readings, second.moves, second.champion, second.searches) == (1, 1, first.champion, 1)
    assert second.finalists == first.finalists
    assert not second.done.json["promotion"]["promoted"]
    assert second.done.json["winner"] == first.done.json["winner"]
    assert not second.workers, "nothing is left to train, so nobody is started for it"


@pytest.fixture(scope="module")
def larger(project: Project, second: Seen) -> Seen:
    """A larger budget."""
    seen = see(project, project.run("--trials", "11", "--json"))
    project.totals_agree(11)
    return seen


def test_a_larger_budget_goes_on_with_the_same_search(second: Seen, larger: Seen) -> None:
    assert larger.searches == 1
    assert larger.records[:8] == second.records


@pytest.fixture(scope="module")
def forced(project: Project, larger: Seen) -> Seen:
    """Another trial than the champion is forced to be one."""
    champion = larger.done.json["winner"]["trial"]
    other = next(r.number for r in larger.records if r.state == "COMPLETE" and r.number != champion)
    refused = project.automl("promote", "small.yaml", "--trial", str(other), "--force", code=2)
    assert "--reason" in refused.err
    done = project.automl("promote", "small.yaml", "--trial", str(other), "--force", "--reason", "a test", "--json")
    return see(project, done)


def test_a_forced_promotion_is_on_the_ledger_with_its_reason(project: Project, larger: Seen, forced: Seen) -> None:
    assert forced.champion == forced.done.json["version"] != larger.champion
    move = project.moves()[larger.moves]
    assert (move.action, move.before, move.after) == ("force", larger.champion, forced.champion)
    assert "a test" in " ".join(move.evidence)


@pytest.fixture(scope="module")
def rolled_back(project: Project, forced: Seen) -> Seen:
    return see(project, project.automl("rollback", "small.yaml", "--reason", "it was a test", "--json"))


def test_a_rollback_brings_the_previous_champion_back(
    project: Project, larger: Seen, forced: Seen, rolled_back: Seen
) -> None:
    assert rolled_back.champion == larger.champion
    move = project.moves()[-1]
    assert (move.action, move.before, move.after) == ("rollback", forced.champion, larger.champion)
    shown = project.here("models", "small")
    assert "champion" in shown.out
    assert "it was a test" in shown.out
    versions = project.here("models", "--json").json["small"]["versions"]
    assert {v["version"]: "champion" in v["aliases"] for v in versions}[larger.champion]


def test_every_move_was_told_with_version_evidence_and_author_and_a_broken_webhook_undid_none(
    project: Project, larger: Seen, forced: Seen, rolled_back: Seen, told: tuple[str, list[Any]]
) -> None:
    url, got = told
    moves = project.moves()
    assert [(m["version"], m["previous"], m["action"], m["who"], tuple(m["evidence"])) for m in got] == [
        (move.after, move.before, move.action, move.who, move.evidence) for move in moves
    ]
    assert [m["event"] for m in got] == ["promoted"] * (len(moves) - 1) + ["rolled_back"]
    assert {m["experiment"] for m in got} == {"small"}
    assert project.champion() == moves[-1].after
    for seen in (forced, rolled_back):
        assert "warning: the notification webhook answered 500" in seen.done.err
        assert url not in seen.done.err


def test_a_variant_with_8_bit_weights_is_written_with_its_evidence_where_the_gates_take_it(
    project: Project, rolled_back: Seen
) -> None:
    shown = project.here("export", "small/1", "--check", "test.csv", "-o", "out/m.onnx", "--int8", "--json").json
    said = json.loads((project.folder / "out" / "m.int8.json").read_text())
    assert said == shown["int8"]
    assert (said["model"], said["version"], said["method"], shown["refused"]) == ("small", 1, "dynamic", [])
    for form, name in (("original", "m.onnx"), ("variant", "m.int8.onnx")):
        written = project.folder / "out" / name
        assert (said[form]["file"], said[form]["sha256"]) == (name, sha256_file(written))
        assert said[form]["n_bytes"] == written.stat().st_size
        assert 0 < said[form]["speed"]["latency_ms_p50"] <= said[form]["speed"]["latency_ms_p95"]
    reading = said["reading"]
    assert reading["n_rows"] == len(pd.read_csv(project.folder / "test.csv"))
    scores = [reading[form]["roc_auc"]["value"] for form in ("variant", "original")]
    assert reading["difference"]["difference"]["value"] == pytest.approx(scores[0] - scores[1])
    assert [gate["gate"][:5] for gate in reading["gates"]] == ["keeps", "beats"]
    assert project.readings()[-1]["reason"] == "int8 variant of small v1 against v1"


def test_a_variant_that_loses_what_the_model_knows_is_refused_and_nothing_is_written(
    project: Project, rolled_back: Seen, monkeypatch: pytest.MonkeyPatch
) -> None:
    def without_a_head(predictor: Predictor, source: Path, target: Path, training: Inputs) -> Quantised:
        made = quantise(predictor, source, target, training)
        model = onnx.load(target)
        head = next(t for t in model.graph.initializer if t.name.startswith("module.head.weight") and len(t.dims) == 2)
        head.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(head) * 0, head.name))
        onnx.save(model, target)
        return made

    monkeypatch.setattr("flows.commands.quantise.quantise", without_a_head)
    refused = project.here("export", "small/1", "--check", "test.csv", "-o", "broken/m.onnx", "--int8", code=1)
    assert "FAILED: keeps roc_auc within the interval of v1" in refused.out
    assert refused.err.startswith("error: int8 variant of small v1: keeps roc_auc within the interval of v1 not passed")
    assert refused.err.count("\n") == 1
    assert not (project.folder / "broken").exists()


def test_a_new_search_starts_from_the_defaults_and_the_best_of_the_last_one(
    project: Project, larger: Seen, rolled_back: Seen
) -> None:
    project.run("--new", "--trials", "3")
    assert len(project.searches()) == 2
    project.totals_agree(3)
    complete = sorted((r for r in larger.records if r.state == "COMPLETE"), key=lambda r: -(r.objective or 0.0))
    tried = [record.params for record in project.records()]
    assert tried[0] == larger.records[0].params, "the family's default"
    assert tried[1:] == [record.params for record in complete[:2]]


def test_all_three_families_are_searched_on_images(tmp_path: Path) -> None:
    project = Project(tmp_path)
    project.file.write_text(
        "name: small\ndata: {source: 'sklearn:digits'}\nsearch: {pruner: none, budget: {trials: 6}}\n"
        "train: {max_epochs: 2}\n"
    )
    result = project.run("--json").json
    project.totals_agree(6)
    complete = {record.family for record in project.records() if record.state == "COMPLETE"}
    assert complete == {"mlp", "cnn", "lstm"}
    finalists = {run.data.tags["automl.family"] for run in project.runs("finalist")}
    assert finalists == complete, "the best of every family is read on the sealed test"
    project.automl("predict", "small@champion", "sklearn:digits", "-o", "out.parquet")
    predicted = pd.read_parquet(tmp_path / "out.parquet")
    assert len(predicted) == 1797
    assert predicted["prediction"].dtype == "int64"
    assert result["winner"]["test"]["accuracy"]["value"] > 0.5
    assert not list((tmp_path / "home").iterdir()), "nothing is written into the home folder"
    (page,) = project.state.glob("searches/*/report.html")
    assert "What it uses" in page.read_text()
    assert "What the winner is most wrong about" in page.read_text()


def test_a_small_table_is_cross_validated_and_its_finalists_are_trained_over_seeds(tmp_path: Path) -> None:
    project = Project(tmp_path)
    project.file.write_text(
        "name: small\ndata: {source: 'sklearn:iris'}\nsearch: {pruner: none, budget: {trials: 5}}\n"
        "train: {max_epochs: 3}\nevaluate: {seeds: 2, finalists: 2}\n"
    )
    done = project.run("--json")
    project.totals_agree(5)
    assert all(r.objective_se is not None for r in project.records() if r.state == "COMPLETE")
    assert len(done.json["winner"]["seeds"]) == 2
    for run in project.runs("finalist"):
        assert run.data.metrics["n_seeds"] == 2
        assert 0 <= run.data.metrics["test/accuracy_seeds_mean"] <= 1
    assert len(project.readings()) == 1, "all seeds of all finalists in one reading"
    summary = next(project.state.glob("searches/*/summary.md")).read_text()
    assert "ended because: trial budget used up" in summary
    assert "over 2 seeds" in summary
    project.run("--json")
    assert len(project.readings()) == 1, "nothing is trained or read again"
