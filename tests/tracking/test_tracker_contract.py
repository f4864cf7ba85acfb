"""What every tracker does: the fake in memory and the real one are held to the same words."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import pytest

from pipeline.errors import StoreError
from pipeline.tracking.base import Tracker
from pipeline.tracking.memory import InMemoryTracker
from pipeline.tracking.mlflow import MLflowTracker
from pipeline.training.measurement import State
from tests.packaging.cases import make_case
from tests.tracking.records import PARAMS, SEARCH, finalist, record, search_info
from tests.tracking.stores import View, copy_database, count_runs, reopened, view


@dataclass(slots=True)
class Store:
    """A tracker under test, and how to look at what it wrote."""

    tracker: Tracker
    uri: str
    artifacts: Path

    def see(self, run_id: str) -> View:
        return view(self.tracker, run_id, self.uri)

    def count(self) -> int:
        return count_runs(self.tracker, self.uri)

    def restart(self) -> None:
        """The process ends without a word; the next one opens the same store."""
        self.tracker = reopened(self.tracker, self.uri, self.artifacts)


@pytest.fixture(params=["memory", "mlflow"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    artifacts = tmp_path / "artifacts"
    if request.param == "memory":
        return Store(InMemoryTracker(), "", artifacts)
    uri = copy_database(request.getfixturevalue("database"), tmp_path)
    return Store(MLflowTracker(uri, artifacts), uri, artifacts)


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("package")
    return make_case(root / "trial", "tabular", "mlp").write(root / "package")


def test_a_search_is_a_run_with_its_constants_its_file_and_ready_made_filters(store: Store) -> None:
    parent = store.see(store.tracker.start_search(search_info()))
    assert parent.name == SEARCH
    assert parent.status == "RUNNING"
    assert parent.parent is None
    assert parent.params == {"search.sampler": "tpe", "search.seed": "0"}
    assert parent.tags["automl.role"] == "search"
    assert parent.tags["automl.metric"] == "accuracy"
    assert f"tags.`automl.search` = '{SEARCH}'" in parent.tags["mlflow.note.content"]
    assert {"experiment.yaml", "data/card.md"} <= set(parent.files)


def test_a_trial_has_its_run_before_it_trains(store: Store) -> None:
    parent = store.tracker.start_search(search_info())
    trial = store.see(store.tracker.start_trial(SEARCH, 12, "mlp", PARAMS))
    assert trial.name == "#012 mlp"
    assert trial.status == "RUNNING"
    assert trial.parent == parent
    assert trial.params == {name: str(value) for name, value in PARAMS.items()}
    expected = {"role": "trial", "search": SEARCH, "trial": "12", "family": "mlp", "key": f"{SEARCH}/12"}
    assert {f"automl.{name}": value for name, value in expected.items()}.items() <= trial.tags.items()
    assert store.tracker.trial_states(SEARCH) == {12: "RUNNING"}


@pytest.mark.parametrize(("state", "status"), [("COMPLETE", "FINISHED"), ("PRUNED", "KILLED"), ("FAIL", "FAILED")])
def test_a_trial_ends_as_what_it_is(store: Store, state: State, status: str) -> None:
    store.tracker.start_search(search_info())
    store.tracker.start_trial(SEARCH, 12, "mlp", PARAMS)
    trial = store.see(store.tracker.finish_trial(record(state=state), None))
    assert trial.status == status
    assert trial.tags["automl.state"] == state
    assert store.tracker.trial_states(SEARCH) == {12: state}


def test_a_finished_trial_shows_its_curve_by_epoch_and_its_summary(store: Store) -> None:
    store.tracker.start_search(search_info())
    trial = store.see(store.tracker.finish_trial(record(), None))
    assert trial.curves["train/loss"] == [(1, 2.0), (2, 1.0), (3, pytest.approx(2 / 3))]
    assert [step for step, _ in trial.curves["val/loss"]] == [1, 2, 3]
    assert [value for _, value in trial.curves["val/accuracy"]] == pytest.approx([0.5, 0.6, 0.7])
    summary = {
        "objective": 0.7, "val/accuracy_best": 0.7, "val/f1_macro_best": 0.3, "best_epoch": 3, "n_params": 4242,
        "time/train_s": 1.5, "memory/peak_mb": 321,
    }  # fmt: skip
    assert {name: trial.metrics[name] for name in summary} == pytest.approx(summary)
    assert not [name for name in trial.metrics if name.startswith("test/")], "the sealed test is for finalists"


def test_a_trial_names_its_company(store: Store) -> None:
    store.tracker.start_search(search_info())
    alone = store.see(store.tracker.finish_trial(record(number=1), None))
    member = store.see(store.tracker.finish_trial(record(number=2, cohort="#000 and 3 more"), None))
    assert "automl.cohort" not in alone.tags
    assert member.tags["automl.cohort"] == "#000 and 3 more"


def test_a_failed_trial_says_why(store: Store) -> None:
    store.tracker.start_search(search_info())
    trial = store.see(store.tracker.finish_trial(record(state="FAIL"), None))
    assert trial.tags["automl.error"] == "loss is not finite at epoch 3"
    assert "error/traceback.txt" in trial.files
    assert "objective" not in trial.metrics


def test_values_that_are_not_finite_are_left_out(store: Store) -> None:
    store.tracker.start_search(search_info())
    broken = record(n_epochs=2)
    curve = (broken.curve[0], broken.curve[1].model_copy(update={"val_loss": math.inf, "train_loss": math.nan}))
    trial = store.see(store.tracker.finish_trial(broken.model_copy(update={"curve": curve}), None))
    assert [step for step, _ in trial.curves["val/loss"]] == [1]
    assert all(math.isfinite(value) for curve in trial.curves.values() for _, value in curve)


def test_a_completed_trial_carries_its_model(store: Store, package: Path) -> None:
    store.tracker.start_search(search_info())
    assert "model/" in store.see(store.tracker.finish_trial(record(), package)).files
    assert "model/" not in store.see(store.tracker.finish_trial(record(13), None)).files


def test_a_model_can_be_delivered_after_its_trial(store: Store, package: Path) -> None:
    store.tracker.start_search(search_info())
    store.tracker.finish_trial(record(), None)
    store.restart()
    assert "model/" in store.see(store.tracker.finish_trial(record(), package)).files


def test_a_trial_whose_start_was_never_heard_of_gets_its_run_at_its_end(store: Store) -> None:
    store.tracker.start_search(search_info())
    trial = store.see(store.tracker.finish_trial(record(), None))
    assert trial.name == "#012 mlp"
    assert trial.params == {name: str(value) for name, value in PARAMS.items()}


@pytest.mark.parametrize("restart", [False, True], ids=["same process", "next process"])
def test_everything_said_twice_is_there_once(store: Store, package: Path, restart: bool) -> None:
    def say() -> list[str]:
        ids = [store.tracker.start_search(search_info())]
        ids.append(store.tracker.start_trial(SEARCH, 12, "mlp", PARAMS))
        ids.append(store.tracker.finish_trial(record(), package))
        ids.append(store.tracker.finish_trial(record(13, "FAIL"), None))
        ids.append(store.tracker.finish_finalist(SEARCH, finalist(), package, {}))
        store.tracker.finish_search(SEARCH, "FINISHED", {"best/accuracy": 0.7}, {"note": "done"}, {})
        return ids

    first = say()
    before = [store.see(run_id) for run_id in first]
    if restart:
        store.restart()
    assert say() == first
    assert store.count() == 4
    after = [store.see(run_id) for run_id in first]
    assert [run.status for run in after] == [run.status for run in before]
    assert [run.metrics for run in after] == [run.metrics for run in before]
    assert [run.curves.get("train/loss") for run in after] == [run.curves.get("train/loss") for run in before]
    assert store.tracker.trial_states(SEARCH) == {12: "COMPLETE", 13: "FAIL"}


def test_a_finalist_has_its_own_run_with_the_sealed_tests_scores_and_files(
    store: Store, package: Path, tmp_path: Path
) -> None:
    parent = store.tracker.start_search(search_info())
    store.tracker.finish_trial(record(), package)
    plot = tmp_path / "anything.html"
    plot.write_text("<html>")
    run = store.see(store.tracker.finish_finalist(SEARCH, finalist(), package, {"plots/confusion.html": plot}))
    assert run.name == "finalist #012 mlp"
    assert run.parent == parent
    assert run.status == "FINISHED"
    assert run.tags["automl.role"] == "finalist"
    assert run.metrics == pytest.approx(finalist().metrics)
    assert {"plots/confusion.html", "model/"} <= run.files
    assert store.tracker.trial_states(SEARCH) == {12: "COMPLETE"}, "a finalist's run is no trial's"


def test_the_end_of_a_search_is_on_its_parent_run(store: Store, tmp_path: Path) -> None:
    parent = store.tracker.start_search(search_info())
    report = tmp_path / "r.html"
    report.write_text("<html>")
    metrics = {"best/accuracy": 0.7, "n/complete": 1.0, "time/train_s": math.inf}
    store.tracker.finish_search(SEARCH, "FINISHED", metrics, {"automl.result": "good"}, {"report/report.html": report})
    run = store.see(parent)
    assert run.status == "FINISHED"
    assert run.metrics == {"best/accuracy": 0.7, "n/complete": 1.0}
    assert run.tags["automl.result"] == "good"
    assert "report/report.html" in run.files


@pytest.mark.parametrize("restart", [False, True], ids=["same process", "next process"])
def test_an_interrupted_search_leaves_nothing_running_and_goes_on_later(store: Store, restart: bool) -> None:
    parent = store.tracker.start_search(search_info())
    done = store.tracker.finish_trial(record(11), None)
    unfinished = store.tracker.start_trial(SEARCH, 12, "mlp", PARAMS)
    store.tracker.interrupt_search(SEARCH)
    assert [store.see(run).status for run in (parent, done, unfinished)] == ["KILLED", "FINISHED", "KILLED"]
    assert store.tracker.trial_states(SEARCH) == {11: "COMPLETE", 12: "RUNNING"}, "as Optuna has it"
    if restart:
        store.restart()
    assert store.tracker.start_search(search_info()) == parent
    assert store.tracker.start_trial(SEARCH, 12, "mlp", PARAMS) == unfinished
    assert [store.see(run).status for run in (parent, done, unfinished)] == ["RUNNING", "FINISHED", "RUNNING"]
    store.tracker.finish_trial(record(12), None)
    assert store.see(unfinished).status == "FINISHED"


def test_a_search_may_go_on_with_a_larger_budget(store: Store) -> None:
    parent = store.tracker.start_search(search_info(params={"budget.trials": "10"}))
    store.tracker.start_search(search_info(params={"budget.trials": "20", "added": "x"}))
    assert store.see(parent).params == {"budget.trials": "10", "added": "x"}, "params never change"


def test_two_searches_keep_apart(store: Store) -> None:
    store.tracker.start_search(search_info())
    store.tracker.start_search(search_info(id="other"))
    first = store.tracker.start_trial(SEARCH, 0, "mlp", {})
    second = store.tracker.start_trial("other", 0, "mlp", {})
    assert first != second
    store.tracker.interrupt_search(SEARCH)
    assert [store.see(run).status for run in (first, second)] == ["KILLED", "RUNNING"]
    assert store.tracker.trial_states("other") == {0: "RUNNING"}


def test_long_values_are_cut_with_a_note_of_it(store: Store) -> None:
    store.tracker.start_search(search_info())
    run = store.see(store.tracker.start_trial(SEARCH, 0, "mlp", {"layers": "x" * 9000}))
    assert run.params["layers"].endswith("[4,000 of 9,000 characters cut]")
    failed = store.see(store.tracker.finish_trial(record(1, "FAIL", error="y" * 9000), None))
    assert len(failed.tags["automl.error"]) < 5100


def test_more_metrics_than_one_request_carries(store: Store) -> None:
    store.tracker.start_search(search_info())
    run = store.see(store.tracker.finish_trial(record(n_epochs=400), None))
    assert len(run.curves["val/loss"]) == 400
    assert run.curves["val/loss"][-1] == (400, pytest.approx(3 / 400))


def test_what_is_said_together_is_stored_as_if_it_were_said_alone(store: Store, package: Path) -> None:
    parent = store.tracker.start_search(search_info())
    with store.tracker.together():
        ids = [store.tracker.start_trial(SEARCH, number, "mlp", PARAMS) for number in (11, 12)]
    assert store.tracker.trial_states(SEARCH) == {11: "RUNNING", 12: "RUNNING"}
    with store.tracker.together():
        assert [store.tracker.finish_trial(record(number), package) for number in (11, 12)] == ids
        ids.append(store.tracker.finish_trial(record(13), None))
    assert store.tracker.trial_states(SEARCH) == {11: "COMPLETE", 12: "COMPLETE", 13: "COMPLETE"}
    store.restart()
    store.tracker.start_search(search_info())
    alone = store.see(store.tracker.finish_trial(record(14), package))
    for run_id in ids[:2]:
        seen = store.see(run_id)
        assert (seen.status, seen.parent, seen.curves, seen.params) == ("FINISHED", parent, alone.curves, alone.params)
        assert {path.rpartition("/")[2] for path in seen.files} == {path.rpartition("/")[2] for path in alone.files}
        assert set(seen.tags) == set(alone.tags)
    assert store.count() == 5


def test_where_one_of_several_fails_all_can_be_said_again(store: Store) -> None:
    store.tracker.start_search(search_info())
    early = store.tracker.start_trial(SEARCH, 1, "mlp", PARAMS)

    def say() -> None:
        with store.tracker.together():
            store.tracker.start_trial(SEARCH, 2, "mlp", PARAMS)
            store.tracker.finish_trial(record(1), None)
            raise StoreError("the third is wrong")

    with pytest.raises(StoreError):
        say()
    assert store.count() == 2, "nothing of it was stored"
    assert store.tracker.trial_states(SEARCH) == {1: "RUNNING"}
    assert store.tracker.finish_trial(record(1), None) == early
    store.tracker.start_trial(SEARCH, 2, "mlp", PARAMS)
    assert store.tracker.trial_states(SEARCH) == {1: "COMPLETE", 2: "RUNNING"}
    assert store.see(early).curves["val/accuracy"] == [(n, pytest.approx(0.4 + n / 10)) for n in (1, 2, 3)]
