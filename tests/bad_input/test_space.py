"""18 to 29: the search space, as an experiment file narrows it. `tests/search_spaces/test_narrow.py` has the rules."""

from __future__ import annotations

from pathlib import Path

from pipeline.config import load_experiment
from pipeline.search.directory import SearchState, write_state
from tests.bad_input.cases import GOOD, Case, User, elsewhere, not_a_feature, space, table


def unfinished_search(folder: Path) -> None:
    """What an interrupted run of another space left behind."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    other = folder.parents[2] / "other.yaml"
    other.write_text(GOOD + "search: {space: {mlp.n_layers: 2}}\n")
    state = SearchState(
        id=folder.name, experiment="bad", config_yaml=load_experiment(other).to_yaml(), fingerprint="f",
        split_hash="s", created=1.7e9,
    )  # fmt: skip
    write_state(folder, state)


CASES = (
    Case(18, "low above high", "must be [low, high] with low <= high, but got [3, 2]", space("mlp.n_layers: [3, 2]")),
    Case(19, "a logarithm of zero", "from 0.0001 to 0.03, but got 0", space("optimizer.lr: [0, 0.01]")),
    Case(20, "a bound that is no number", "but got 'nan'", space("optimizer.lr: [nan, 0.01]")),
    Case(20, "YAML's own NaN", "numbers must be finite, but got", space("optimizer.lr: [.nan, 0.01]")),
    Case(21, "an infinite bound", "numbers must be finite", space("mlp.dropout: [0, .inf]")),
    Case(22, "no choice", "must list different options, but got []", space("optimizer.name: []")),
    Case(22, "an empty range", "must be [low, high]", space("mlp.n_layers: []")),
    Case(23, "a list for a choice", "must be one of", space("optimizer.name: [[sgd, adam]]")),
    Case(24, "a value between the steps", "must be one of 16, 32, 64, 128, but got 100", space("train.batch_size: [64, 100]")),
    Case(24, "three numbers: a step", "must be [low, high]", space("mlp.n_layers: [1, 6, 2]")),
    Case(25, "true for a bound", "must be an integer from 1 to 6, but got true", space("mlp.n_layers: [true, 3]")),
    Case(26, "texts for bounds", "must be an integer from 1 to 6, but got '1'", space("mlp.n_layers: ['1', '2']")),
    Case(27, "one name with two ranges", ":4: duplicate key `mlp.n_layers`", space("mlp.n_layers: 1,\n mlp.n_layers: 2")),
    Case(28, "a choice twice", "must list different options", space("optimizer.name: [sgd, sgd]")),
    Case(28, "choices of two types", "must be one of", space("optimizer.name: [sgd, 1]")),
    Case(28, "1 for true", "must be one of false, true, but got 1", space("mlp.residual: 1")),
    Case(28, "a mapping", "must be an integer from 1 to 6", space("mlp.n_layers: {low: 1, high: 2}")),
    Case(28, "a space that is a list", "`search.space`", {"bad.yaml": GOOD + "search: {space: [mlp]}\n"}),
    Case(28, "ten thousand unknown names", "has no parameter", space(", ".join(f"p{i}: 1" for i in range(10_000)))),
    Case(29, "another space than the unfinished search's", "search.space.mlp.n_layers: 2 -> 3",
         {**space("mlp.n_layers: 3"), "mlruns/searches/bad-1": unfinished_search},
         command=("run", "bad.yaml", "--no-prefect")),
    not_a_feature(22, "conditions between parameters", "the file narrows the built-in space, it adds nothing to it"),
    elsewhere(18, "the same rules, parameter by parameter",
              "tests/search_spaces/test_narrow.py::test_a_wrong_entry_is_one_line_with_the_rule_and_the_value"),
)  # fmt: skip


@table(CASES)
def test_space(user: User, case: Case) -> None:
    user.meets(case)
