"""What only the real store can get wrong: its file system, its races, its lost answers, and what its users load."""

from __future__ import annotations

import json
import subprocess
import sys
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from mlflow.store.tracking.dbmodels.models import SqlDataset
from sqlalchemy import event

from pipeline.errors import StoreError
from pipeline.packaging import load_package, package_digest
from pipeline.tracking.base import StoreRefusedError
from pipeline.tracking.mlflow import MLflowTracker, migrate
from pipeline.tracking.store import shown_uri
from tests.chaos.full import no_file_beyond
from tests.packaging.cases import Case, make_case
from tests.patience import PATIENCE_S
from tests.tracking.records import PARAMS, SEARCH, record, search_info
from tests.tracking.stores import copy_database, view


@pytest.fixture
def uri(database: Path, tmp_path: Path) -> str:
    return copy_database(database, tmp_path)


@pytest.fixture
def tracker(uri: str, tmp_path: Path) -> MLflowTracker:
    return MLflowTracker(uri, tmp_path / "artifacts")


@pytest.fixture
def client(uri: str) -> MlflowClient:
    return MlflowClient(tracking_uri=uri)


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> Case:
    return make_case(tmp_path_factory.mktemp("case"), "tabular", "mlp", labels=("low", "mid", "high"))


@pytest.fixture(scope="module")
def package(case: Case, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return case.write(tmp_path_factory.mktemp("packages") / "package")


# Runs.


def test_the_notes_filters_find_what_they_say(tracker: MLflowTracker, client: MlflowClient) -> None:
    parent = client.get_run(tracker.start_search(search_info()))
    for number, state in enumerate(("COMPLETE", "PRUNED", "FAIL", "COMPLETE")):
        tracker.finish_trial(record(number, state), None)
    note = parent.data.tags["mlflow.note.content"]
    rows = [line.strip("| ").split(" | ") for line in note.splitlines() if "| `" in line]
    filters = {what: query.strip("`") for what, query in rows}
    experiment = parent.info.experiment_id
    counts = {what: len(client.search_runs([experiment], query)) for what, query in filters.items()}
    assert counts == {
        "all trials": 4, "completed": 2, "pruned": 1, "failed, with reasons": 1, "finalists on the sealed test": 0
    }  # fmt: skip


def test_the_data_set_is_an_input_of_search_and_trial(tracker: MLflowTracker, client: MlflowClient) -> None:
    for run_id in (tracker.start_search(search_info()), tracker.start_trial(SEARCH, 0, "mlp", {})):
        (entry,) = client.get_run(run_id).inputs.dataset_inputs
        assert entry.dataset.name == "data/digits.csv"
        assert entry.dataset.digest == "f" * 36
        columns = {column["name"]: column["type"] for column in json.loads(entry.dataset.schema)["mlflow_colspec"]}
        assert columns == {"age": "double", "town": "string"}


def test_files_lie_under_the_given_folder_wherever_the_process_is(
    tracker: MLflowTracker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, client: MlflowClient
) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    run = client.get_run(tracker.start_search(search_info()))
    assert run.info.artifact_uri == (tmp_path / "artifacts" / "digits" / run.info.run_id / "artifacts").as_uri()
    assert (tmp_path / "artifacts" / "digits" / run.info.run_id / "artifacts" / "experiment.yaml").is_file()
    assert list(elsewhere.iterdir()) == []


def test_the_end_time_of_a_trial_is_the_records(tracker: MLflowTracker, client: MlflowClient) -> None:
    tracker.start_search(search_info())
    run = client.get_run(tracker.finish_trial(record(), None))
    assert (run.info.start_time, run.info.end_time) == (1_767_000_000_000, 1_767_000_010_000)


def test_changed_constants_of_a_resumed_search_are_on_a_tag(tracker: MLflowTracker, client: MlflowClient) -> None:
    parent = tracker.start_search(search_info(params={"budget.trials": "10"}))
    tracker.start_search(search_info(params={"budget.trials": "20"}))
    assert json.loads(client.get_run(parent).data.tags["automl.resumed_with"]) == {"budget.trials": "20"}


def test_a_search_that_mlflow_does_not_know_is_refused_for_good(tracker: MLflowTracker) -> None:
    with pytest.raises(StoreRefusedError, match="no run of search"):
        tracker.finish_trial(record(), None)


def test_a_deleted_experiment_is_said_with_its_remedy(tracker: MLflowTracker, client: MlflowClient) -> None:
    parent = tracker.start_search(search_info())
    client.delete_experiment(client.get_run(parent).info.experiment_id)
    with pytest.raises(StoreRefusedError, match="mlflow experiments restore"):
        tracker.start_search(search_info())


def test_two_runs_that_claim_one_trial_are_an_error(tracker: MLflowTracker, client: MlflowClient) -> None:
    tracker.start_search(search_info())
    run = client.get_run(tracker.start_trial(SEARCH, 3, "mlp", {}))
    client.create_run(run.info.experiment_id, tags=run.data.tags)
    with pytest.raises(StoreError, match="claim trial 3"):
        tracker.trial_states(SEARCH)


# Faults.


def test_a_run_whose_creation_was_never_answered_is_found_and_not_made_twice(
    tracker: MLflowTracker, uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    tracker.start_search(search_info())
    create, created = MlflowClient.create_run, []

    def lose_the_first_answer(self: MlflowClient, *args: Any, **kwargs: Any) -> Any:
        run = create(self, *args, **kwargs)
        created.append(run.info.run_id)
        if len(created) == 1:
            raise MlflowException("connection reset")
        return run

    monkeypatch.setattr(MlflowClient, "create_run", lose_the_first_answer)
    with pytest.raises(StoreError, match="connection reset"):
        tracker.start_trial(SEARCH, 0, "mlp", PARAMS)
    assert tracker.start_trial(SEARCH, 0, "mlp", PARAMS) == created[0]
    assert len(created) == 1
    assert view(tracker, created[0], uri).params == {name: str(value) for name, value in PARAMS.items()}


def test_an_end_that_broke_off_between_two_writes_is_written_again(
    tracker: MLflowTracker, uri: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The tags say COMPLETE, the status still says RUNNING: the trial counts as running until both agree."""
    tracker.start_search(search_info())

    def fail(*_args: Any, **_kwargs: Any) -> None:
        raise MlflowException("database is locked")

    with monkeypatch.context() as patch:
        patch.setattr(MlflowClient, "set_terminated", fail)
        with pytest.raises(StoreError, match="locked"):
            tracker.finish_trial(record(), None)
    assert tracker.trial_states(SEARCH) == {12: "RUNNING"}
    again = MLflowTracker(uri, tmp_path / "artifacts")
    again.start_search(search_info())
    run = view(again, again.finish_trial(record(), None), uri)
    assert run.status == "FINISHED"
    assert len(run.curves["train/loss"]) == 3, "the same points, not more"
    assert again.trial_states(SEARCH) == {12: "COMPLETE"}


def test_what_is_there_already_takes_none_of_its_company_along(
    tracker: MLflowTracker, uri: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A transaction in which MLflow would roll one call back and go on is given up as a whole, and known as such."""
    tracker.start_search(search_info())
    with monkeypatch.context() as patch:
        patch.setattr(MlflowClient, "set_terminated", lambda *_args, **_kwargs: None)
        tracker.finish_trial(record(12), None)
    again = MLflowTracker(uri, tmp_path / "artifacts")
    again.start_search(search_info())

    def say() -> None:
        with again.together():
            again.finish_trial(record(13), None)
            again.finish_trial(record(12), None)

    with pytest.raises(StoreError, match="there already"):
        say()
    assert again.trial_states(SEARCH) == {12: "RUNNING"}
    for number in (13, 12):
        run = view(again, again.finish_trial(record(number), None), uri)
        assert len(run.curves["train/loss"]) == 3, "the same points, not more"
    assert again.trial_states(SEARCH) == {12: "COMPLETE", 13: "COMPLETE"}


def test_what_another_thread_writes_meanwhile_is_its_own(tracker: MLflowTracker, client: MlflowClient) -> None:
    tracker.start_search(search_info())
    experiment = client.get_experiment_by_name("digits").experiment_id

    def say() -> None:
        with tracker.together(), ThreadPoolExecutor(1) as other:
            other.submit(client.create_run, experiment, run_name="another's").result(20)
            tracker.start_trial(SEARCH, 0, "mlp", PARAMS)
            raise StoreError("ours is wrong")

    with pytest.raises(StoreError):
        say()
    assert {run.info.run_name for run in client.search_runs([experiment])} == {SEARCH, "another's"}


def test_what_is_wrong_for_good_and_what_may_pass_are_told_apart(
    tracker: MLflowTracker, monkeypatch: pytest.MonkeyPatch
) -> None:
    tracker.start_search(search_info())
    with pytest.raises(StoreRefusedError):
        tracker.start_trial(SEARCH, 0, "mlp", {"a name with ; in it": 1})

    def locked(*_args: Any, **_kwargs: Any) -> None:
        raise MlflowException("locked")

    monkeypatch.setattr(MlflowClient, "create_run", locked)
    with pytest.raises(StoreError) as error:
        tracker.start_trial(SEARCH, 1, "mlp", {})
    assert not isinstance(error.value, StoreRefusedError)


def test_a_folder_that_cannot_be_written_is_a_store_error_and_leaves_nothing_half_done(
    tracker: MLflowTracker, package: Path, uri: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    tracker.start_search(search_info())

    def full(*_args: Any, **_kwargs: Any) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("pipeline.tracking.model_folder.shutil.copytree", full)
        with pytest.raises(StoreError, match="No space left"):
            tracker.finish_trial(record(), package)
    folder = tmp_path / "artifacts" / "digits"
    assert [path for path in folder.rglob("*") if path.name == "MLmodel" or path.parts[-2:] == ("model", "data")] == []
    assert "model/" in view(tracker, tracker.finish_trial(record(), package), uri).files


RACE = """
import sys
from pathlib import Path
from pipeline.tracking.mlflow import MLflowTracker
from tests.tracking.records import search_info
tracker = MLflowTracker(sys.argv[1], Path(sys.argv[2]))
tracker.start_search(search_info(id=sys.argv[3]))
"""


def test_processes_that_meet_at_a_fresh_database_all_succeed(tmp_path: Path) -> None:
    """Without the lock three of four crash while they create the same tables."""
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", RACE, uri, str(tmp_path / "artifacts"), f"search-{number}"],
            stderr=subprocess.PIPE,
            text=True,
        )
        for number in range(2)
    ]
    errors = [process.communicate(timeout=PATIENCE_S)[1] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], errors
    client = MlflowClient(tracking_uri=uri)
    experiment = client.get_experiment_by_name("digits")
    assert len(client.search_runs([experiment.experiment_id])) == 2


def test_a_data_set_that_another_search_writes_first_is_no_refusal(
    tracker: MLflowTracker, client: MlflowClient, uri: str, tmp_path: Path
) -> None:
    others = [MLflowTracker(uri, tmp_path / "artifacts")]

    def meanwhile(*_: Any) -> None:
        """MLflow has looked for the data set, and is about to write it."""
        if others:
            others.pop().start_search(search_info(id="digits-20260101-120001"))

    event.listen(SqlDataset, "init", meanwhile)
    try:
        runs = [client.get_run(tracker.start_search(search_info()))]
    finally:
        event.remove(SqlDataset, "init", meanwhile)
    runs += [run for run in client.search_runs([runs[0].info.experiment_id]) if run.info.run_id != runs[0].info.run_id]
    assert len(runs) == 2
    assert runs[0].inputs.dataset_inputs[0].dataset == runs[1].inputs.dataset_inputs[0].dataset


def test_a_database_that_cannot_be_opened_is_a_store_error(tmp_path: Path) -> None:
    (tmp_path / "mlflow.db").write_bytes(b"this is no database" * 100)
    with pytest.raises(StoreError, match="could not open") as error:
        MLflowTracker(f"sqlite:///{tmp_path / 'mlflow.db'}", tmp_path / "artifacts")
    assert "\n" not in str(error.value)


def test_no_message_shows_a_password() -> None:
    assert shown_uri("postgresql://me:secret@db.example/mlflow") == "postgresql://db.example/mlflow"
    assert shown_uri("sqlite:////data/mlflow.db") == "sqlite:////data/mlflow.db"


# Models.


@pytest.fixture
def folder(tracker: MLflowTracker, package: Path, client: MlflowClient, tmp_path: Path) -> Path:
    """The model folder of a run, with its own copies of the package's files."""
    tracker.start_search(search_info())
    run = client.get_run(tracker.finish_trial(record(), package))
    path = tmp_path / "artifacts" / "digits" / run.info.run_id / "artifacts" / "model"
    for file in (path / "data" / "package").iterdir():
        content = file.read_bytes()
        file.unlink()
        file.write_bytes(content)
    return path


def load(folder: Path) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # MLflow's import of its own flavours warns
        import mlflow.pyfunc

        return mlflow.pyfunc.load_model(str(folder))


def test_the_model_folder_says_whose_it_is_and_what_it_needs(folder: Path, package: Path, client: MlflowClient) -> None:
    run_id = folder.parents[1].name
    text = (folder / "MLmodel").read_text()
    assert run_id in text
    assert "0" * 32 not in text
    assert "1" * 32 not in text
    needed = (folder / "requirements.txt").read_text().split()
    assert all("==" in line and "+" not in line for line in needed)
    assert {"torch", "safetensors", "pydantic", "mlflow"} <= {line.split("==")[0] for line in needed}
    tags = client.get_run(run_id).data.tags
    assert tags["automl.package"] == package_digest(package)
    assert json.loads(tags["mlflow.log-model.history"])[0]["artifact_path"] == "model"


def test_the_models_input_forgives_what_our_preprocessing_forgives(folder: Path, case: Case, package: Path) -> None:
    model, predictor = load(folder), load_package(package)
    assert isinstance(case.features, pd.DataFrame)
    as_text = case.features.astype(str)
    pd.testing.assert_frame_equal(model.predict(as_text), predictor.predict(case.features))
    records = case.features.head(3).to_dict("records")
    pd.testing.assert_frame_equal(model.predict(records), predictor.predict(case.features.head(3)))


def test_a_damaged_package_does_not_load_as_an_mlflow_model(folder: Path) -> None:
    weights = folder / "data" / "package" / "weights.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    with pytest.raises(Exception, match="does not match its hash"):
        load(folder)


def test_loading_runs_nothing_that_lies_in_the_model_folder(folder: Path, tmp_path: Path) -> None:
    marker = tmp_path / "it ran"
    source = f"from pathlib import Path\nPath({str(marker)!r}).touch()\n"
    for name in ("code.py", "python_model.py", "__init__.py", "data/__init__.py", "sitecustomize.py", "pipeline.py"):
        (folder / name).write_text(source)
    (folder / "python_model.pkl").write_bytes(b"cos\nsystem\n")
    load(folder)
    assert not marker.exists()


@pytest.mark.parametrize(("kind", "family"), [("image", "cnn"), ("sequence", "lstm")])
def test_images_and_sequences_are_read_as_arrays_and_as_columns(
    tracker: MLflowTracker, uri: str, tmp_path: Path, kind: Any, family: str
) -> None:
    case = make_case(tmp_path / "trial", kind, family)
    package = case.write(tmp_path / "package")
    tracker.start_search(search_info())
    run_id = tracker.finish_trial(record(), package)
    model = load(tmp_path / "artifacts" / "digits" / run_id / "artifacts" / "model")
    expected = load_package(package).predict(case.features)
    pd.testing.assert_frame_equal(model.predict(case.features), expected)
    column = pd.DataFrame({kind: [row.tolist() for row in case.features]})
    pd.testing.assert_frame_equal(model.predict(column), expected, rtol=1e-5)


OPEN = """
import sys
from pipeline.tracking.mlflow import migrate
migrate(f"sqlite:///{sys.argv[1]}")
"""


def test_a_kill_in_the_middle_of_the_first_migration_costs_nothing(tmp_path: Path) -> None:
    """MLflow itself never opens a database again of which half the tables were made."""
    database = tmp_path / "mlflow.db"
    opening = subprocess.Popen([sys.executable, "-c", OPEN, str(database)])
    staged = tmp_path / "mlflow.db.new"
    until = time.monotonic() + 60
    while not (staged.exists() and staged.stat().st_size > 100_000):
        assert time.monotonic() < until
        assert opening.poll() is None
        time.sleep(0.005)
    opening.kill()
    opening.wait()
    assert not database.exists()
    migrate(f"sqlite:///{database}")
    assert not staged.exists()


def test_on_a_full_disk_the_store_says_so_and_goes_on_once_there_is_room(
    tracker: MLflowTracker, tmp_path: Path
) -> None:
    tracker.start_search(search_info())
    log = tmp_path / "mlflow.db-wal"

    def fill(number: int) -> None:
        for again in range(50):
            tracker.start_trial(SEARCH, 100 * (number + 1) + again, "mlp", {"x": "y" * 4000})

    for number in range(3):
        with no_file_beyond(log.stat().st_size + 4096 * number), pytest.raises(StoreError):
            fill(number)
        tracker.finish_trial(record(number), None)
    survey = tracker.survey(SEARCH)
    assert survey is not None
    assert [survey.states[number] for number in range(3)] == ["COMPLETE"] * 3
    assert survey.doubled == 0


def test_of_two_runs_with_one_key_the_one_that_got_furthest_stays(
    tracker: MLflowTracker, uri: str, tmp_path: Path, client: MlflowClient
) -> None:
    """As after a request that the server carried out late."""
    tracker.start_search(search_info())
    stays = tracker.finish_trial(record(3), None)
    run = client.get_run(stays)
    tags = {name: value for name, value in run.data.tags.items() if name != "automl.state"}
    ghost = client.create_run(run.info.experiment_id, tags=tags).info.run_id
    again = MLflowTracker(uri, tmp_path / "artifacts")
    survey = again.survey(SEARCH)
    assert survey is not None
    assert survey.doubled == 1
    again.start_search(search_info())
    assert again.trial_states(SEARCH) == {3: "COMPLETE"}
    assert client.get_run(ghost).info.lifecycle_stage == "deleted"
    assert client.get_run(stays).info.lifecycle_stage == "active"
