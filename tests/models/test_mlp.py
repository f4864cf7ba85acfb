"""Encoders of the MLP."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor

from pipeline.data.preprocess.tabular import TabularPreprocessor, fit_tabular
from pipeline.data.spec import DataSpec
from pipeline.data.tensors import Inputs
from pipeline.models.encoders import (
    CategoricalEncoder,
    NumericEncoder,
    OwnScale,
    SequenceEncoder,
    most_bins,
    most_embedding,
)
from pipeline.models.mlp import MLP, MLPConfig, default
from search_spaces import Options, parameter_names
from tests.models.examples import SPECS

TABLE = SPECS["tabular"]


def test_a_bin_says_how_far_the_value_has_come_through_it() -> None:
    """Column 0 has the edges -2, -1, 0, 1, 2."""
    encoder = NumericEncoder(MLPConfig(n_bins=8), TABLE)
    x = torch.zeros(5, 4)
    x[:, 0] = torch.tensor([-2.0, -1.5, 0.0, 1.25, 2.0])
    expected = torch.tensor([[0, 0, 0, 0], [0.5, 0, 0, 0], [1, 1, 0, 0], [1, 1, 1, 0.25], [1, 1, 1, 1]])
    torch.testing.assert_close(encoder.bins(x)[:, 0, 1:], expected)
    torch.testing.assert_close(encoder.bins(x)[:, 0, 0], x[:, 0])


def test_outside_the_outer_edges_only_the_plain_value_goes_on() -> None:
    bins = NumericEncoder(MLPConfig(n_bins=8), TABLE).bins(torch.full((1, 4), 100.0))[0, 0]
    assert bins.tolist() == [100, 1, 1, 1, 1]


def test_bins_that_a_column_does_not_have_stay_zero() -> None:
    """Column 1 has one bin, column 2 is constant and has none."""
    bins = NumericEncoder(MLPConfig(n_bins=8), TABLE).bins(torch.full((1, 4), 1.0))[0]
    assert bins[1].tolist() == [1, 0.75, 0, 0, 0]
    assert bins[2].tolist() == [1, 0, 0, 0, 0]


def test_fewer_bins_keep_the_outer_edges() -> None:
    encoder = NumericEncoder(MLPConfig(n_bins=2), TABLE)
    assert encoder.left_FN[0].tolist() == [-2, 0]
    assert encoder.bins(torch.full((1, 4), 2.0))[0, 0].tolist() == [2, 1, 1]


def test_no_bins_leave_the_plain_values() -> None:
    x = torch.randn(3, 4)
    assert torch.equal(NumericEncoder(MLPConfig(n_bins=0), TABLE)(x), x)


def test_a_level_that_training_never_saw_says_nothing_at_first() -> None:
    encoder = CategoricalEncoder(MLPConfig(), TABLE)
    assert not encoder(torch.zeros(1, 2, dtype=torch.int64)).any()
    assert encoder(torch.tensor([[1, 0]])).any()


def test_columns_do_not_share_levels() -> None:
    """Cardinalities are 3 and 7: the last level of the first column is not the first of the second."""
    encoder = CategoricalEncoder(MLPConfig(d_embedding=4), TABLE)
    first, second = encoder(torch.tensor([[2, 1]])).view(2, 4)
    assert torch.equal(first, encoder.table.weight[2])
    assert torch.equal(second, encoder.table.weight[3 + 1])


@pytest.mark.parametrize(("n_numeric", "cardinalities"), [(0, (4,)), (3, ()), (3, (4, 5))])
def test_either_sort_of_column_may_be_missing(n_numeric: int, cardinalities: tuple[int, ...]) -> None:
    sizes = {"n_numeric": n_numeric, "cardinalities": cardinalities, "n_train": 100, "n_validation": 10}
    spec = DataSpec.model_validate({"kind": "tabular", "task": "regression", **sizes})
    categories = torch.ones(2, len(cardinalities), dtype=torch.int64) if cardinalities else None
    assert MLP(default(spec), spec)(Inputs(torch.zeros(2, n_numeric), categories)).shape == (2, 1)


def test_wide_data_gets_fewer_bins_and_no_embeddings() -> None:
    edges = tuple(float(i) for i in range(49))
    spec = TABLE.model_copy(update={"n_numeric": 4_000, "bins": (edges,) * 4_000})
    assert most_bins(spec) == 3
    assert default(spec).d_numeric_embedding == 0


def test_a_sequence_is_cut_or_padded_to_the_training_length() -> None:
    spec = SPECS["sequence"]
    encoder = SequenceEncoder(spec)
    x = torch.randn(2, 4, 3)
    short = encoder(Inputs(x, None, torch.tensor([4, 4])))
    assert torch.equal(short[:, : 4 * 3], x.flatten(1))
    assert not short[:, 4 * 3 :].any()
    long = torch.randn(2, 20, 3)
    assert torch.equal(encoder(Inputs(long, None, torch.tensor([20, 20]))), long[:, : spec.n_steps].flatten(1))


def test_hashed_words_are_read_as_they_are() -> None:
    """A thousand columns without bins beside one with: no column is encoded, so the first layer stays small."""
    spec = DataSpec(
        kind="tabular", task="binary", n_numeric=1025, bins=((0.0, 1.0, 2.0), *((0.0,),) * 1024), labels=(0, 1),
        n_train=100, n_validation=20,
    )  # fmt: skip
    assert (most_bins(spec), most_embedding(spec)) == (0, 0)
    assert (default(spec).n_bins, default(spec).d_numeric_embedding) == (0, 0)


def own_scale(raw: pd.DataFrame, training: pd.DataFrame) -> tuple[Tensor, TabularPreprocessor]:
    fitted = fit_tabular(training, dict.fromkeys(training.columns, "numeric"))
    spec = DataSpec(
        kind="tabular", task="binary", labels=(0, 1), n_train=9, n_validation=9, n_numeric=fitted.n_numeric,
        bins=((0.0,),) * fitted.n_numeric, scales=fitted.scales,
    )  # fmt: skip
    return OwnScale(spec)(fitted.transform(raw).x), fitted


def test_robust_scaling_is_the_column_s_own_scale_with_far_values_drawn_in() -> None:
    """Against the formula on the raw values, for columns that the normal scores bend most, with ties and outliers."""
    rng = np.random.default_rng(0)
    training = pd.DataFrame(
        {
            "income": rng.lognormal(10, 1, 5_000),
            "count": rng.poisson(2, 5_000).astype(float),
            "tiny": rng.normal(3, 1e-9, 5_000),
            "mostly": np.where(rng.random(5_000) < 0.9, 7.0, rng.normal(0, 50, 5_000)),
        }
    )
    raw = training.sample(1_000, random_state=0)
    ours, _ = own_scale(raw, training)
    for position, (name, column) in enumerate(training.items()):
        low, median, high = np.quantile(column, (0.25, 0.5, 0.75))
        unit = high - low or (column.max() - column.min()) / 2
        scaled = (raw[name].to_numpy() - median) / unit
        expected = scaled / np.sqrt(1 + (scaled / 3) ** 2)
        # Quartiles are those of the 1,000 stored quantiles, and float32 scores far out are a little coarse.
        np.testing.assert_allclose(ours[:, position], expected, rtol=5e-3, atol=5e-3)


def test_robust_scaling_leaves_what_is_no_measured_number_and_ends_where_training_did() -> None:
    training = pd.DataFrame({"a": [*np.arange(99.0), None], "b": np.arange(100.0)})
    ours, fitted = own_scale(pd.DataFrame({"a": [None, 1e9], "b": [-1e9, 50.0]}), training)
    assert fitted.n_numeric == 3
    assert ours[:, 2].tolist() == [1.0, 0.0]  # the column that says where `a` is missing
    assert ours[0, 0] == pytest.approx(0.0, abs=1e-6)  # a missing value is the median
    ends, _ = own_scale(pd.DataFrame({"a": [98.0], "b": [0.0]}), training)
    assert (float(ours[1, 0]), float(ours[0, 1])) == (float(ends[0, 0]), float(ends[0, 1]))


def test_too_many_quantiles_leave_the_normal_scores_only() -> None:
    training = pd.DataFrame(np.random.default_rng(0).normal(size=(1_000, 201)), columns=[f"c{i}" for i in range(201)])
    assert fit_tabular(training, dict.fromkeys(training.columns, "numeric")).scales == ()
    assert "mlp.scaling" not in parameter_names(SPECS["tabular"].model_copy(update={"scales": ()}), ("mlp",))
    assert parameter_names(SPECS["tabular"], ("mlp",))["mlp.scaling"] == Options(("quantile", "robust"))
