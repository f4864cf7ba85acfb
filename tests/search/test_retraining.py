"""Finalists with other seeds: each once, on record, resumable, and one training's trouble is its own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Literal

import pytest

from pipeline.records import TrialRecord
from pipeline.search.progress import StopRequest
from pipeline.search.retraining import Retraining, seed_directory, seed_records, seeds_wanted
from pipeline.training.checkpoint import CHECKPOINT
from pipeline.training.trainer import WEIGHTS
from tests.search.fakes import FakePool, Script
from tests.tracking.records import record

FINALISTS = (record(3, objective=0.9), record(8, objective=0.8))
N_SEEDS = 4
GOOD = Script()


def retrain(
    folder: Path, script: Callable[[int, int], Script], *, stop: StopRequest | None = None, together: bool = False,
    per_trial: float | None = None,
) -> FakePool:  # fmt: skip
    pool = FakePool(script)
    retraining = Retraining(
        folder, FINALISTS, N_SEEDS, stop or StopRequest(), together=lambda _config, n: together and n > 1,
        per_trial=per_trial, lockstep=False,
    )  # fmt: skip
    if retraining.needed:
        retraining.run(pool)  # type: ignore[arg-type]
    return pool


def on_record(folder: Path, finalist: TrialRecord) -> dict[int, str]:
    return {k: seed.state for k, seed in seed_records(folder, finalist, N_SEEDS).items()}


@pytest.mark.parametrize("together", [False, True])
def test_every_finalist_is_trained_with_every_other_seed_once(tmp_path: Path, together: bool) -> None:
    pool = retrain(tmp_path, lambda *_: GOOD, together=together)
    assert sorted(len(begun) for begun in pool.begun) == ([3, 3] if together else [1] * 6)
    seeds = []
    for finalist in FINALISTS:
        found = seed_records(tmp_path, finalist, N_SEEDS)
        assert {k: seed.state for k, seed in found.items()} == {1: "COMPLETE", 2: "COMPLETE", 3: "COMPLETE"}
        assert all((seed.objective, seed.best_epoch) == (0.7, 3) for seed in found.values())
        assert all(seed.config.digest == finalist.config.digest for seed in found.values()), "only the seed differs"
        seeds += [finalist.config.seed, *(seed.config.seed for seed in found.values())]
        assert (seed_directory(tmp_path, finalist.number, 2) / WEIGHTS).exists()
    assert len(set(seeds)) == (N_SEEDS if FINALISTS[0].config.seed == FINALISTS[1].config.seed else 2 * N_SEEDS)


def test_what_is_on_record_is_not_trained_again(tmp_path: Path) -> None:
    retrain(tmp_path, lambda *_: GOOD)
    assert list(tmp_path.rglob(CHECKPOINT)) == []
    left = seed_directory(tmp_path, FINALISTS[0].number, 1) / CHECKPOINT  # by a kill as soon as it was on record
    left.write_bytes(b"checkpoint")
    assert retrain(tmp_path, lambda *_: GOOD).begun == []
    assert not left.exists()


def test_a_stop_leaves_what_the_next_start_trains(tmp_path: Path) -> None:
    stop = StopRequest()

    def first(number: int, _times: int) -> Script:
        if number == 2:
            stop.request()
        return GOOD

    before = retrain(tmp_path, first, stop=stop)
    done = sum(len(on_record(tmp_path, finalist)) for finalist in FINALISTS)
    assert 0 < done < 6
    assert len(before.begun) < 6
    after = retrain(tmp_path, lambda *_: GOOD)
    assert len(after.begun) == 6 - done
    assert [on_record(tmp_path, finalist) for finalist in FINALISTS] == [dict.fromkeys((1, 2, 3), "COMPLETE")] * 2


def test_one_that_fails_or_hangs_or_kills_its_worker_is_alone_with_it(tmp_path: Path) -> None:
    fates = {0: Script(then="fail"), 1: Script(then="hang"), 3: Script(then="die"), 5: Script(then="hang")}
    retrain(tmp_path, lambda number, _: fates.get(number, GOOD), together=True, per_trial=0.3)
    first, second = (seed_records(tmp_path, finalist, N_SEEDS) for finalist in FINALISTS)
    assert {k: seed.state for k, seed in first.items()} == {1: "FAIL", 2: "FAIL", 3: "COMPLETE"}
    assert {k: seed.state for k, seed in second.items()} == {1: "FAIL", 2: "COMPLETE", 3: "FAIL"}
    assert "cannot learn" in (first[1].error or "")
    assert "worker_died" in (second[1].error or "")
    assert "timeout" in (first[2].error or "")
    assert "timeout" in (second[3].error or "")


@pytest.mark.parametrize(
    ("setting", "n_trials", "train_s", "repeatable", "wanted"),
    [
        ("auto", 24, 100.0, True, 3),
        ("auto", 23, 100.0, True, 1),
        ("auto", 3, 10.0, False, 3),
        ("auto", 3, 10.1, False, 1),
        ("auto", 3, 10.0, True, 1),
        (5, 3, 100.0, True, 5),
        (1, 1000, 0.0, False, 1),
    ],
    ids=str,
)
def test_left_alone_finalists_are_trained_three_times_where_that_costs_a_quarter_of_the_search_or_a_minute(
    setting: Literal["auto"] | int, n_trials: int, train_s: float, repeatable: bool, wanted: int
) -> None:
    """Two more trainings of three finalists are six; records have 3 epochs each. Repeated results cost nothing."""
    trials = [record(n, n_epochs=3, train_s=train_s) for n in range(n_trials)]
    repeated = [record(n_trials + n, n_epochs=3, duplicate_of=0) for n in range(100)]
    assert seeds_wanted(setting, trials[:3], [*trials, *repeated], repeatable=repeatable) == wanted
