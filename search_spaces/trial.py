"""A whole trial from a suggester: which family, its architecture, how it is optimised, what is done to its images."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from pipeline.data.spec import DataSpec, Kind
from pipeline.models import FAMILIES
from pipeline.models.base import ModelConfig
from pipeline.training.config import TrialConfig
from search_spaces.augmentation import augmentation_params, default_augmentation, suggest_augmentation
from search_spaces.cnn import suggest_cnn
from search_spaces.lstm import suggest_lstm
from search_spaces.mlp import suggest_mlp
from search_spaces.optimisation import default_optimisation, optimisation_params, suggest_optimisation
from search_spaces.suggester import FixedSuggester, Suggester, Value

SPACES: Final[dict[str, Callable[[Suggester, DataSpec], ModelConfig]]] = {
    "mlp": suggest_mlp,
    "cnn": suggest_cnn,
    "lstm": suggest_lstm,
}
"""Architecture space of every family. A parameter is named ``<family>.<field>`` after the config field it sets."""

_PREFERRED: Final[dict[Kind, tuple[str, ...]]] = {
    "tabular": ("mlp",),
    "image": ("cnn", "mlp", "lstm"),
    "sequence": ("lstm", "cnn", "mlp"),
    "forecast": ("mlp", "lstm", "cnn"),
    "text": ("mlp", "lstm", "cnn"),
}


def families_for(kind: Kind) -> tuple[str, ...]:
    """The families that accept a kind of data, the likeliest first."""
    fitting = [name for name, family in FAMILIES.items() if kind in family.kinds and name in SPACES]
    first = _PREFERRED[kind]
    return tuple(sorted(fitting, key=lambda name: first.index(name) if name in first else len(first)))


def suggest_trial(s: Suggester, spec: DataSpec, families: Sequence[str], seed: int) -> TrialConfig:
    """A trial of one of the families. ``family`` is a parameter only where there is a choice."""
    family = s.choice("family", tuple(families)) if len(families) > 1 else families[0]
    return TrialConfig(
        family=family,
        model=SPACES[family](s, spec),
        optimisation=suggest_optimisation(s, spec, family),
        augmentation=suggest_augmentation(s, spec),
        seed=seed,
    )


def default_params(family: str, spec: DataSpec, families: Sequence[str]) -> dict[str, Value]:
    """The parameters under which `suggest_trial` gives the family's default: what a search can enqueue first."""
    model = {f"{family}.{field}": value for field, value in FAMILIES[family].default(spec)}
    optimisation = optimisation_params(default_optimisation(spec, family))
    augmentation = augmentation_params(default_augmentation(spec))
    fixed = FixedSuggester({"family": family, **model, **optimisation, **augmentation})
    suggest_trial(fixed, spec, families, 0)
    return fixed.asked


def default_trial(family: str, spec: DataSpec, seed: int) -> TrialConfig:
    """The family's strong default for a data set: a point of the space like any other."""
    return suggest_trial(FixedSuggester(default_params(family, spec, (family,))), spec, (family,), seed)
