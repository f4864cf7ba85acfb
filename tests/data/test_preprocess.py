"""Preprocessing: equal to scikit-learn where it does the same, by column name, JSON in and out."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from pydantic import TypeAdapter, ValidationError
from sklearn.preprocessing import QuantileTransformer

from pipeline.data.preprocess import Preprocessor, TabularPreprocessor, encode_target
from pipeline.data.preprocess.image import fit_image
from pipeline.data.preprocess.sequence import fit_sequence
from pipeline.data.preprocess.tabular import MAX_BINS, MAX_LEVELS, bins_of, fit_tabular
from pipeline.data.spec import DataSpec
from pipeline.errors import DataError

RNG = np.random.default_rng(0)
COLUMNS = {
    "normal": RNG.normal(50, 10, 3000),
    "lognormal": RNG.lognormal(0, 2, 3000),
    "ties": RNG.integers(0, 5, 3000).astype(float),
    "mostly zero": np.where(RNG.random(3000) < 0.9, 0.0, RNG.random(3000)),
    "few rows": RNG.normal(size=40),
}


def fit_one(values: Any, kind: str = "numeric") -> TabularPreprocessor:
    return fit_tabular(pd.DataFrame({"c": values}), {"c": kind})  # type: ignore[dict-item]


def codes(fitted: TabularPreprocessor, values: Any) -> list[int]:
    categories = fitted.transform(pd.DataFrame({"c": values})).categories
    assert categories is not None
    return categories[:, 0].tolist()


# ---- numeric columns ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", COLUMNS)
def test_numbers_are_transformed_as_scikit_learn_does(name: str) -> None:
    train = COLUMNS[name]
    unseen = np.concatenate([train, np.linspace(train.min() - 1, train.max() + 1, 500)])
    reference = QuantileTransformer(
        n_quantiles=min(1000, len(train)), output_distribution="normal", subsample=None
    ).fit(train[:, None])
    ours = fit_one(train).transform(pd.DataFrame({"c": unseen})).x[:, 0].numpy()
    np.testing.assert_allclose(ours, reference.transform(unseen[:, None])[:, 0], atol=1e-5)


@pytest.mark.parametrize("scale", [1e-12, 1.0, 1e12, 1e150])
def test_the_scale_of_a_column_does_not_matter(scale: float) -> None:
    values = RNG.permutation(np.linspace(-1, 1, 500))
    expected = fit_one(values).transform(pd.DataFrame({"c": values})).x
    scaled = fit_one(values * scale).transform(pd.DataFrame({"c": values * scale})).x
    torch.testing.assert_close(scaled, expected, atol=1e-3, rtol=1e-3)


def test_missing_values_are_the_median_with_an_indicator() -> None:
    fitted = fit_one([1.0, 2.0, np.nan, 3.0, np.inf])
    x = fitted.transform(pd.DataFrame({"c": [2.0, np.nan, "n/a"]})).x
    assert x[:, 0].tolist() == pytest.approx([0, 0, 0], abs=1e-6)
    assert x[:, 1].tolist() == [0, 1, 1]
    assert fitted.n_numeric == 2


def test_missing_values_at_prediction_alone_need_no_indicator() -> None:
    fitted = fit_one([1.0, 2.0, 3.0])
    assert fitted.transform(pd.DataFrame({"c": [None]})).x.tolist() == [[pytest.approx(0, abs=1e-6)]]


def test_numbers_arrive_as_text_too() -> None:
    fitted = fit_one(["1", " 2", "3", "4e0"])
    x = fitted.transform(pd.DataFrame({"c": ["3", "abc", "1e400"]})).x
    assert torch.isfinite(x).all()
    assert torch.equal(x[:1], fitted.transform(pd.DataFrame({"c": [3]})).x)


def test_bins_ascend_and_cover_the_training_values() -> None:
    x = fit_tabular(pd.DataFrame(COLUMNS | {"few rows": COLUMNS["ties"]}), dict.fromkeys(COLUMNS, "numeric"))
    values = x.transform(pd.DataFrame(COLUMNS | {"few rows": COLUMNS["ties"]})).x.numpy()
    for edges, column in zip(bins_of(values), values.T, strict=True):
        assert 2 <= len(edges) <= MAX_BINS + 1
        assert all(low < high for low, high in pairwise(edges))
        assert (edges[0], edges[-1]) == (column.min(), column.max())


# ---- categorical columns -----------------------------------------------------------------------------------------


def test_levels_by_frequency_then_rare_ones_then_missing() -> None:
    fitted = fit_one(["b", "a", "b", "a", "b", "once", None], "categorical")
    assert fitted.cardinalities == (4,)
    assert codes(fitted, ["b", "a", "once", "never", None, "?", " b "]) == [1, 2, 3, 3, 0, 0, 1]


def test_unseen_levels_are_missing_where_training_had_no_rare_ones() -> None:
    fitted = fit_one(["a", "a", "b", "b"], "categorical")
    assert fitted.cardinalities == (3,)
    assert codes(fitted, ["a", "never", None]) == [1, 0, 0]


def test_levels_that_are_numbers_are_one_however_they_are_written() -> None:
    fitted = fit_one(["01", "1", "2", "02", "2"], "categorical")
    assert codes(fitted, ["2", "1.0", "001"]) == [1, 2, 2]
    assert codes(fitted, [2, 1, 1]) == [1, 2, 2]
    assert codes(fitted, [2.0, 1.0, np.nan]) == [1, 2, 0]


def test_truth_values_are_the_same_as_text() -> None:
    fitted = fit_one(["True", "False", "True", "False"], "categorical")
    assert codes(fitted, [True, False]) == codes(fitted, ["True", "False"])


def test_levels_are_bounded() -> None:
    fitted = fit_one([f"l{i}" for i in range(1500)] * 2, "categorical")
    assert fitted.cardinalities == (MAX_LEVELS + 2,)


def test_the_order_of_rows_does_not_matter() -> None:
    values = ["a", "b", "c", "d"] * 5
    assert fit_one(values, "categorical") == fit_one(values[::-1], "categorical")


@pytest.mark.parametrize("name", ["count", "index", "level_0", ""])
def test_any_column_name_will_do(name: str) -> None:
    frame = pd.DataFrame({name: ["a", "b"] * 5})
    assert fit_tabular(frame, {name: "categorical"}).categorical[0].levels == ("a", "b")


# ---- tables ------------------------------------------------------------------------------------------------------


def test_columns_are_found_by_name() -> None:
    frame = pd.DataFrame({"n": [1.0, 2.0, 3.0, 4.0], "c": ["a", "b", "a", "b"]})
    fitted = fit_tabular(frame, {"n": "numeric", "c": "categorical"})
    shuffled = frame[["c", "n"]].assign(extra=1)
    for ours, theirs in zip(fitted.transform(frame), fitted.transform(shuffled), strict=True):
        assert (ours is None and theirs is None) or torch.equal(ours, theirs)
    with pytest.raises(DataError, match="lacks the column 'n'"):
        fitted.transform(frame[["c"]])


def test_a_row_alone_is_transformed_as_among_others() -> None:
    frame = pd.DataFrame({"n": COLUMNS["lognormal"], "c": RNG.choice(["a", "b", "c"], 3000)})
    fitted = fit_tabular(frame, {"n": "numeric", "c": "categorical"})
    together = fitted.transform(frame)
    alone = fitted.transform(frame.iloc[[17]])
    assert torch.equal(alone.x, together.x[17:18])
    assert alone.categories is not None
    assert together.categories is not None
    assert torch.equal(alone.categories, together.categories[17:18])


def test_input_is_left_as_it_was() -> None:
    frame = pd.DataFrame({"c": [1.0, np.nan, 3.0]})
    before = frame.copy()
    fit_one(frame["c"]).transform(frame)
    pd.testing.assert_frame_equal(frame, before)


@pytest.mark.parametrize("fitted", ["tabular", "image", "sequence"])
def test_json_and_back(fitted: str) -> None:
    features: Any
    if fitted == "tabular":
        features = pd.DataFrame({"n": COLUMNS["lognormal"], "c": RNG.choice(["a", "b", "é"], 3000)})
        preprocessor: Any = fit_tabular(features, {"n": "numeric", "c": "categorical"})
    elif fitted == "image":
        features = RNG.integers(0, 256, (20, 3, 5, 4), dtype=np.uint8)
        preprocessor = fit_image(features)
    else:
        features = [RNG.normal(size=(n, 2)).astype(np.float32) for n in (3, 7, 1)]
        preprocessor = fit_sequence(features)
    again = TypeAdapter[Any](Preprocessor).validate_json(preprocessor.model_dump_json())
    assert again == preprocessor
    assert torch.equal(again.transform(features).x, preprocessor.transform(features).x)


def test_stored_values_are_checked() -> None:
    stored = fit_one([1.0, 2.0, 3.0]).model_dump()
    stored["numeric"][0]["quantiles"] = (3.0, 1.0)
    with pytest.raises(ValidationError, match="must ascend"):
        TabularPreprocessor.model_validate(stored)
    stored["numeric"][0]["quantiles"] = (float("nan"),)
    with pytest.raises(ValidationError, match="finite"):
        TabularPreprocessor.model_validate(stored)


# ---- images ------------------------------------------------------------------------------------------------------


def test_training_images_have_mean_0_and_deviation_1_per_channel() -> None:
    images = RNG.integers(0, 256, (300, 3, 8, 6), dtype=np.uint8)
    x = fit_image(images).transform(images).x
    assert x.dtype == torch.float32
    torch.testing.assert_close(x.mean((0, 2, 3)), torch.zeros(3), atol=1e-5, rtol=0)
    torch.testing.assert_close(x.std((0, 2, 3), correction=0), torch.ones(3), atol=1e-5, rtol=0)


def test_layouts_give_the_same_tensor() -> None:
    colour = RNG.integers(0, 256, (10, 3, 8, 6), dtype=np.uint8)
    fitted = fit_image(colour)
    assert torch.equal(fitted.transform(colour.transpose(0, 2, 3, 1)).x, fitted.transform(colour).x)
    grey = fit_image(colour[:, :1])
    assert torch.equal(grey.transform(colour[:, 0]).x, grey.transform(colour[:, :1]).x)
    torch.testing.assert_close(grey.transform(colour[:, 0].astype(np.float64)).x, grey.transform(colour[:, 0]).x)


def test_an_image_of_one_colour_stays_finite() -> None:
    images = np.full((5, 1, 4, 4), 7, dtype=np.uint8)
    assert fit_image(images).transform(images).x.abs().max() == 0


def test_images_of_another_shape_are_refused() -> None:
    fitted = fit_image(np.zeros((5, 1, 4, 4), np.uint8))
    for wrong in (np.zeros((5, 1, 4, 5)), np.zeros((4, 4)), [np.zeros((4, 4)), np.zeros((3, 4))]):
        with pytest.raises(DataError, match="shape"):
            fitted.transform(wrong)
    with pytest.raises(DataError, match="finite pixels"):
        fitted.transform(np.full((1, 4, 4), np.nan))
    with pytest.raises(DataError, match="got a table"):
        fitted.transform(pd.DataFrame())


# ---- sequences ---------------------------------------------------------------------------------------------------


def test_sequences_are_standardised_over_steps_and_padded_with_zeros() -> None:
    series = [RNG.normal(5, 3, (n, 2)).astype(np.float32) for n in (3, 7, 5)]
    fitted = fit_sequence(series)
    inputs = fitted.transform(series)
    assert inputs.lengths is not None
    assert inputs.lengths.tolist() == [3, 7, 5]
    assert inputs.x.shape == (3, 7, 2)
    real = torch.cat([inputs.x[row, :length] for row, length in enumerate(inputs.lengths.tolist())])
    torch.testing.assert_close(real.mean(0), torch.zeros(2), atol=1e-6, rtol=0)
    torch.testing.assert_close(real.std(0, correction=0), torch.ones(2), atol=1e-5, rtol=0)
    assert inputs.x[0, 3:].abs().max() == 0


def test_longer_sequences_are_kept_and_shorter_batches_keep_the_width() -> None:
    fitted = fit_sequence([np.arange(5.0)[:, None]])
    assert fitted.transform([np.arange(9.0)[:, None]]).x.shape == (1, 9, 1)
    assert fitted.transform([np.arange(2.0)]).x.shape == (1, 5, 1)


def test_missing_steps_are_the_feature_mean() -> None:
    fitted = fit_sequence([np.array([[1.0], [np.nan], [3.0]])])
    assert fitted.mean == (2.0,)
    assert fitted.transform([np.array([[np.nan], [np.inf]])]).x[0, :2, 0].tolist() == [0, 0]


def test_sequences_that_are_none_are_refused() -> None:
    fitted = fit_sequence([np.zeros((5, 2))])
    for wrong, message in [
        ([np.zeros((0, 2))], "sequence 1 is no array of steps"),
        ([np.zeros((3, 2)), np.zeros((3, 3))], "number 2 has shape"),
        ([["a", "b"]], "sequence 1 is no array"),
    ]:
        with pytest.raises(DataError, match=message):
            fitted.transform(wrong)  # type: ignore[arg-type]
    with pytest.raises(DataError, match="feature 1 of the sequences has no finite value"):
        fit_sequence([np.array([[1.0, np.nan]])])


# ---- targets -----------------------------------------------------------------------------------------------------


def spec(**fields: Any) -> DataSpec:
    return DataSpec(kind="tabular", n_numeric=1, n_train=1, n_validation=1, **fields)


@pytest.mark.parametrize(
    ("labels", "raw"),
    [
        ((1, 2, 3), ["3", "1", "2.0"]),
        ((1, 2, 3), [3, 1, 2]),
        (("a", "b", "c"), ["c", " a ", "b"]),
        ((0.5, 1.5, 2.5), [2.5, 0.5, 1.5]),
    ],
)
def test_labels_become_their_positions(labels: tuple[Any, ...], raw: list[Any]) -> None:
    dtype = object if isinstance(raw[0], str) else None
    encoded = encode_target(spec(task="multiclass", labels=labels), np.array(raw, dtype=dtype))
    assert encoded.dtype == torch.int64
    assert encoded.tolist() == [2, 0, 1]


@pytest.mark.parametrize("raw", [[True, False], ["True", "FALSE"]])
def test_truth_labels(raw: list[Any]) -> None:
    encoded = encode_target(spec(task="binary", labels=(False, True)), np.array(raw, dtype=object))
    assert encoded.tolist() == [1, 0]


def test_an_unknown_label_is_named() -> None:
    with pytest.raises(DataError, match=r"'x' \(2 rows\) is none of the 2 labels"):
        encode_target(spec(task="binary", labels=("a", "b")), np.array(["a", "x", "x"], dtype=object))


def test_regression_targets_are_standardised() -> None:
    regression = spec(task="regression", target_mean=10.0, target_scale=2.0)
    assert encode_target(regression, np.array(["12", "8"], dtype=object)).tolist() == [1.0, -1.0]
    with pytest.raises(DataError, match="row 2 has 'oops'"):
        encode_target(regression, np.array(["12", "oops"], dtype=object))
