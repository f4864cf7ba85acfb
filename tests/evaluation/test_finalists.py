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
from pipeline.data.sealed import SealedTest, seal
from pipeline.data.spec import DataSpec
from pipeline.errors import SearchError
from pipeline.evaluation.finalists import Evaluation, choose_finalists, evaluate, incomparable
from pipeline.objective import METRICS
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

    def outputs(self, features: Features) -> Tensor:
        assert isinstance(features, np.ndarray)
        names = np.array(["a", "b", "c"])[features[:, 0, 0, 0].astype(int)]
        order = list(self.spec.labels)
        predicted = torch.tensor([order.index(name) for name in names])
        predicted[len(predicted) - self.n_wrong :] += 1
        return torch.nn.functional.one_hot(predicted % 3, 3).double()


@pytest.fixture
def sealed(tmp_path: Path) -> SealedTest:
    """60 rows whose label is in their first pixel."""
    codes = np.arange(60) % 3
    images = np.zeros((60, 1, 2, 2))
    images[:, 0, 0, 0] = codes
    target: npt.NDArray[np.object_] = np.array(["a", "b", "c"], dtype=object)[codes]
    return seal(Dataset("image", images, target, "made here"), tmp_path / "sealed")


def reading(
    sealed: SealedTest, ledger: Path, models: dict[int, Known], champion: tuple[int, Known] | None = None
) -> Evaluation:
    records = [scored(number, 0.9 - number / 100) for number in models]
    return evaluate(
        records, models, sealed, ACCURACY, champion=champion, confidence=0.95, n_resamples=200, seed=0,
        reason="finalists of s", ledger=ledger, n_bytes=dict.fromkeys(models, 1_500_000),
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


def test_a_champion_is_compared_on_the_same_rows_and_in_the_same_reading(sealed: SealedTest, tmp_path: Path) -> None:
    ledger = tmp_path / "readings.jsonl"
    evaluation = reading(sealed, ledger, {0: Known(SPEC, 3)}, champion=(7, Known(SPEC, 24)))
    assert evaluation.champion == 7
    assert evaluation.versus_champion is not None
    assert evaluation.versus_champion.difference.value == pytest.approx(21 / 60)
    assert evaluation.versus_champion.probability_better == 1.0
    assert len(ledger.read_text().splitlines()) == 1


def test_a_champion_that_orders_its_labels_otherwise_is_read_by_label(sealed: SealedTest, tmp_path: Path) -> None:
    turned = SPEC.model_copy(update={"labels": ("c", "a", "b")})
    evaluation = reading(sealed, tmp_path / "r", {0: Known(SPEC, 0)}, champion=(1, Known(turned, 0)))
    assert evaluation.versus_champion is not None
    assert evaluation.versus_champion.difference.value == 0.0, "both are always right"


def test_a_champion_of_another_problem_is_not_compared_and_says_why(sealed: SealedTest, tmp_path: Path) -> None:
    other = SPEC.model_copy(update={"labels": ("a", "b", "d")})
    evaluation = reading(sealed, tmp_path / "r", {0: Known(SPEC, 0)}, champion=(1, Known(other, 0)))
    assert evaluation.versus_champion is None
    assert "labels" in (evaluation.champion_problem or "")
    assert "tabular" in (incomparable(SPEC.model_copy(update={"kind": "tabular"}), SPEC) or "")


def test_rows_that_were_tampered_with_are_not_read(sealed: SealedTest, tmp_path: Path) -> None:
    (sealed.directory / "extra").write_text("x")
    with pytest.raises(Exception, match="do not match their hash"):
        reading(sealed, tmp_path / "r", {0: Known(SPEC, 0)})
    assert not (tmp_path / "r").exists()
