"""Cohorts on a GPU: what is true on cores is true there, on an emulated one and, where there is one, on a real one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from pipeline.models import FAMILIES
from pipeline.training.calibration import measure_gains
from pipeline.training.config import AugmentationConfig
from pipeline.training.trainer import Verdict
from tests.training.cohorts import (
    CPU,
    STACKED,
    alone,
    assert_same,
    assert_same_as_alone,
    cohort_of,
    cross_validated,
    make,
    settings,
    together,
)
from tests.training.emulated_gpu import emulated_gpu


@pytest.fixture(params=["emulated", "real"])
def gpu(request: pytest.FixtureRequest, float64: None) -> Iterator[torch.device]:
    if request.param == "emulated":
        with emulated_gpu() as device:
            yield device
    elif torch.cuda.is_available():
        yield torch.device("cuda", 0)
    else:
        pytest.skip("this machine has no GPU")


CASES = [
    (family, kind, task)
    for family in STACKED
    for kind, task in {
        "tabular": "regression", "image": "multiclass", "sequence": "multiclass", "forecast": "forecast",
    }.items()
    if kind in FAMILIES[family].kinds
]  # fmt: skip


@pytest.mark.parametrize(("family", "kind", "task"), CASES)
def test_members_equal_themselves_alone(tmp_path: Path, gpu: torch.device, family: str, kind: str, task: str) -> None:
    data = make(kind, task).to(gpu)
    configs = cohort_of(family, data, 4, 1)
    plan: dict[int, tuple[int, Verdict]] = {1: (2, "prune"), 3: (3, "finish")}
    assert_same_as_alone(configs, data, tmp_path, plan, gpu)


@pytest.mark.parametrize("family", STACKED)
def test_members_go_on_after_a_suspension(tmp_path: Path, gpu: torch.device, family: str) -> None:
    """What was drawn on the GPU goes on there: one member alone, the others in another order with a newcomer."""
    data = make("sequence", "multiclass").to(gpu)
    configs = cohort_of(family, data, 4, 11)
    folder = tmp_path / "cut"
    together(configs[:3], range(3), data, folder, dict.fromkeys(range(3), (2, "suspend")), gpu)
    solo = alone(configs[0], 0, data, folder, {}, gpu)
    rest = together([configs[i] for i in (3, 2, 1)], (3, 2, 1), data, folder, {}, gpu)
    for trial, config in enumerate(configs):
        theirs = alone(config, trial, data, tmp_path / "alone", {}, gpu)
        assert_same(solo if trial == 0 else rest, theirs, trial, folder, tmp_path / "alone")


@pytest.mark.parametrize("family", STACKED)
@pytest.mark.parametrize("to_gpu", [False, True])
def test_members_go_on_where_the_device_is_another(
    tmp_path: Path, gpu: torch.device, family: str, to_gpu: bool
) -> None:
    """A machine with a GPU takes over from one without, or the other way round; dropout starts anew there."""
    data = make("sequence", "multiclass")
    before, after = (CPU, gpu) if to_gpu else (gpu, CPU)
    configs = cohort_of(family, data, 3, 11)
    for folder in ("together", "alone"):
        together(configs, range(3), data.to(before), tmp_path / folder, dict.fromkeys(range(3), (2, "suspend")), before)
    ours = together(configs, range(3), data.to(after), tmp_path / "together", {}, after)
    for trial, config in enumerate(configs):
        theirs = alone(config, trial, data.to(after), tmp_path / "alone", {}, after)
        assert_same(ours, theirs, trial, tmp_path / "together", tmp_path / "alone")


@pytest.mark.parametrize("family", STACKED)
def test_folds_are_members(tmp_path: Path, gpu: torch.device, family: str) -> None:
    data = cross_validated(make("sequence", "multiclass")).to(gpu)
    configs = cohort_of(family, data, 2, 3)
    assert_same_as_alone(configs, data, tmp_path, device=gpu)


@pytest.mark.parametrize("family", STACKED)
def test_images_are_changed_and_classes_weighed(tmp_path: Path, gpu: torch.device, family: str) -> None:
    data = make("image", "multiclass").to(gpu)
    configs = []
    for k, config in enumerate(cohort_of(family, data, 3, 1)):
        update = {"lr": 1e-3, "optimizer": "sgd", "class_weight_power": k / 2, "label_smoothing": 0.1}
        changed = AugmentationConfig(flip="horizontal", shift=k, cutout=2, mixup=0.2 * k)
        chosen = config.optimisation.model_copy(update=update)
        configs.append(config.model_copy(update={"optimisation": chosen, "augmentation": changed}))
    assert_same_as_alone(configs, data, tmp_path, device=gpu)


@pytest.mark.parametrize("family", STACKED)
def test_cohorts_can_be_timed(gpu: torch.device, family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.training.calibration.LONGEST_S", 60.0)  # the emulation is slow
    data = make("image", "multiclass").to(gpu)
    gains = measure_gains(cohort_of(family, data, 1, 0)[0], data, settings(data), gpu, 4)
    assert gains.keys() == {1, 4}


def test_the_emulation_refuses_what_a_gpu_refuses() -> None:
    with emulated_gpu() as gpu:
        there = torch.ones(3, device=gpu)
        with pytest.raises(RuntimeError, match="same device"):
            there + torch.ones(3)
        assert (there + torch.tensor(1.0)).cpu().tolist() == [2, 2, 2]
        with pytest.raises((TypeError, RuntimeError), match="numpy"):
            there.numpy()
