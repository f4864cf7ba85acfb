"""The experiment file: what is right is read, what is wrong is one line with file, line, rule and remedy.

`tests/bad_input/test_config.py` has the files that are made to do harm."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.config import ExperimentConfig, load_experiment
from pipeline.errors import ConfigError

GOOD = "name: digits\ndata:\n  source: sklearn:digits\n"


def load(tmp_path: Path, text: str | bytes, *overrides: str) -> ExperimentConfig:
    path = tmp_path / "experiment.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return load_experiment(path, overrides)


def test_a_short_file_has_every_default(tmp_path: Path) -> None:
    config = load(tmp_path, GOOD)
    assert config.search.budget.trials == 100
    assert config.registered_model == "digits"
    assert load(tmp_path, config.to_yaml()) == config


def test_durations_and_scientific_numbers_are_numbers(tmp_path: Path) -> None:
    config = load(tmp_path, GOOD + "search: {budget: {time: 1.5h, per_trial: 90}, space: {optimizer.lr: [1e-4, 1E-2]}}")
    assert config.search.budget.time == 5400
    assert config.search.budget.per_trial == 90
    assert config.search.space == {"optimizer.lr": [1e-4, 1e-2]}


def test_byte_order_mark_and_windows_line_ends_are_read(tmp_path: Path) -> None:
    assert load(tmp_path, b"\xef\xbb\xbf" + GOOD.replace("\n", "\r\n").encode()).name == "digits"


def test_overrides_win_and_reach_into_the_space(tmp_path: Path) -> None:
    config = load(tmp_path, GOOD, "search.budget.trials=7", "search.space.mlp.n_layers=[1, 2]", "search.seed=5")
    assert config.search.budget.trials == 7
    assert config.search.space == {"mlp.n_layers": [1, 2]}
    assert config.search.seed == 5


def test_the_environment_is_read_in_data_paths_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AUTOML_TEST_FOLDER", "/somewhere")
    text = "name: x\ndata: {source: '${AUTOML_TEST_FOLDER}/a.csv', target: '${AUTOML_TEST_FOLDER}'}\n"
    config = load(tmp_path, text)
    assert config.data.source == "/somewhere/a.csv"
    assert config.data.target == "${AUTOML_TEST_FOLDER}"


CASES = {
    "not a mapping": ("- a\n- b\n", "must be a mapping"),
    "unknown key": (GOOD + "serach: {}\n", ":4: unknown key `serach`; did you mean `search`?"),
    "unknown nested key": (GOOD + "search:\n  budget:\n    n_trails: 5\n", ":6: unknown key `search.budget.n_trails`"),
    "missing section": ("name: x\n", "`data` is required"),
    "tab": ("name: x\n\tdata: 1\n", ":2: not valid YAML"),
    "bad duration": (GOOD + "search: {budget: {time: 10 parsecs}}\n", "a duration must be"),
    "no budget": (GOOD + "search: {budget: {trials: null}}\n", "trials or time"),
    "bad metric": (GOOD + "search: {metric: acuracy}\n", "metric must be auto or one of accuracy"),
    "bad gate": (GOOD + "promotion: {gates: [{metric: accuracy}]}\n", "must have min or max"),
    "bad sampler": (GOOD + "search: {sampler: magic}\n", "'tpe', 'gp', 'qmc' or 'random'"),
}


@pytest.mark.parametrize(("text", "expected"), CASES.values(), ids=CASES.keys())
def test_a_wrong_file_is_one_line(tmp_path: Path, text: str | bytes, expected: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, text)
    message = str(caught.value)
    assert expected in message
    assert "experiment.yaml" in message
    assert "\n" not in message
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    ("override", "expected"),
    [("search.seed", "key.path=value"), ("name.x=1", "not a section"), ("search.sede=1", "did you mean `seed`?")],
)
def test_a_wrong_override_is_one_line(tmp_path: Path, override: str, expected: str) -> None:
    with pytest.raises(ConfigError, match=r"--set") as caught:
        load(tmp_path, GOOD, override)
    assert expected in str(caught.value)


def test_what_is_no_file_is_said(tmp_path: Path) -> None:
    (tmp_path / "digits.yaml").write_text(GOOD)
    with pytest.raises(ConfigError, match=r"did you mean digits.yaml\?"):
        load_experiment(tmp_path / "digts.yaml")
    with pytest.raises(ConfigError, match="regular file"):
        load_experiment(tmp_path)
    with pytest.raises(ConfigError, match="AUTOML_NOT_SET"):
        load(tmp_path, "name: x\ndata:\n  source: ${AUTOML_NOT_SET}/x.csv\n")


def test_an_override_is_read_as_carefully_as_the_file(tmp_path: Path) -> None:
    for value in ("&a [*a]", "[" * 100, "!!python/name:os.system", "1e999", "010"):
        with pytest.raises(ConfigError, match=r"--set search.seed"):
            load(tmp_path, GOOD, f"search.seed={value}")


def test_a_column_with_the_name_of_a_secret_is_none(tmp_path: Path) -> None:
    config = load(tmp_path, "name: x\ndata: {source: a.csv, target: y, types: {password_hash: categorical}}\n")
    assert load(tmp_path, config.to_yaml()) == config


def test_the_resolved_file_has_no_password(tmp_path: Path) -> None:
    config = load(tmp_path, GOOD + "tracking: {uri: 'postgresql://me:hunter2@db/mlflow'}\n")
    assert config.tracking.uri == "postgresql://me:hunter2@db/mlflow"
    assert "uri: postgresql://***@db/mlflow" in config.to_yaml()
