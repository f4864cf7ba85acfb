"""A cohort's members train exactly as they would alone: float64, to 1e-9, whatever their company."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.models import FAMILIES
from pipeline.training.config import AugmentationConfig
from pipeline.training.trainer import Verdict
from search_spaces import SPACES
from tests.helpers import RandomSuggester
from tests.training.cohorts import STACKED, alone, assert_same, assert_same_as_alone, cohort_of, make, together

pytestmark = pytest.mark.usefixtures("float64")


CASES = [
    (family, kind, task, seed)
    for family in STACKED
    for kind in ("tabular", "image", "sequence", "forecast")
    for task in (("multiclass", "regression") if kind != "forecast" else ("forecast",))
    if kind in FAMILIES[family].kinds
    for seed in range(2 if kind == "forecast" else 6)  # a sequence, but for its outputs
]


@pytest.mark.parametrize(("family", "kind", "task", "seed"), CASES)
def test_members_equal_themselves_alone(tmp_path: Path, family: str, kind: str, task: str, seed: int) -> None:
    """With padded widths, one member pruned and one finished in the middle, and the others going on without them."""
    data = make(kind, task)
    configs = cohort_of(family, data, 5, seed)
    plan: dict[int, tuple[int, Verdict]] = {1: (2, "prune"), 3: (3, "finish")}
    assert_same_as_alone(configs, data, tmp_path, plan)


@pytest.mark.parametrize(("family", "kind", "task"), sorted({case[:3] for case in CASES}))
def test_what_a_cohort_computes_once_does_not_differ_in_it(family: str, kind: str, task: str) -> None:
    """Widths are padded and dropout is drawn for each member; every other choice of a model's makes another class."""
    spec, stack = make(kind, task).spec, FAMILIES[family].stack
    assert stack is not None
    first, *others = (SPACES[family](RandomSuggester(seed), spec) for seed in range(30))
    for name in type(first).model_fields.keys() - {"width", "dropout"}:
        for value in {getattr(other, name) for other in others} - {getattr(first, name)}:
            changed = first.model_copy(update={name: value})
            assert stack.shape_class(changed, spec) != stack.shape_class(first, spec), name


@pytest.mark.parametrize("family", STACKED)
def test_l1_pulls_each_member_by_its_own_strength(tmp_path: Path, family: str) -> None:
    """With a rate at which no weight reaches 0, where the sign would be a matter of rounding."""
    data = make("image", "multiclass")
    configs = []
    for config, l1 in zip(cohort_of(family, data, 3, 2), (0.0, 1e-3, 1e-1), strict=True):
        chosen = config.optimisation.model_copy(update={"l1": l1, "lr": 1e-6, "optimizer": "sgd", "warmup": 0.0})
        configs.append(config.model_copy(update={"optimisation": chosen}))
    assert_same_as_alone(configs, data, tmp_path)


@pytest.mark.parametrize("family", STACKED)
def test_classes_weigh_as_each_member_says(tmp_path: Path, family: str) -> None:
    data = make("image", "multiclass")
    configs = []
    for config, power in zip(cohort_of(family, data, 3, 2), (0.0, 0.5, 1.0), strict=True):
        chosen = config.optimisation.model_copy(
            update={"class_weight_power": power, "lr": 1e-3, "optimizer": "sgd", "label_smoothing": 0.1}
        )
        configs.append(config.model_copy(update={"optimisation": chosen}))
    ours = together(configs, range(3), data, tmp_path / "together", {})
    for trial, config in enumerate(configs):
        theirs = alone(config, trial, data, tmp_path / "alone", {})
        assert_same(ours, theirs, trial, tmp_path / "together", tmp_path / "alone")
        unweighted = config.model_copy(
            update={"optimisation": config.optimisation.model_copy(update={"class_weight_power": 0.0})}
        )
        other = alone(unweighted, trial, data, tmp_path / "unweighted", {})
        same = other.curves[trial][-1].train_loss == theirs.curves[trial][-1].train_loss
        assert same == (config.optimisation.class_weight_power == 0.0)


AUGMENTED = (
    AugmentationConfig(),
    AugmentationConfig(flip="horizontal", shift=2),
    AugmentationConfig(cutout=4, mixup=0.4),
    AugmentationConfig(flip="horizontal", shift=1, cutout=2, mixup=1.0),
)


@pytest.mark.parametrize("family", STACKED)
@pytest.mark.parametrize("task", ["multiclass", "regression"])
def test_members_change_their_images_as_they_would_alone_and_after_a_suspension(
    tmp_path: Path, family: str, task: str
) -> None:
    data = make("image", task)
    configs = []
    for config, augmentation in zip(cohort_of(family, data, 4, 1), AUGMENTED, strict=True):
        chosen = config.optimisation.model_copy(update={"lr": 1e-3, "optimizer": "sgd", "class_weight_power": 0.5})
        configs.append(config.model_copy(update={"optimisation": chosen, "augmentation": augmentation}))
    folder = tmp_path / "together"
    together(configs, range(4), data, folder, {0: (1, "prune"), 2: (2, "suspend"), 3: (2, "suspend")})
    ours = together([configs[3], configs[2]], (3, 2), data, folder, {})
    for trial in (2, 3):
        theirs = alone(configs[trial], trial, data, tmp_path / "alone", {})
        assert_same(ours, theirs, trial, folder, tmp_path / "alone")
        plain = configs[trial].model_copy(update={"augmentation": AugmentationConfig()})
        other = alone(plain, trial, data, tmp_path / "plain", {})
        assert other.curves[trial][-1].train_loss != theirs.curves[trial][-1].train_loss


@pytest.mark.parametrize("family", STACKED)
def test_members_go_on_after_a_suspension_in_any_company(tmp_path: Path, family: str) -> None:
    """Suspended in a cohort; then one goes on alone and the others in another order with a newcomer."""
    data = make("image", "multiclass")
    configs = cohort_of(family, data, 5, 11)
    folder = tmp_path / "cut"
    together(configs[:4], range(4), data, folder, dict.fromkeys(range(4), (2, "suspend")))
    solo = alone(configs[0], 0, data, folder, {})
    rest = together([configs[i] for i in (3, 4, 1, 2)], (3, 4, 1, 2), data, folder, {})
    for trial, config in enumerate(configs):
        theirs = alone(config, trial, data, tmp_path / "alone", {})
        assert_same(solo if trial == 0 else rest, theirs, trial, folder, tmp_path / "alone")


@pytest.mark.parametrize("family", STACKED)
def test_a_member_that_diverges_takes_nobody_along(tmp_path: Path, family: str) -> None:
    data = make("image", "multiclass")
    configs = cohort_of(family, data, 3, 5)
    wild = configs[1].optimisation.model_copy(
        update={"optimizer": "sgd", "lr": 1e300, "momentum": 0.9, "clip_norm": None}
    )
    configs[1] = configs[1].model_copy(update={"optimisation": wild})
    ours = together(configs, range(3), data, tmp_path / "together", {})
    assert ours.outcomes[1].state == "FAIL"
    assert (ours.outcomes[1].error or "").startswith("non_finite")
    for trial in (0, 2):
        theirs = alone(configs[trial], trial, data, tmp_path / "alone", {})
        assert_same(ours, theirs, trial, tmp_path / "together", tmp_path / "alone")
