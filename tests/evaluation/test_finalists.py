"""Finalists are chosen by validation alone; the test is opened once, for them and the champion together."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor

from pipeline.data.dataset import Dataset, Features
from pipeline.data.identity import KnownRows
from pipeline.data.sealed import SealedTest, seal
from pipeline.data.spec import DataSpec
from pipeline.errors import SearchError
from pipeline.evaluation.champion import Champion, incomparable
from pipeline.evaluation.finalists import Evaluation, choose_finalists, evaluate, over_seeds
from pipeline.evaluation.intervals import Resampling
from pipeline.objective import METRICS
from pipeline.packaging.conformal import Conformal
from pipeline.records import TrialRecord
from tests.tracking.records import record

ACCURACY = METRICS["accuracy"]
SPEC = DataSpec(
    kind="image", task="multiclass", channels=1, height=2, width=2, labels=("a", "b", "c"), n_train=1, n_validation=1
)


def scored(number: int, score: float, family: str = "mlp", n_params: int = 100) -> TrialRecord:
    changed = record(number, objective=score, n_params=n_params)
    # `family` is read from the config; validation would want that family's own model.
    return changed.model_copy(update={"config": changed.config.model_copy(update={"family": family})})


def test_the_best_come_first_and_ties_go_to_the_smaller_model() -> None:
    records = [scored(0, 0.7), scored(1, 0.9, n_params=500), scored(2, 0.9, n_params=50), scored(3, 0.8)]
    assert [r.number for r in choose_finalists(records, ACCURACY, 3)] == [2, 1, 3]


@pytest.mark.parametrize(
    ("metric", "scores", "winner"),
    [
        ("accuracy", [(0.95, 0.02, 900), (0.94, 0.01, 300), (0.935, 0.01, 100), (0.92, 0.01, 10)], 2),
        ("log_loss", [(0.30, 0.02, 900), (0.31, 0.50, 300), (0.33, 0.01, 10)], 1),
        ("accuracy", [(0.95, None, 900), (0.94, None, 300)], 0),
    ],
)
def test_cross_validated_the_smallest_within_one_standard_error_wins(
    metric: str, scores: list[tuple[float, float | None, int]], winner: int
) -> None:
    records = [
        scored(number, score, n_params=n_params).model_copy(update={"objective_se": error})
        for number, (score, error, n_params) in enumerate(scores)
    ]
    finalists = choose_finalists(records, METRICS[metric], 2)
    assert finalists[0].number == winner
    assert [r.number for r in finalists[1:]] == [number for number in (0, 1) if number != winner]


def test_over_seeds_the_mean_counts_and_within_its_error_the_smaller_model() -> None:
    finalists = (scored(0, 0.96, n_params=900), scored(1, 0.95, n_params=500), scored(2, 0.94, n_params=100))
    again = {
        0: [scored(0, 0.90), scored(0, 0.90)],  # the trial's own seed was lucky
        1: [scored(1, 0.94), scored(1, 0.96)],
        2: [scored(2, 0.95), record(2, "FAIL")],
    }
    first, second, third = over_seeds(finalists, again, ACCURACY)
    assert (first.number, second.number, third.number) == (2, 1, 0)
    assert first.objective == pytest.approx(0.945), "what failed does not count"
    assert second.objective == pytest.approx(0.95)
    assert second.objective_se == pytest.approx(0.01 / 3**0.5)
    folded = scored(0, 0.9).model_copy(update={"objective_se": 0.03})
    assert over_seeds([folded], {0: [scored(0, 0.8)]}, ACCURACY)[0].objective_se == 0.03, "seeds see the same rows"


def test_lower_is_better_where_the_metric_says_so() -> None:
    records = [scored(0, 0.7), scored(1, 0.9), scored(2, 0.1)]
    assert [r.number for r in choose_finalists(records, METRICS["log_loss"], 2)] == [2, 0]


def test_the_best_of_every_family_is_among_them() -> None:
    records = [scored(0, 0.9), scored(1, 0.8), scored(2, 0.3, "cnn"), scored(3, 0.4, "cnn"), scored(4, 0.1, "lstm")]
    assert [r.number for r in choose_finalists(records, ACCURACY, 1)] == [0, 3, 4]


def test_pruned_and_failed_trials_are_none() -> None:
    records = [record(0, "PRUNED", objective=0.99), record(1, "FAIL"), scored(2, 0.1)]
    assert [r.number for r in choose_finalists(records, ACCURACY, 5)] == [2]
    with pytest.raises(SearchError, match="no trial completed"):
        choose_finalists(records[:2], ACCURACY, 5)


@dataclass(frozen=True, slots=True)
class Known:
    """A model that gives the label of an image's first pixel, wrong for the last `n_wrong` rows it sees."""

    spec: DataSpec
    n_wrong: int
    temperature: float = 1.0
    conformal: Conformal | None = None

    def outputs(self, features: Features) -> Tensor:
        assert isinstance(features, np.ndarray)
        names = np.array(["a", "b", "c"])[features[:, 0, 0, 0].astype(int)]
        order = list(self.spec.labels)
        predicted = torch.tensor([order.index(name) for name in names])
        predicted[len(predicted) - self.n_wrong :] += 1
        return torch.nn.functional.one_hot(predicted % 3, 3).double()


IMAGES = np.zeros((60, 1, 2, 2))
IMAGES[:, 0, 0, 0], IMAGES[:, 0, 1, 1] = np.arange(60) % 3, np.arange(60)


@pytest.fixture
def sealed(tmp_path: Path) -> SealedTest:
    """60 rows whose label is in their first pixel, and their number in the last."""
    codes = np.arange(60) % 3
    images = IMAGES
    target: npt.NDArray[np.object_] = np.array(["a", "b", "c"], dtype=object)[codes]
    return seal(Dataset("image", images, target, "made here"), tmp_path / "sealed")


def reading(
    sealed: SealedTest,
    ledger: Path,
    models: dict[int, Known],
    champion: Champion | None = None,
    trained_on: KnownRows | None = None,
) -> Evaluation:
    records = [scored(number, 0.9 - number / 100) for number in models]
    return evaluate(
        records, models, sealed, ACCURACY, champion=champion, trained_on=trained_on,
        how=Resampling(0.95, 200, 0), reason="finalists of s", ledger=ledger, n_bytes=dict.fromkeys(models, 1_500_000),
    )  # fmt: skip


def test_the_test_never_picks_the_winner_and_is_read_once_for_all(sealed: SealedTest, tmp_path: Path) -> None:
    ledger = tmp_path / "readings.jsonl"
    evaluation = reading(sealed, ledger, {0: Known(SPEC, 12), 1: Known(SPEC, 0)})
    assert evaluation.winner.trial == 0, "it validated better, although the other one tests better"
    assert [f.test["accuracy"].value for f in evaluation.finalists] == pytest.approx([0.8, 1.0])
    assert evaluation.optimism == pytest.approx(0.1)
    entries = [json.loads(line) for line in ledger.read_text().splitlines()]
    assert [(entry["reason"], entry["n_rows"]) for entry in entries] == [("finalists of s", 60)]
    assert Evaluation.model_validate_json(evaluation.model_dump_json()) == evaluation


def test_what_conformal_sets_hold_is_measured_in_the_same_reading(sealed: SealedTest, tmp_path: Path) -> None:
    sets = Conformal(level=0.9, threshold=0.7, n_rows=9)  # of logits 1, 0, 0 one label has more than 0.3
    evaluation = reading(sealed, tmp_path / "r", {0: Known(SPEC, 12, conformal=sets), 1: Known(SPEC, 0)})
    coverage = evaluation.winner.coverage
    assert coverage is not None
    assert (coverage.level, coverage.held.value, coverage.size.value) == (0.9, pytest.approx(0.8), 1.0)
    assert coverage.held == evaluation.winner.test["accuracy"], "of one label each"
    assert evaluation.finalists[1].coverage is None
    assert len((tmp_path / "r").read_text().splitlines()) == 1


def test_every_seed_of_a_finalist_is_read_in_the_same_reading(sealed: SealedTest, tmp_path: Path) -> None:
    models = {0: Known(SPEC, 12), 1: Known(SPEC, 0)}
    evaluation = evaluate(
        [scored(0, 0.85), scored(1, 0.84)], models, sealed, ACCURACY, trained_on=None,
        champion=Champion(7, Known(SPEC, 24), None),
        how=Resampling(0.95, 200, 0), reason="finalists of s", ledger=tmp_path / "r", n_bytes=dict.fromkeys(models, 1),
        seeds={0: [(0.9, models[0]), (0.8, Known(SPEC, 6))]},
    )  # fmt: skip
    assert [(s.validation, s.test) for s in evaluation.winner.seeds] == [
        (0.9, pytest.approx(0.8)),
        (0.8, pytest.approx(0.9)),
    ]
    assert evaluation.finalists[1].seeds == ()
    assert evaluation.over == "over 2 seeds"
    versus = evaluation.versus_champion
    assert versus is not None
    assert versus.difference.value == pytest.approx((24 - 12) / 60), "the model that may be promoted"
    assert versus.over_seeds is not None
    assert (versus.over_seeds.n, versus.over_seeds.difference.value) == (2, pytest.approx((24 - 9) / 60))
    assert len((tmp_path / "r").read_text().splitlines()) == 1


def test_a_champion_is_compared_on_the_same_rows_and_in_the_same_reading(sealed: SealedTest, tmp_path: Path) -> None:
    ledger = tmp_path / "readings.jsonl"
    evaluation = reading(sealed, ledger, {0: Known(SPEC, 3)}, champion=Champion(7, Known(SPEC, 24), None))
    assert evaluation.champion == 7
    assert evaluation.versus_champion is not None
    assert evaluation.versus_champion.difference.value == pytest.approx(21 / 60)
    assert evaluation.versus_champion.probability_better == 1.0
    assert len(ledger.read_text().splitlines()) == 1


def test_rows_that_either_was_trained_on_are_left_out_of_the_comparison(sealed: SealedTest, tmp_path: Path) -> None:
    """The champion has learned rows 30 to 44 by heart, and is wrong in 24 others."""
    champion = Champion(7, Known(SPEC, 24), KnownRows.of(IMAGES[30:45]))
    evaluation = reading(sealed, tmp_path / "r", {0: Known(SPEC, 3)}, champion, KnownRows.of(IMAGES[40:50]))
    assert evaluation.winner.test["accuracy"].value == pytest.approx(57 / 60), "the winner is read on all rows"
    assert evaluation.champion_reading is not None
    assert evaluation.champion_reading.n_rows == 40
    assert evaluation.champion_reading.test["accuracy"].value == pytest.approx(16 / 40)
    assert evaluation.compared_rows == " of the 40 of 60 test rows that are new to both"
    assert evaluation.versus_champion is not None
    assert evaluation.versus_champion.difference.value == pytest.approx((37 - 16) / 40)


def test_without_rows_that_are_new_to_both_there_is_no_comparison(sealed: SealedTest, tmp_path: Path) -> None:
    champion = Champion(7, Known(SPEC, 24), KnownRows.of(IMAGES))
    evaluation = reading(sealed, tmp_path / "r", {0: Known(SPEC, 0)}, champion, None)
    assert evaluation.versus_champion is None
    assert evaluation.champion_problem == "none of the 60 test rows is new to both"


def test_a_champion_of_unknown_training_is_compared_on_all_rows_and_that_is_said(
    sealed: SealedTest, tmp_path: Path
) -> None:
    champion = Champion(7, Known(SPEC, 24), None)
    evaluation = reading(sealed, tmp_path / "r", {0: Known(SPEC, 0)}, champion, KnownRows.of(IMAGES[:0]))
    assert evaluation.champion_reading is not None
    assert (evaluation.champion_reading.n_rows, evaluation.champion_reading.known) == (60, False)
    assert "may have been trained on" in evaluation.compared_rows


def test_a_champion_that_orders_its_labels_otherwise_is_read_by_label(sealed: SealedTest, tmp_path: Path) -> None:
    turned = SPEC.model_copy(update={"labels": ("c", "a", "b")})
    evaluation = reading(sealed, tmp_path / "r", {0: Known(SPEC, 0)}, champion=Champion(1, Known(turned, 0), None))
    assert evaluation.versus_champion is not None
    assert evaluation.versus_champion.difference.value == 0.0, "both are always right"


def test_a_champion_of_another_problem_is_not_compared_and_says_why(sealed: SealedTest, tmp_path: Path) -> None:
    other = SPEC.model_copy(update={"labels": ("a", "b", "d")})
    evaluation = reading(sealed, tmp_path / "r", {0: Known(SPEC, 0)}, champion=Champion(1, Known(other, 0), None))
    assert evaluation.versus_champion is None
    assert "labels" in (evaluation.champion_problem or "")
    assert "tabular" in (incomparable(SPEC.model_copy(update={"kind": "tabular"}), SPEC) or "")


def test_rows_that_were_tampered_with_are_not_read(sealed: SealedTest, tmp_path: Path) -> None:
    (sealed.directory / "extra").write_text("x")
    with pytest.raises(Exception, match="do not match their hash"):
        reading(sealed, tmp_path / "r", {0: Known(SPEC, 0)})
    assert not (tmp_path / "r").exists()
