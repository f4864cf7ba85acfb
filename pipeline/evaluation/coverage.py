"""Conformal intervals and sets on the test rows: how many hold the truth, and how large they are. Axis: N rows."""

from __future__ import annotations

from statistics import NormalDist

from pydantic import BaseModel, ConfigDict
from torch import Tensor

from pipeline.data.spec import DataSpec
from pipeline.errors import ConfigError
from pipeline.evaluation.intervals import Interval, wilson
from pipeline.packaging.conformal import Conformal, rows_needed


class Coverage(BaseModel):
    """What conformal intervals or sets are worth on the test rows."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    level: float
    """Share of rows that were to be held."""
    held: Interval
    """Share of rows that are."""
    size: Interval
    """Mean number of labels in a set, or mean width of an interval in the target's units."""
    unit: str
    """``labels`` or ``wide``: what a size counts."""

    @property
    def story(self) -> str:
        """``sets were to hold 0.9 of the rows and hold 0.9120 [0.9000, 0.9230], with 1.2 [1.1, 1.3] labels.``"""
        what = "intervals" if self.unit == "wide" else "sets"
        size = f"{self.size.value:,.4g} {self.unit}" if self.unit == "wide" else f"with {self.size} {self.unit}"
        return f"{what} were to hold {self.level:.4g} of the rows and hold {self.held}, {size}."


def check_conformal(level: float | None, spec: DataSpec) -> None:
    """Whether there are rows to fit on, before anything is trained.

    Raises:
        ConfigError: there are none, or too few.
    """
    if level is None:
        return
    if spec.task == "forecast":
        raise ConfigError("`evaluate.conformal` has no intervals for forecasts", "leave it out")
    if spec.n_folds:
        raise ConfigError(
            f"`evaluate.conformal` needs a validation part that was not trained on, but in {spec.n_folds} folds every "
            "row is",
            "set data.split.by to stratified or random, or leave it out",
        )
    if spec.n_validation < rows_needed(level):
        raise ConfigError(
            f"`evaluate.conformal: {level:g}` needs >= {rows_needed(level)} validation rows, but there are "
            f"{spec.n_validation}",
            "lower it, or raise data.split.validation",
        )


def measure_coverage(
    conformal: Conformal, outputs_NC: Tensor, target_N: Tensor, spec: DataSpec, confidence: float
) -> Coverage:
    """Wilson's interval for the share that is held, the normal one for the mean size."""
    if spec.task == "regression":
        low_N, high_N = conformal.interval(outputs_NC, spec)
        true_N = target_N.double() * spec.target_scale + spec.target_mean
        held_N, size_N = (low_N <= true_N) & (true_N <= high_N), high_N - low_N
    else:
        sets_NC = conformal.sets(outputs_NC)
        held_N, size_N = sets_NC.gather(1, target_N[:, None])[:, 0], sets_NC.sum(1).double()
    mean = float(size_N.mean())
    deviation = float(size_N.std(correction=1)) if len(size_N) > 1 else 0.0
    half = NormalDist().inv_cdf((1 + confidence) / 2) * deviation / len(size_N) ** 0.5
    return Coverage(
        level=conformal.level,
        held=wilson(float(held_N.double().mean()), len(held_N), confidence),
        size=Interval(value=mean, low=mean - half, high=mean + half, confidence=confidence),
        unit="wide" if spec.task == "regression" else "labels",
    )
