"""The study of a search: any sampler and pruner that can be named, and no suggestion twice after a restart."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import get_args

import pytest
from optuna.trial import TrialState

from pipeline.config import SearchConfig
from pipeline.search.study import JOURNAL, OptunaSuggester, Study, open_study

SAMPLERS = get_args(SearchConfig.model_fields["sampler"].annotation)
PRUNERS = get_args(SearchConfig.model_fields["pruner"].annotation)


def study(directory: Path, **changes: object) -> Study:
    return open_study(directory, "s", "maximize", SearchConfig.model_validate(changes), 9, several_families=True)


def one_trial(opened: Study) -> dict[str, object]:
    """Ask, suggest a small conditional space, report, tell; what was suggested."""
    trial = opened.optuna.ask()
    suggester = OptunaSuggester(trial)
    family = suggester.choice("family", ("mlp", "cnn"))
    lr = suggester.number("lr", 1e-4, 1e-1, log=True)
    if family == "mlp":
        suggester.integer("mlp.n_layers", 1, 4)
    for epoch in (1, 2, 3):
        trial.report(lr * epoch, epoch)
        trial.should_prune()
    opened.optuna.tell(trial, lr)
    return dict(trial.params)


@pytest.mark.parametrize("pruner", PRUNERS)
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_every_sampler_works_with_every_pruner_on_a_conditional_space(
    tmp_path: Path, sampler: str, pruner: str
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        opened = study(tmp_path, sampler=sampler, pruner=pruner)
        for _ in range(12):
            one_trial(opened)
    assert [t.state for t in opened.optuna.trials] == [TrialState.COMPLETE] * 12


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_the_same_seed_suggests_the_same_and_another_one_does_not(tmp_path: Path, sampler: str) -> None:
    def suggestions(name: str, seed: int) -> list[dict[str, object]]:
        opened = study(tmp_path / name, sampler=sampler, seed=seed)
        return [one_trial(opened) for _ in range(12)]

    assert suggestions("a", 1) == suggestions("b", 1)
    assert suggestions("c", 2) != suggestions("b", 1)


@pytest.mark.parametrize("sampler", ["tpe", "random"])
def test_a_resumed_search_does_not_repeat_its_suggestions(tmp_path: Path, sampler: str) -> None:
    opened = study(tmp_path, sampler=sampler)
    before = [one_trial(opened)["lr"] for _ in range(5)]
    opened.commit()
    again = study(tmp_path, sampler=sampler)
    assert [t.params["lr"] for t in again.optuna.trials] == before
    after = [one_trial(again)["lr"] for _ in range(5)]
    assert not set(before) & set(after)


def test_nothing_is_durable_before_the_commit(tmp_path: Path) -> None:
    opened = study(tmp_path)
    opened.commit()
    size = (tmp_path / JOURNAL).stat().st_size
    one_trial(opened)
    assert (tmp_path / JOURNAL).stat().st_size == size
    assert study(tmp_path).optuna.trials == []
    opened.commit()
    assert len(study(tmp_path).optuna.trials) == 1


def test_a_running_trial_can_be_taken_up_by_number_after_a_restart(tmp_path: Path) -> None:
    opened = study(tmp_path, pruner="none")
    one_trial(opened)
    left = opened.optuna.ask()
    left.report(0.5, 1)
    opened.commit()
    again = study(tmp_path, pruner="none")
    live = again.running(1)
    live.report(0.7, 2)
    again.optuna.tell(live.number, 0.7)
    assert again.optuna.trials[1].intermediate_values == {1: 0.5, 2: 0.7}


def test_hyperband_stops_a_trial_that_is_clearly_worse(tmp_path: Path) -> None:
    """20 trials that report their rank: with brackets at 1, 3 and 9 epochs most of the worse half is stopped."""
    opened = study(tmp_path, sampler="random", pruner="hyperband")
    pruned = []
    for rank in (10, 19, 3, 15, 7, 12, 0, 18, 5, 9, 1, 14, 16, 2, 11, 8, 17, 4, 13, 6):
        trial = opened.optuna.ask()
        for epoch in range(1, 10):
            trial.report(rank, epoch)
            if trial.should_prune():
                pruned.append(rank)
                opened.optuna.tell(trial, state=TrialState.PRUNED)
                break
        else:
            opened.optuna.tell(trial, rank)
    assert pruned
    assert 19 not in pruned, "the best is never stopped"
    assert sum(pruned) / len(pruned) < 9.5, "those that are stopped are the worse ones"
