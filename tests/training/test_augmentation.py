"""What augmentation does to a batch of images, and that it is a function of seed and step alone."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from pipeline.training.augmentation import Augmenter, make_augmenter
from pipeline.training.config import AugmentationConfig
from tests.training.cohorts import CPU, cohort_of, make

K, B, C, H, W = 2, 400, 2, 9, 7


def images() -> Tensor:
    """No pixel is 0, and no two are the same."""
    return 1 + torch.arange(K * B * C * H * W, dtype=torch.float32).view(K, B, C, H, W)


def changed(config: AugmentationConfig, step: int = 0, seeds: tuple[int, int] = (1, 2)) -> tuple[Tensor, Tensor | None]:
    return Augmenter([config, config], seeds, CPU)(images(), [step, step])


def test_a_mirrored_image_is_mirrored_left_to_right_and_half_of_them_are() -> None:
    x, _ = changed(AugmentationConfig(flip="horizontal"))
    same = (x == images()).flatten(2).all(2)
    mirrored = (x == images().flip(4)).flatten(2).all(2)
    assert bool((same ^ mirrored).all())
    assert 300 < int(mirrored.sum()) < 500  # 800 coins: outside with odds of 1e-12


def test_a_shifted_image_is_moved_by_at_most_so_many_pixels_and_zeros_come_in() -> None:
    x, _ = changed(AugmentationConfig(shift=2))
    padded = F.pad(images(), (2, 2, 2, 2))
    moves = [(i, j) for i in range(5) for j in range(5)]
    is_move = torch.stack([(x == padded[..., i : i + H, j : j + W]).flatten(2).all(2) for i, j in moves])
    assert bool((is_move.sum(0) == 1).all())
    # 800 rows over 25 moves, 32 each: one with fewer than 8 or more than 70 of them has odds below 1e-6.
    counts = is_move.sum((1, 2))
    assert 8 <= int(counts.min()) <= int(counts.max()) <= 70


def test_a_square_is_covered_whose_centre_is_anywhere() -> None:
    x, _ = changed(AugmentationConfig(cutout=4))
    covered = (x == 0).all(2)  # the same in every channel
    assert torch.equal((x == 0).any(2), covered)
    assert torch.equal(x[x != 0], images()[x != 0])
    rows, columns = covered.any(3).sum(2), covered.any(2).sum(2)
    assert torch.equal(covered.sum((2, 3)), rows * columns)  # a rectangle: what is left of the square inside the image
    assert int(rows.max()) == int(columns.max()) == 4
    assert int(rows.min()) == int(columns.min()) == 2  # a centre on the edge
    assert bool(covered.any(1).all())  # every pixel was covered in some row: missing one has odds below 1e-9


def test_rows_are_mixed_with_the_row_before_by_one_share_a_batch() -> None:
    config = AugmentationConfig(mixup=0.4)
    shares = []
    for step in range(500):
        x, own = changed(config, step)
        assert own is not None
        if step == 0:
            before = images().roll(1, dims=1)
            torch.testing.assert_close(x, before + own[:, :, None, None, None] * (images() - before))
        shares.append(own[:, 0])
    values = torch.stack(shares).flatten()
    assert bool(((values >= 0) & (values <= 1)).all())
    # Beta(0.4, 0.4): mean 1/2, variance 1 / (4 * 1.8). 1,000 draws: four standard errors are 0.047 and 0.012.
    assert float(values.mean()) == pytest.approx(0.5, abs=0.047)
    assert float(values.var()) == pytest.approx(1 / 7.2, abs=0.012)


ALL = AugmentationConfig(flip="horizontal", shift=2, cutout=3, mixup=1.0)


def test_equal_seeds_and_steps_change_a_batch_alike_and_others_do_not() -> None:
    x, _ = changed(ALL, 3)
    assert torch.equal(x, changed(ALL, 3)[0])
    assert not torch.equal(x, changed(ALL, 4)[0])
    assert not torch.equal(x[0], changed(ALL, 3, (7, 2))[0][0])
    assert torch.equal(x[1], changed(ALL, 3, (7, 2))[0][1])


def test_a_member_is_changed_as_it_would_be_alone_and_one_that_is_off_not_at_all() -> None:
    configs = [ALL, AugmentationConfig(), AugmentationConfig(shift=1)]
    x = images()[:1].expand(3, B, C, H, W)
    together, own = Augmenter(configs, [5, 6, 7], CPU)(x, [9, 9, 9])
    assert own is not None
    assert torch.equal(together[1], x[1])
    for k in (0, 2):
        alone, alone_own = Augmenter([configs[k]], [5 + k], CPU)(x[:1], [9])
        assert torch.equal(together[k], alone[0])
        assert float(own[k]) == (1.0 if alone_own is None else float(alone_own[0]))


def test_nothing_is_made_where_nothing_is_asked_for_and_only_images_are_changed() -> None:
    data = make("tabular", "binary")
    config = cohort_of("mlp", data, 1, 0)[0]
    assert make_augmenter([config], data.spec, CPU) is None
    with pytest.raises(ValueError, match="only images are augmented, but got tabular data"):
        make_augmenter([config.model_copy(update={"augmentation": ALL})], data.spec, CPU)
