"""Pictures that the winner gets wrong: the surest mistakes first, as small PNG files."""

from __future__ import annotations

import base64
import io

import numpy as np
import pytest
import torch
from PIL import Image

from pipeline.data.spec import DataSpec
from pipeline.evaluation.pictures import LARGEST, MOST, mistaken, thumbnails

SPEC = DataSpec(
    kind="image", task="binary", channels=1, height=2, width=2, labels=("cat", "dog"), n_train=1, n_validation=1
)


def opened(png: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(png)))


def test_only_mistakes_are_shown_and_the_surest_come_first() -> None:
    outputs = torch.tensor([[9.0, 0.0], [0.0, 1.0], [0.0, 5.0], [2.0, 0.0]])
    images = np.arange(4, dtype=np.uint8)[:, None, None, None] * np.full((4, 1, 2, 2), 60, dtype=np.uint8)
    shown = mistaken(outputs, torch.tensor([0, 0, 0, 1]), SPEC, images)
    assert [(p.true, p.predicted) for p in shown] == [("cat", "dog"), ("dog", "cat"), ("cat", "dog")]
    assert [p.probability for p in shown] == pytest.approx([0.9933, 0.8808, 0.7311], abs=1e-4)
    assert [opened(p.png).getpixel((0, 0)) for p in shown] == [170, 255, 85], "between the extremes of all test images"
    many = mistaken(outputs[:1].expand(90, 2), torch.ones(90, dtype=torch.long), SPEC, np.zeros((90, 1, 2, 2)))
    assert len(many) == MOST


def test_a_quantity_shows_its_largest_errors_in_its_units_and_a_table_no_pictures() -> None:
    spec = SPEC.model_copy(update={"task": "regression", "labels": (), "target_mean": 10.0, "target_scale": 2.0})
    shown = mistaken(torch.tensor([[0.0], [3.0]]), torch.tensor([0.5, 0.0]), spec, np.zeros((2, 1, 2, 2)))
    assert [(p.true, p.predicted, p.probability) for p in shown] == [("10", "16", None), ("11", "10", None)]
    tabular = DataSpec(kind="tabular", task="binary", n_numeric=1, labels=(0, 1), n_train=1, n_validation=1)
    assert mistaken(torch.zeros(2, 2), torch.ones(2, dtype=torch.long), tabular, np.zeros((2, 1, 2, 2))) == ()


def test_large_pictures_are_made_small_and_three_channels_are_colours() -> None:
    images = np.zeros((1, 3, 400, 200))
    images[:, 0] = 1.0
    (png,) = thumbnails(images, 0.0, 1.0)
    picture = opened(png)
    assert picture.size == (LARGEST // 2, LARGEST)
    assert picture.getpixel((0, 0)) == (255, 0, 0)
    assert opened(thumbnails(np.zeros((1, 5, 4, 4)), 0.0, 0.0)[0]).mode == "L"
