"""Cohorts in a search: which trials train together, how many, when they are asked for and timed, and who moves."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pipeline.config import Budget, SearchConfig
from pipeline.models import FAMILIES
from pipeline.search import asking
from pipeline.search.asking import KNOWN_A_TRIAL, Asker
from pipeline.search.progress import Progress
from pipeline.search.study import N_STARTUP, OptunaSuggester, open_study
from pipeline.training.config import OptimisationConfig, TrialConfig
from tests.patience import PATIENCE_S
from tests.search.fakes import FakePool, MemorySink, Script
from tests.search.searches import DEADLY, FIRST, Search, scripts

GAINS = {1: 1.0, 4: 3.0}


@pytest.fixture(autouse=True)
def asking_is_not_interrupted(monkeypatch: pytest.MonkeyPatch) -> None:
    """After how many trials the controller looks up from asking would hang on how busy this machine is."""
    monkeypatch.setattr(asking, "SLICE_S", PATIENCE_S)


def test_trials_of_one_shape_train_together_where_that_was_measured_to_pay(search: Search) -> None:
    pool = FakePool(scripts({}), n_workers=1, gains=GAINS)
    search.run(pool, max_cohort=None, budget=Budget(trials=9))
    assert search.states() == dict.fromkeys(range(9), "COMPLETE")
    assert [len(begun) for begun in pool.begun] == [4, 4, 1]
    for begun in pool.begun:
        members = [search.records()[number] for number in begun]
        assert len({record.params["mlp.n_layers"] for record in members}) == 1, "followers take the leader's shape"
        assert len({record.params["optimizer.lr"] for record in members}) == len(begun)
    assert search.records()[0].cohort == "#000 and 3 more"


def test_a_small_budget_still_tries_every_first_trial(search: Search) -> None:
    pool = FakePool(scripts({}), n_workers=1, gains=GAINS)
    search.run(pool, max_cohort=None, first=FIRST, budget=Budget(trials=4))
    tried = [record.params for record in search.records().values()]
    assert all(params in tried for params in FIRST)
    assert search.states() == dict.fromkeys(range(4), "COMPLETE")


def test_the_member_that_kills_its_cohorts_worker_is_found_and_fails_alone(search: Search) -> None:
    pool = FakePool(scripts({2: DEADLY}), n_workers=1, gains=GAINS)
    search.run(pool, max_cohort=None, budget=Budget(trials=8))
    assert search.states() == {number: "FAIL" if number == 2 else "COMPLETE" for number in range(8)}
    assert pool.begun[0] == (0, 1, 2, 3)
    assert all(begun in ((0,), (1,), (2,), (3,)) for begun in pool.begun[1:] if min(begun) < 4)


def test_a_class_is_not_timed_for_the_few_trials_that_are_left(search: Search) -> None:
    pool = FakePool(scripts({}), n_workers=1)
    search.run(pool, max_cohort=None, budget=Budget(trials=4))
    assert [len(begun) for begun in pool.begun] == [1, 1, 1, 1]


def suggest_shallow(suggester: OptunaSuggester, seed: int) -> TrialConfig:
    """All of one shape class."""
    lr = suggester.number("optimizer.lr", 1e-4, 1e-1, log=True)
    return TrialConfig(family="mlp", model=FAMILIES["mlp"].config(), optimisation=OptimisationConfig(lr=lr), seed=seed)


@pytest.mark.parametrize("n_workers", [2, 5])
def test_no_class_is_timed_on_two_slots(search: Search, n_workers: int) -> None:
    pool = FakePool(scripts({}), n_workers=n_workers, gains=GAINS)
    search.run(pool, max_cohort=None, budget=Budget(trials=40), suggest=suggest_shallow)
    assert len(pool.timed) == 1
    assert [begun[0] for begun in pool.begun[:n_workers]] == list(range(n_workers)), "a leader a slot, no more"
    assert [len(begun) for begun in pool.begun[:n_workers]] == [4] * n_workers


def test_while_a_class_is_timed_other_slots_time_others(search: Search) -> None:
    pool = FakePool(scripts({}), n_workers=2, gains=GAINS)
    search.run(pool, max_cohort=None, budget=Budget(trials=40))
    slots, classes = zip(*pool.timed, strict=True)
    assert slots[:2] == (0, 1)
    assert len(set(classes)) == len(classes) > 1


def test_a_slot_whose_neighbour_times_a_class_gets_one_cohort_of_its_own(search: Search) -> None:
    config = SearchConfig.model_validate({"sampler": "random"})
    study = open_study(search.directory, "s", "maximize", config, 9, several_families=False)
    plan = replace(search.plan, max_cohort=None, budget=Budget(trials=40), suggest=suggest_shallow)
    asker = Asker(plan, study, MemorySink().begin, Progress(metric="accuracy", budget=plan.budget))
    asker.ask(1, 2, set())
    untimed = asker.untimed(set())
    assert untimed is not None
    timing = {untimed[1]}
    for _ in range(2):
        asker.ask(1, 2, timing)
        assert len(asker.waiting) == 2
        assert asker.untimed(timing) is None, "its class is the one that is being timed"
    asker.timed(untimed[1], GAINS)
    assert [cohort.wanted for cohort in asker.waiting] == [4, 4]


LONG, SHORT = Script(scores=(0.5,) * 30), Script(scores=(0.5,) * 2)


def test_half_of_a_running_cohort_moves_to_a_slot_that_would_idle(search: Search) -> None:
    short = dict.fromkeys((1, 5, 6, 7), SHORT)
    pool = FakePool(scripts(short, otherwise=LONG), gains={1: 1.0, 4: 1.5})
    search.run(pool, max_cohort=None, budget=Budget(trials=8), suggest=suggest_shallow)
    assert pool.begun == [(0, 2, 3, 4), (1, 5, 6, 7), (3, 4), (4,)]
    assert search.states() == dict.fromkeys(range(8), "COMPLETE")
    assert [len(search.records()[number].curve) for number in (0, 2, 3, 4)] == [30] * 4


def test_where_together_is_faster_than_on_two_slots_nobody_moves(search: Search) -> None:
    short = dict.fromkeys((1, 5, 6, 7), SHORT)
    pool = FakePool(scripts(short, otherwise=LONG), gains={1: 1.0, 4: 3.9})
    search.run(pool, max_cohort=None, budget=Budget(trials=8), suggest=suggest_shallow)
    assert pool.begun == [(0, 2, 3, 4), (1, 5, 6, 7)]


@pytest.mark.parametrize("n_workers", [1, 3])
def test_nothing_is_asked_for_long_before_a_slot_is_idle(search: Search, n_workers: int) -> None:
    """Every suggestion is made with all results there can be."""
    asked_when: list[tuple[int, int]] = []
    search.run(FakePool(scripts({}), n_workers), lambda p: asked_when.append((p.asked, p.ended)))
    assert asked_when[-1] == (7, 7)
    assert all(asked - ended <= n_workers for asked, ended in asked_when)


def test_what_a_slot_trains_next_is_asked_for_a_moment_before_it_is_idle(search: Search) -> None:
    asked_when: list[tuple[int, int]] = []
    pool = FakePool(scripts({}), n_workers=1, pace=0.1)
    search.run(pool, lambda p: asked_when.append((p.asked, p.ended)), budget=Budget(trials=30), max_epochs=3)
    ahead = {ended: max(asked - ended for asked, e in asked_when if e == ended) for _, ended in asked_when}
    assert all(ahead[ended] == 1 for ended in range(N_STARTUP)), "while TPE draws at random it waits for results"
    assert all(ahead[ended] == 2 for ended in range(N_STARTUP + 1, 29))


def test_where_trials_may_end_at_any_epoch_one_slot_has_its_next_cohort_waiting(search: Search) -> None:
    most = 0

    def watch(progress: Progress) -> None:
        nonlocal most
        most = max(most, progress.asked - progress.ended)

    search.run(FakePool(scripts({}), n_workers=3), watch, budget=Budget(trials=30), foreseeable=False)
    assert most == 3 + 1


def first_two_alike(_suggester: OptunaSuggester, seed: int) -> TrialConfig:
    optimisation = OptimisationConfig(lr=1e-3 * max(1, seed))
    return TrialConfig(family="mlp", model=FAMILIES["mlp"].config(), optimisation=optimisation, seed=seed)


def test_a_trial_that_waits_for_its_twins_result_keeps_no_slot_idle(search: Search) -> None:
    pool = FakePool(scripts({0: Script(scores=(0.5,) * 100)}), n_workers=2)
    search.run(pool, suggest=first_two_alike)
    assert {record.number for record in search.sink.finished[-2:]} == {0, 1}, "the others trained while #0 did"
    assert all(1 not in begun for begun in pool.begun)


def test_a_cohort_stays_a_small_part_of_what_is_known(search: Search) -> None:
    pool = FakePool(scripts({}), n_workers=1, gains={1: 1.0, 4: 3.5, 8: 6.0})
    search.run(pool, max_cohort=None, budget=Budget(trials=90), suggest=suggest_shallow)
    sizes = [len(begun) for begun in pool.begun]
    known = [sum(sizes[:i]) for i in range(len(sizes))]
    assert sizes[:3] == [4, 4, 4], "random draws anyway"
    assert all(size == max(1, k // KNOWN_A_TRIAL) for size, k in zip(sizes[3:-1], known[3:], strict=False))
    assert max(sizes) == 6
