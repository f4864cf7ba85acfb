"""``search.space``: what it changes, and every way to write it wrong."""

from __future__ import annotations

import math
from typing import Any

import pytest

from pipeline.errors import ConfigError
from search_spaces import Narrowed, check_overrides, families_for, parameter_names, suggest_trial
from tests.helpers import RandomSuggester
from tests.models.examples import SPECS

SPEC = SPECS["sequence"]
FAMILIES = families_for("sequence")


def asked(space: dict[str, Any], n: int = 100) -> dict[str, set[object]]:
    """What random trials within the narrowed space were asked, by name."""
    check_overrides(space, SPEC, FAMILIES)
    values: dict[str, set[object]] = {}
    for seed in range(n):
        random = RandomSuggester(seed)
        suggest_trial(Narrowed(random, space), SPEC, FAMILIES, seed)
        for name, value in random.asked.items():
            values.setdefault(name, set()).add(value)
    return values


def test_an_empty_override_changes_nothing() -> None:
    trials = [suggest_trial(s, SPEC, FAMILIES, 0) for s in (RandomSuggester(3), Narrowed(RandomSuggester(3), {}))]
    assert trials[0] == trials[1]


def test_two_numbers_narrow_a_range() -> None:
    values = asked({"mlp.n_layers": [2, 3], "optimizer.lr": [1e-3, 2e-3], "mlp.width": [64, 64]})
    assert values["mlp.n_layers"] == {2, 3}
    assert all(1e-3 <= value <= 2e-3 for value in values["optimizer.lr"])  # type: ignore[operator]
    assert values["mlp.width"] == {64}


def test_a_list_narrows_the_options() -> None:
    values = asked({"train.batch_size": [32, 64], "optimizer.name": ["sgd"], "train.clip_norm": [0, 1]})
    assert values["train.batch_size"] == {32, 64}
    assert values["optimizer.name"] == {"sgd"}
    assert values["train.clip_norm"] == {0.0, 1.0}
    assert all(type(value) is float for value in values["train.clip_norm"])


def test_a_single_value_pins_and_is_not_asked() -> None:
    space = {"family": "mlp", "optimizer.name": "adamw", "mlp.residual": True, "mlp.n_layers": 2, "optimizer.lr": 0.01}
    assert asked(space).keys().isdisjoint(space)
    trial = suggest_trial(Narrowed(RandomSuggester(0), space), SPEC, FAMILIES, 0)
    assert (trial.family, trial.optimisation.optimizer, trial.optimisation.lr) == ("mlp", "adamw", 0.01)
    assert trial.model.model_dump(include={"residual", "n_layers"}) == {"residual": True, "n_layers": 2}


def test_a_whole_number_stands_for_a_real_one() -> None:
    trial = suggest_trial(Narrowed(RandomSuggester(0), {"lstm.dropout": 0, "family": "lstm"}), SPEC, FAMILIES, 0)
    dropout = trial.model.model_dump()["dropout"]
    assert dropout == 0.0
    assert type(dropout) is float


def test_all_of_the_space_may_be_written_down_as_it_is() -> None:
    names = parameter_names(SPEC, FAMILIES)
    check_overrides({name: list(allowed.corners) for name, allowed in names.items()}, SPEC, FAMILIES)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("mlp.n_layer", 2, "did you mean mlp.n_layers?"),
        ("optimiser.lr", 0.1, "did you mean optimizer.lr?"),
        ("mlp.n_bins", 4, "no parameter 'mlp.n_bins' for sequence data"),
        ("zzz", 1, "the parameters are cnn.activation, "),
        ("mlp.n_layers", 7, "must be an integer from 1 to 6, but got 7"),
        ("mlp.n_layers", [0, 3], "must be an integer from 1 to 6, but got 0"),
        ("mlp.n_layers", [3, 2], "must be [low, high] with low <= high, but got [3, 2]"),
        ("mlp.n_layers", [1, 2, 3], "must be [low, high] with low <= high, but got [1, 2, 3]"),
        ("mlp.n_layers", [], "must be [low, high] with low <= high, but got []"),
        ("mlp.n_layers", [True, 3], "must be an integer from 1 to 6, but got true"),
        ("mlp.n_layers", 2.0, "must be an integer from 1 to 6, but got 2.0"),
        ("mlp.n_layers", "2", "must be an integer from 1 to 6, but got '2'"),
        ("mlp.n_layers", ["1", "2"], "must be an integer from 1 to 6, but got '1'"),
        ("mlp.n_layers", None, "must be an integer from 1 to 6, but got None"),
        ("mlp.n_layers", {"low": 1}, "must be an integer from 1 to 6, but got {'low': 1}"),
        ("mlp.n_layers", [[1, 2]], "must be an integer from 1 to 6, but got [1, 2]"),
        ("mlp.dropout", math.nan, "must be a number from 0 to 0.5, but got nan"),
        ("mlp.dropout", [0.0, math.inf], "must be a number from 0 to 0.5, but got inf"),
        ("mlp.dropout", False, "must be a number from 0 to 0.5, but got false"),
        ("mlp.dropout", 10**400, "must be a number from 0 to 0.5, but got 1000"),
        ("optimizer.lr", [0, 0.01], "must be a number from 0.0001 to 0.03, but got 0"),
        ("optimizer.name", "adamW", "must be one of adamw, adam, rmsprop, sgd, but got 'adamW'"),
        ("optimizer.name", [], "must list different options, but got []"),
        ("optimizer.name", ["sgd", "sgd"], "must list different options, but got [sgd, sgd]"),
        ("optimizer.name", [["sgd", "adam"]], "must be one of adamw, adam, rmsprop, sgd, but got [sgd, adam]"),
        ("train.batch_size", [64, 100], "must be one of 16, 32, 64, 128, but got 100"),
        ("train.batch_size", 64.0, "must be one of 16, 32, 64, 128, but got 64.0"),
        ("mlp.residual", 1, "must be one of false, true, but got 1"),
        ("family", "gru", "must be one of lstm, cnn, mlp, but got 'gru'"),
    ],
)
def test_a_wrong_entry_is_one_line_with_the_rule_and_the_value(name: str, value: Any, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        check_overrides({name: value}, SPEC, FAMILIES)
    assert str(caught.value).startswith("`search.space` ")
    assert name in str(caught.value)
    assert message in str(caught.value)
    assert caught.value.remedy


def test_narrowed_never_uses_what_nobody_checked() -> None:
    with pytest.raises(ConfigError, match=r"mlp.n_layers must be an integer from 1 to 6"):
        suggest_trial(Narrowed(RandomSuggester(0), {"mlp.n_layers": 7}), SPECS["image"], ("mlp",), 0)


def test_a_parameter_that_no_trial_can_have_any_more_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"narrows optimizer.sgd_lr, which no trial can have; remove"):
        check_overrides({"optimizer.name": "adamw", "optimizer.sgd_lr": [0.01, 0.1]}, SPEC, FAMILIES)
    with pytest.raises(ConfigError, match=r"narrows mlp.width, which no trial can have"):
        check_overrides({"family": ["lstm", "cnn"], "mlp.width": 64}, SPEC, FAMILIES)
    check_overrides({"optimizer.name": ["adamw", "sgd"], "optimizer.sgd_lr": [0.01, 0.1]}, SPEC, FAMILIES)
