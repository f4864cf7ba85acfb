"""Raw rows arrive in many forms; each becomes the one form that preprocessing takes, or a one-line error."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from pipeline.errors import DataError
from pipeline.packaging.raw import as_features

IMAGES = np.arange(2 * 1 * 4 * 4, dtype=np.uint8).reshape(2, 1, 4, 4)
SERIES = [np.ones((3, 2), np.float32), np.zeros((5, 2), np.float32)]


@pytest.mark.parametrize(
    "rows",
    [
        IMAGES,
        IMAGES.tolist(),
        list(IMAGES),
        pd.DataFrame({"image": IMAGES.tolist()}),
        pd.DataFrame({"image": list(IMAGES), "name": ["a", "b"]}),
        pd.DataFrame({"pixels": IMAGES.tolist()}),
        {"image": IMAGES.tolist()},
    ],
    ids=["array", "lists", "list of arrays", "column of lists", "column among others", "only column", "mapping"],
)
def test_images(rows: Any) -> None:
    np.testing.assert_array_equal(as_features(rows, "image"), IMAGES)


def test_an_array_of_images_is_not_copied() -> None:
    assert as_features(IMAGES, "image") is IMAGES


@pytest.mark.parametrize(
    "rows",
    [
        SERIES,
        [steps.tolist() for steps in SERIES],
        pd.DataFrame({"sequence": [steps.tolist() for steps in SERIES]}),
        pd.DataFrame({"sequence": SERIES, "patient": [1, 2]}),
    ],
    ids=["arrays", "lists", "column of lists", "column among others"],
)
def test_sequences_of_unequal_length(rows: Any) -> None:
    for have, want in zip(as_features(rows, "sequence"), SERIES, strict=True):
        np.testing.assert_array_equal(have, want)
        assert have.dtype == np.float32


def test_a_sequence_of_single_numbers_has_one_feature() -> None:
    assert [steps.shape for steps in as_features([[1, 2, 3], [4]], "sequence")] == [(3, 1), (1, 1)]


def test_an_array_of_equally_long_sequences() -> None:
    assert [steps.shape for steps in as_features(np.zeros((4, 3, 2)), "sequence")] == [(3, 2)] * 4


@pytest.mark.parametrize("rows", [{"a": [1, 2]}, [{"a": 1}, {"a": 2}], pd.DataFrame({"a": [1, 2]})])
def test_tables(rows: Any) -> None:
    pd.testing.assert_frame_equal(as_features(rows, "tabular"), pd.DataFrame({"a": [1, 2]}))


@pytest.mark.parametrize(
    "rows",
    [
        ["a b", "c"],
        np.array(["a b", "c"]),
        pd.Series(["a b", "c"]),
        {"text": ["a b", "c"]},
        [{"text": "a b"}, {"text": "c"}],
    ],
)
def test_texts(rows: Any) -> None:
    features = as_features(rows, "text")
    assert isinstance(features, pd.DataFrame)
    assert features.to_dict("list") == {"text": ["a b", "c"]}


@pytest.mark.parametrize(
    ("rows", "kind"),
    [
        (np.zeros((3, 2)), "tabular"),
        ("a.csv", "tabular"),
        (pd.DataFrame({"a": [1], "b": [2]}), "image"),
        ([[[1, 2], [3]]], "image"),
        ([["x", "y"]], "image"),
        ([np.zeros((2, 2)), np.zeros((3, 3))], "image"),
        ([["x", "y"]], "sequence"),
        (5, "sequence"),
        ("one text", "text"),
    ],
    ids=[
        "array for a table",
        "path",
        "no column image",
        "ragged image",
        "text",
        "unequal images",
        "words",
        "number",
        "one string",
    ],
)
def test_other_forms_are_data_errors(rows: Any, kind: Any) -> None:
    with pytest.raises(DataError) as error:
        as_features(rows, kind)
    assert "\n" not in str(error.value)
