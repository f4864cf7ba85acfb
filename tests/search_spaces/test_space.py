"""The built-in space: defaults are points of it, names are known beforehand, and a new family fits in."""

from __future__ import annotations

from typing import Annotated

import optuna
import pytest
import torch
from pydantic import Field
from torch import Tensor, nn

from pipeline.data.spec import DataSpec, Kind
from pipeline.data.tensors import Inputs
from pipeline.models import FAMILIES
from pipeline.models.base import Family, Model, ModelConfig
from pipeline.search.study import OptunaSuggester
from search_spaces import (
    SPACES,
    FixedSuggester,
    Narrowed,
    Options,
    Suggester,
    check_overrides,
    default_params,
    default_trial,
    families_for,
    parameter_names,
    suggest_trial,
)
from tests.helpers import RandomSuggester
from tests.models.examples import SPECS, make_batch, regression

CASES = [
    pytest.param(name, spec, id=f"{name}-{spec.kind}-{spec.task}-{spec.n_train}")
    for kind in SPECS
    for spec in (SPECS[kind], regression(SPECS[kind]), SPECS[kind].model_copy(update={"n_train": 100_000}))
    for name in families_for(kind)
]
each_kind = pytest.mark.parametrize("kind", list(SPECS))


@pytest.mark.parametrize(
    ("kind", "families"),
    [
        ("tabular", ("mlp",)),
        ("image", ("cnn", "mlp", "lstm")),
        ("sequence", ("lstm", "cnn", "mlp")),
        ("text", ("mlp", "lstm", "cnn")),
    ],
)
def test_each_kind_has_its_families_the_likeliest_first(kind: Kind, families: tuple[str, ...]) -> None:
    assert families_for(kind) == families


@pytest.mark.parametrize(("name", "spec"), CASES)
def test_the_default_trial_has_the_family_s_default_model(name: str, spec: DataSpec) -> None:
    trial = default_trial(name, spec, 7)
    assert trial.model == FAMILIES[name].default(spec)
    assert (trial.family, trial.seed) == (name, 7)


@pytest.mark.parametrize(("name", "spec"), CASES)
def test_an_enqueued_default_is_what_the_study_suggests_first(name: str, spec: DataSpec) -> None:
    families = families_for(spec.kind)
    params = default_params(name, spec, families)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    study.enqueue_trial(params)
    trial = study.ask()
    config = suggest_trial(OptunaSuggester(trial), spec, families, 7)
    assert config == default_trial(name, spec, 7)
    assert trial.params == params


@each_kind
def test_every_parameter_of_a_trial_is_known_beforehand_with_its_range(kind: Kind) -> None:
    spec, families = SPECS[kind], families_for(kind)
    known = parameter_names(spec, families)
    met = set()
    for seed in range(300):
        random = RandomSuggester(seed)
        suggest_trial(random, spec, families, seed)
        met |= random.asked.keys()
        for name, value in random.asked.items():
            assert value in known[name], name
    # 300 draws miss a parameter of one optimiser in four and one family in three with odds of (11/12)^300 < 1e-11.
    assert met == known.keys()


@each_kind
def test_options_are_of_one_type_and_differ(kind: Kind) -> None:
    for name, allowed in parameter_names(SPECS[kind], families_for(kind)).items():
        if isinstance(allowed, Options):
            assert len({type(value) for value in allowed.values}) == 1, name
            assert len(set(allowed.values)) == len(allowed.values), name


def test_the_family_is_a_parameter_only_where_there_is_a_choice() -> None:
    assert "family" not in parameter_names(SPECS["image"], ("mlp",))
    assert parameter_names(SPECS["image"], ("cnn", "mlp"))["family"] == Options(("cnn", "mlp"))


def test_losses_fit_the_task() -> None:
    classes = parameter_names(SPECS["tabular"], ("mlp",))
    numbers = parameter_names(regression(SPECS["tabular"]), ("mlp",))
    assert classes["loss.name"] == Options(("cross_entropy", "focal"))
    assert numbers["loss.name"] == Options(("mse", "huber", "mae"))
    assert "loss.label_smoothing" not in numbers


def test_class_weights_are_searched_where_classes_are_imbalanced() -> None:
    spec = SPECS["tabular"]
    counts = (60, 21, *(20,) * (len(spec.labels) - 2))
    assert "loss.class_weight_power" not in parameter_names(spec, ("mlp",))
    assert "loss.class_weight_power" not in parameter_names(
        spec.model_copy(update={"class_counts": (9,) * 3}), ("mlp",)
    )
    imbalanced = parameter_names(spec.model_copy(update={"class_counts": counts}), ("mlp",))
    assert imbalanced["loss.class_weight_power"] == Options((0.0, 0.5, 1.0))


def test_images_may_be_shifted_covered_and_mixed_by_their_size() -> None:
    large = SPECS["image"].model_copy(update={"height": 32, "width": 40})
    names = parameter_names(large, families_for("image"))
    assert names["augment.shift"] == Options((0, 1, 2, 4))
    assert names["augment.cutout"] == Options((0, 8, 16))
    assert names["augment.mixup"] == Options((0.0, 0.2, 1.0))
    digits = parameter_names(large.model_copy(update={"height": 8}), families_for("image"))
    assert digits["augment.shift"] == Options((0, 1))
    assert "augment.mixup" not in parameter_names(regression(large), families_for("image"))
    assert not [name for name in parameter_names(SPECS["sequence"], families_for("sequence")) if "augment" in name]


def test_images_are_mirrored_only_where_the_file_says_so() -> None:
    spec, families = SPECS["image"], families_for("image")

    def flips(space: dict[str, object]) -> set[str]:
        check_overrides(space, spec, families)
        trials = [suggest_trial(Narrowed(RandomSuggester(seed), space), spec, families, seed) for seed in range(60)]
        return {trial.augmentation.flip for trial in trials}

    assert flips({}) == {"none"}
    assert flips({"augment.flip": "horizontal"}) == {"horizontal"}
    assert flips({"augment.flip": ["none", "horizontal"]}) == {"none", "horizontal"}  # missing one: odds of 2^-59


def test_sgd_has_a_rate_of_its_own() -> None:
    asked = default_params("mlp", SPECS["tabular"], ("mlp",))
    adaptive = asked.pop("optimizer.lr")
    values = {**asked, "optimizer.name": "sgd", "optimizer.sgd_lr": 0.1, "optimizer.momentum": 0.9}
    optimisation = suggest_trial(FixedSuggester(values), SPECS["tabular"], ("mlp",), 0).optimisation
    assert (optimisation.optimizer, optimisation.lr, optimisation.momentum) == ("sgd", 0.1, 0.9)
    assert adaptive != 0.1


def test_no_clipping_is_zero() -> None:
    params = default_params("mlp", SPECS["tabular"], ("mlp",))
    trials = {
        clip: suggest_trial(FixedSuggester({**params, "train.clip_norm": clip}), SPECS["tabular"], ("mlp",), 0)
        for clip in (0.0, 1.0)
    }
    assert {clip: trial.optimisation.clip_norm for clip, trial in trials.items()} == {0.0: None, 1.0: 1.0}


@pytest.mark.parametrize(("n_train", "smallest"), [(150, 16), (20_000, 64), (500_000, 128)])
def test_larger_data_is_searched_with_larger_batches(n_train: int, smallest: int) -> None:
    spec = SPECS["tabular"].model_copy(update={"n_train": n_train})
    sizes = parameter_names(spec, ("mlp",))["train.batch_size"]
    assert isinstance(sizes, Options)
    assert min(sizes.values) == smallest


def test_a_fixed_value_must_be_there_and_in_range() -> None:
    with pytest.raises(ValueError, match=r"asks for mlp.n_layers, an integer from 1 to 6, and no value"):
        suggest_trial(FixedSuggester({}), SPECS["image"], ("mlp",), 0)
    params = default_params("mlp", SPECS["image"], ("mlp",))
    with pytest.raises(ValueError, match=r"mlp.n_layers must be an integer from 1 to 6, but is fixed to 7"):
        suggest_trial(FixedSuggester({**params, "mlp.n_layers": 7}), SPECS["image"], ("mlp",), 0)


class MeanConfig(ModelConfig):
    """A toy family: a linear model of the pixels' means."""

    scale: Annotated[float, Field(ge=0, le=10)] = 1.0


class Mean(Model):
    def __init__(self, config: MeanConfig, spec: DataSpec) -> None:
        super().__init__()
        self.scale = config.scale
        self.head = nn.Linear(spec.channels, spec.n_outputs)

    def forward(self, inputs: Inputs) -> Tensor:
        out: Tensor = self.head(inputs.x.mean((2, 3)) * self.scale)
        return out


def suggest_mean(s: Suggester, spec: DataSpec) -> MeanConfig:
    return MeanConfig(scale=s.number("mean.scale", 0.1, 10.0, log=True))


def test_a_family_is_added_with_one_entry_in_each_table(monkeypatch: pytest.MonkeyPatch) -> None:
    family = Family("mean", frozenset({"image"}), MeanConfig, Mean, lambda spec: MeanConfig(scale=2.0))
    monkeypatch.setitem(FAMILIES, "mean", family)
    monkeypatch.setitem(SPACES, "mean", suggest_mean)
    spec = SPECS["image"]
    assert families_for("image") == ("cnn", "mlp", "lstm", "mean")
    assert families_for("tabular") == ("mlp",)
    families = ("mlp", "mean")
    assert parameter_names(spec, families)["family"] == Options(families)
    assert default_trial("mean", spec, 0).model == MeanConfig(scale=2.0)
    assert default_params("mean", spec, families)["mean.scale"] == 2.0
    trial = suggest_trial(RandomSuggester(0, {"family": "mean"}), spec, families, 0)
    assert type(trial).model_validate_json(trial.model_dump_json()) == trial
    torch.manual_seed(0)
    assert family.build(trial.model, spec)(make_batch(spec).inputs).shape == (16, 3)


def test_a_parameter_is_found_that_depends_on_one_that_depends_on_another(monkeypatch: pytest.MonkeyPatch) -> None:
    def nested(s: Suggester, spec: DataSpec) -> MeanConfig:
        if s.choice("mean.scaled", (False, True)) and s.integer("mean.digits", 0, 3) > 0:
            return MeanConfig(scale=s.number("mean.scale", 0.1, 10.0))
        return MeanConfig()

    family = Family("mean", frozenset({"image"}), MeanConfig, Mean, lambda spec: MeanConfig())
    monkeypatch.setitem(FAMILIES, "mean", family)
    monkeypatch.setitem(SPACES, "mean", nested)
    assert "mean.scale" in parameter_names(SPECS["image"], ("mlp", "mean"))


def test_one_name_with_two_ranges_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Optuna would silently keep the first range."""

    def ambiguous(s: Suggester, spec: DataSpec) -> MeanConfig:
        return MeanConfig(scale=s.number("mean.scale", 0.1, 10.0) + s.number("mean.scale", 0.1, 1.0))

    family = Family("mean", frozenset({"image"}), MeanConfig, Mean, lambda spec: MeanConfig())
    monkeypatch.setitem(FAMILIES, "mean", family)
    monkeypatch.setitem(SPACES, "mean", ambiguous)
    with pytest.raises(ValueError, match=r"mean.scale is a number from 0.1 to 10 and a number from 0.1 to 1"):
        parameter_names(SPECS["image"], ("mean",))
