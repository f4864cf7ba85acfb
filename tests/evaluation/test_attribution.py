"""Where a model looks: on the pixels and steps that decide, and nowhere else."""

from __future__ import annotations

import base64
import io

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from pipeline.data.preprocess import ImagePreprocessor, SequencePreprocessor
from pipeline.data.spec import DataSpec
from pipeline.data.tensors import Inputs, Part
from pipeline.evaluation import attribution
from pipeline.evaluation.attribution import ROWS_A_CLASS, attribute
from pipeline.models import FAMILIES
from pipeline.models.base import Model

pytest.importorskip("captum", reason="captum is not installed")

IMAGES = DataSpec(
    kind="image", task="multiclass", channels=1, height=6, width=6, labels=("a", "b", "c"), n_train=1, n_validation=1
)
SERIES = DataSpec(
    kind="sequence", task="binary", n_steps=10, n_features=3, labels=("no", "yes"), n_train=1, n_validation=1
)


class Corner(Model):
    """Class by a curved function of the first four pixels of the first row; the others do not count."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([1.0, -1.0, 0.5]))

    def forward(self, inputs: Inputs) -> Tensor:
        corner = inputs.x[:, 0, 0, :4]
        return torch.tanh(corner.sum(1))[:, None] * self.weight


class SecondFeature(Model):
    """The mean of the second feature over the valid steps."""

    def forward(self, inputs: Inputs) -> Tensor:
        assert inputs.lengths is not None
        valid = torch.arange(inputs.x.shape[1]) < inputs.lengths[:, None]
        mean = (inputs.x[:, :, 1] * valid).sum(1) / inputs.lengths
        return torch.stack([-mean, mean], 1)


class LastStep(Model):
    """The first feature of the last valid step."""

    def forward(self, inputs: Inputs) -> Tensor:
        assert inputs.lengths is not None
        last = inputs.x[torch.arange(len(inputs.x)), inputs.lengths - 1, 0]
        return torch.stack([-last, last], 1)


def pictures(n: int = 60) -> Part:
    generator = torch.Generator().manual_seed(0)
    return Part(Inputs(torch.randn(n, 1, 6, 6, generator=generator)), torch.arange(n) % 3)


def series(n: int = 40) -> Part:
    generator = torch.Generator().manual_seed(0)
    lengths = torch.randint(3, 11, (n,), generator=generator)
    x = torch.randn(n, 10, 3, generator=generator)
    x[torch.arange(10)[None] >= lengths[:, None]] = 0
    return Part(Inputs(x, lengths=lengths), torch.arange(n) % 2)


PIXELS = ImagePreprocessor(height=6, width=6, mean=(100.0,), std=(50.0,))
STEPS = SequencePreprocessor(n_steps=10, mean=(0.0,) * 3, std=(1.0,) * 3)


def test_a_map_is_on_the_pixels_that_decide() -> None:
    seen = attribute(Corner(), pictures(), PIXELS, IMAGES, seed=0)
    assert seen.n_rows == 3 * ROWS_A_CLASS
    assert list(seen.mean) == ["a", "b", "c"]
    for cells in seen.mean.values():
        plane = np.array(cells)
        assert plane.sum() == pytest.approx(1, abs=1e-3)
        assert plane[0, :4].sum() == pytest.approx(1, abs=1e-3)
    assert seen.error < 0.01, "attributions add up to what they explain"
    assert {example.true for example in seen.examples} == {"a", "b", "c"}
    assert seen.by_feature == ()
    for example in seen.examples:
        assert example.png is not None
        assert Image.open(io.BytesIO(base64.b64decode(example.png))).size == (6, 6)


def test_of_a_sequence_the_feature_that_decides_has_it_all_whatever_the_length() -> None:
    seen = attribute(SecondFeature().eval(), series(), STEPS, SERIES, seed=0)
    assert seen.by_feature == pytest.approx((0.0, 1.0, 0.0), abs=1e-3)
    assert all(len(cells) == 3 and len(cells[0]) == 10 for cells in seen.mean.values())
    assert all(example.png is None for example in seen.examples)


def test_the_end_of_a_map_is_the_end_of_each_sequence_however_long_it_is() -> None:
    seen = attribute(LastStep().eval(), series(), STEPS, SERIES, seed=0)
    for cells in seen.mean.values():
        plane = np.array(cells)
        assert plane[0, 6:].sum() == pytest.approx(1, abs=1e-3), "of three steps the last fills the last four cells"


def test_a_quantity_has_one_map_of_all_rows_and_large_images_are_averaged_down(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(attribution, "LARGEST", 3)
    spec = IMAGES.model_copy(update={"task": "regression", "labels": (), "target_mean": 5.0, "target_scale": 2.0})
    part = Part(pictures().inputs, torch.linspace(-1, 1, 60))
    seen = attribute(Corner(), part, PIXELS, spec, seed=0)
    (cells,) = seen.mean.values()
    assert np.array(cells).shape == (3, 3)
    assert cells[0][0] + cells[0][1] == pytest.approx(1, abs=1e-3)
    assert all(3.0 <= float(example.true) <= 7.0 for example in seen.examples)


@pytest.mark.parametrize("family", ["mlp", "cnn", "lstm"])
@pytest.mark.parametrize(("spec", "part"), [(IMAGES, pictures()), (SERIES, series())], ids=["image", "sequence"])
def test_every_family_can_be_asked(family: str, spec: DataSpec, part: Part) -> None:
    torch.manual_seed(0)
    module = FAMILIES[family].build(FAMILIES[family].default(spec), spec).eval()
    seen = attribute(module, part, PIXELS if spec.kind == "image" else STEPS, spec, seed=0)
    assert list(seen.mean) == [str(label) for label in spec.labels]
    for cells in seen.mean.values():
        assert np.array(cells).sum() == pytest.approx(1, abs=1e-2)
    assert all(parameter.grad is None for parameter in module.parameters()), "nothing is left on the model"


def test_where_gradients_are_slow_each_class_keeps_a_row(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attribution, "SECONDS", 0.0)
    seen = attribute(Corner(), pictures(), PIXELS, IMAGES, seed=0)
    assert seen.n_rows == 3
    assert list(seen.mean) == ["a", "b", "c"]
