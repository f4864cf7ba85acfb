"""Permutation importance of raw columns, measured on prepared rows: as scikit-learn finds it on raw ones."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.inspection import permutation_importance as sklearn_importance
from torch import Tensor

from pipeline.data.preprocess import TabularPreprocessor
from pipeline.data.preprocess.tabular import fit_tabular
from pipeline.data.spec import DataSpec
from pipeline.data.tensors import Inputs, Part
from pipeline.evaluation.importance import Importance, _affordable, permutation_importance
from pipeline.objective import METRICS

N = 600


def table(seed: int = 0) -> pd.DataFrame:
    """Rows with holes, of every type that a column may have."""
    generator = np.random.default_rng(seed)
    frame = pd.DataFrame({
        "age": generator.normal(40, 10, N),
        "town": generator.choice(["Lyon", "Porto", "Bonn"], N),
        "day": pd.to_datetime(generator.integers(1_500_000_000, 1_700_000_000, N), unit="s").strftime("%Y-%m-%d"),
        "noise": generator.normal(size=N),
        "note": generator.choice(["good and cheap", "bad and dear"], N),
    })  # fmt: skip
    frame.loc[::17, "age"] = None
    frame.loc[::19, "town"] = None
    return frame


TYPES: dict[str, Any] = {"age": "numeric", "noise": "numeric", "town": "categorical", "day": "datetime", "note": "text"}


@dataclass(frozen=True)
class Linear:
    """Fixed weights: age and its holes matter most, then the town, the note and the day; the noise not at all."""

    preprocessor: TabularPreprocessor

    def __call__(self, inputs: Inputs) -> Tensor:
        assert inputs.categories is not None
        places = self.preprocessor.places
        weights = torch.zeros(inputs.x.shape[1])
        weights[places["age"][0][0]], weights[places["age"][0][1]] = 1.5, 0.5
        weights[list(places["day"][0])] = 0.3
        weights[list(places["note"][0])] = torch.linspace(-0.1, 0.1, len(places["note"][0]))
        town = torch.tensor([0.0, 1.0, -1.0, 0.5])[inputs.categories[:, 0]]
        score = inputs.x @ weights + town
        return torch.stack([torch.zeros_like(score), score], 1)


class OfRawRows(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """The same model as scikit-learn's estimators are: raw rows in."""

    def __init__(self, model: Linear) -> None:
        self.model = model
        self.classes_ = np.array([0, 1])

    def fit(self, x: object, y: object) -> OfRawRows:
        return self

    def predict(self, rows: pd.DataFrame) -> np.ndarray[Any, Any]:
        found: np.ndarray[Any, Any] = self.model(self.model.preprocessor.transform(rows)).argmax(1).numpy()
        return found


SPEC = DataSpec(kind="tabular", task="binary", n_numeric=1, labels=(0, 1), n_train=1, n_validation=1)


@pytest.fixture(scope="module")
def model() -> Linear:
    return Linear(fit_tabular(table(), TYPES))


@pytest.fixture(scope="module")
def part(model: Linear) -> Part:
    """Rows labelled by the model itself, one in ten wrongly."""
    inputs = model.preprocessor.transform(table(1))
    target = model(inputs).argmax(1)
    target[::10] = 1 - target[::10]
    return Part(inputs, target)


def measured(model: Linear, part: Part, metric: str = "accuracy", **changes: Any) -> Importance:
    known: dict[str, Any] = {"n_params": 100, "confidence": 0.95, "seed": 0}
    return permutation_importance(model, part, model.preprocessor, SPEC, METRICS[metric], **(known | changes))


def test_every_prepared_column_is_made_of_one_raw_column(model: Linear) -> None:
    preprocessor = model.preprocessor
    numeric = sorted(at for places, _ in preprocessor.places.values() for at in places)
    assert numeric == list(range(preprocessor.n_numeric))
    assert [places for _, places in preprocessor.places.values() if places] == [(0,)]
    changed = table(1)
    for name in preprocessor.places:
        one = changed.copy()
        one[name] = np.roll(changed[name], 1)
        before, after = preprocessor.transform(changed), preprocessor.transform(one)
        differ = set(torch.nonzero((before.x != after.x).any(0))[:, 0].tolist())
        assert differ <= set(preprocessor.places[name][0]), name
        assert differ or preprocessor.places[name][1]


def test_it_agrees_with_scikit_learns_on_raw_rows(model: Linear, part: Part) -> None:
    ours = {c.column: c for c in measured(model, part).columns}
    theirs = sklearn_importance(
        OfRawRows(model), table(1), part.target.numpy(), scoring="accuracy", n_repeats=8, random_state=0
    )
    for at, name in enumerate(table().columns):
        assert ours[name].drop == pytest.approx(float(theirs.importances_mean[at]), abs=0.015), name
        assert ours[name].low <= float(theirs.importances_mean[at]) <= ours[name].high


@pytest.mark.parametrize("metric", ["accuracy", "log_loss", "roc_auc"])
def test_what_matters_comes_first_and_noise_is_not_told_from_nothing(model: Linear, part: Part, metric: str) -> None:
    found = measured(model, part, metric)
    assert found.columns[0].column == "age"
    assert found.columns[0].low > 0
    (noise,) = [c for c in found.columns if c.column == "noise"]
    assert noise.drop == noise.low == noise.high == 0.0, "the model does not look at it"
    assert found.n_rows == N
    assert found.n_left_out == 0
    assert measured(model, part, metric) == found, "the seed decides"


def test_rows_are_left_as_they_were(model: Linear, part: Part) -> None:
    assert part.inputs.categories is not None
    before = part.inputs.x.clone(), part.inputs.categories.clone()
    measured(model, part)
    assert torch.equal(before[0], part.inputs.x)
    assert torch.equal(before[1], part.inputs.categories)


@pytest.mark.parametrize(
    ("n_rows", "n_columns", "n_params", "expected"),
    [
        (300, 5, 1_000, (300, 20, 5)),
        (50_000, 14, 100_000, (1000, 20, 14)),
        (50_000, 14, 5_000_000, (571, 5, 14)),
        (50_000, 1_000, 10_000, (200, 5, 1_000)),
        (50_000, 20_000, 10_000, (200, 5, 1_000)),
        (50, 3, 10**12, (50, 6, 3)),
    ],
)
def test_the_cost_is_bounded_in_rows_repeats_and_columns(
    n_rows: int, n_columns: int, n_params: int, expected: tuple[int, int, int]
) -> None:
    assert _affordable(n_rows, n_columns, n_params) == expected
