"""Shapes, speed tricks and masks of the CNN."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipeline.data.spec import DataSpec
from pipeline.data.tensors import Inputs
from pipeline.models.cnn import CNN, CNNConfig, Convolution, default, max_stages


def image_spec(channels: int, height: int, width: int) -> DataSpec:
    return DataSpec(
        kind="image",
        task="binary",
        labels=(0, 1),
        channels=channels,
        height=height,
        width=width,
        n_train=10,
        n_validation=5,
    )


def plain_stages(model: CNN, x: Tensor) -> Tensor:
    """The same network as it is usually written: activation first, contiguous maps."""
    for module in model.convolutions:
        assert isinstance(module, Convolution)
        x = F.max_pool2d(F.relu(module.norm(module.conv(x))), module.window, ceil_mode=True)
    return x


def test_pooling_first_in_channels_last_changes_no_result() -> None:
    spec = image_spec(1, 28, 28)
    model = CNN(CNNConfig(head="gap", dropout=0.0), spec)
    x = torch.randn(8, 1, 28, 28)
    usual = model.head(plain_stages(model, x).mean((2, 3)))
    torch.testing.assert_close(model(Inputs(x)), usual, atol=1e-5, rtol=1e-4)


def test_even_one_channel_is_convolved_in_channels_last() -> None:
    model = CNN(CNNConfig(), image_spec(1, 28, 28))
    layouts = []
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(
                lambda _m, _x, y: layouts.append(y.is_contiguous(memory_format=torch.channels_last))
            )
    model(Inputs(torch.randn(4, 1, 28, 28)))
    assert layouts == [True, True, True]


@pytest.mark.parametrize("size", [(1, 1, 1), (3, 1, 7), (1, 5, 2), (1, 2, 64), (4, 33, 17)])
@pytest.mark.parametrize("head", ["gap", "flatten"])
def test_any_depth_fits_any_image(size: tuple[int, int, int], head: str) -> None:
    spec = image_spec(*size)
    config = CNNConfig.model_validate(
        {
            "n_stages": 8,
            "width": 2,
            "convs_per_stage": 2,
            "kernel_size": 7,
            "stem_stride": 4,
            "residual": True,
            "head": head,
        }
    )
    assert CNN(config, spec)(Inputs(torch.randn(2, *size))).shape == (2, 2)


def test_channels_stop_doubling_and_large_maps_are_shrunk_before_they_are_flattened() -> None:
    """What a stored config may cost stays bounded."""
    model = CNN(CNNConfig(n_stages=1, width=512, head="flatten"), image_spec(1, 512, 512))
    assert model.head.in_features == 512 * 4 * 4
    deep = CNN(CNNConfig(n_stages=4, width=256, convs_per_stage=1), image_spec(1, 32, 32))
    assert deep.head.in_features == 512


def test_a_flattened_map_keeps_what_is_where() -> None:
    """Three positions a side are kept; nine are averaged in blocks of three."""
    for side, blocks in ((3, 3), (9, 3), (6, 3), (5, 3)):
        model = CNN(CNNConfig(n_stages=1, width=2, head="flatten", dropout=0.0), image_spec(1, 2 * side, 2 * side))
        assert model.head.in_features == 2 * blocks * blocks
        x = torch.randn(2, 2, side, side)
        k = -(-side // blocks)
        corner = x[:, :, :k, :k].mean((2, 3))
        torch.testing.assert_close(model.read(x, None).view(2, 2, blocks, blocks)[:, :, 0, 0], corner)


def test_defaults_end_in_a_small_map() -> None:
    for side, stages, stride in ((1, 1, 1), (8, 2, 1), (28, 3, 1), (32, 4, 1), (96, 5, 2), (224, 5, 4)):
        spec = image_spec(1, side, side)
        assert (max_stages(spec), default(spec).stem_stride) == (stages, stride)


def test_a_residual_convolution_adds_its_input() -> None:
    model = CNN(CNNConfig(n_stages=1, convs_per_stage=2, residual=True, norm="none"), image_spec(1, 4, 4))
    second = model.convolutions[1]
    assert isinstance(second, Convolution)
    assert second.residual
    nn.init.zeros_(second.conv.weight)
    x = torch.randn(2, 16, 4, 4)
    y, _ = second(x, None)
    torch.testing.assert_close(y, F.relu(F.max_pool2d(x, 2)))
