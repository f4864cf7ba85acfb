"""The winner against the present champion, on rows of the sealed test that are new to both.

Data grows between two searches, and rows may come to other parts: a champion that was trained on a row of today's test
would look better than it is.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from pydantic import BaseModel, ConfigDict
from torch import Tensor

from pipeline.data.dataset import Features, take
from pipeline.data.identity import KnownRows
from pipeline.data.spec import DataSpec
from pipeline.evaluation.intervals import Comparison, Interval, Resampling, compare, score_intervals
from pipeline.objective import Objective
from pipeline.packaging.conformal import Conformal


class Model(Protocol):
    """A loaded model package: raw rows in, outputs out."""

    @property
    def spec(self) -> DataSpec: ...

    @property
    def temperature(self) -> float:
        """What its logits were divided by: 1 where it is not calibrated."""
        ...

    @property
    def conformal(self) -> Conformal | None:
        """How it makes intervals or sets; None where it does not."""
        ...

    def outputs(self, features: Features) -> Tensor:
        """``(N, n_outputs)``: logits or standardised values."""
        ...


@dataclass(frozen=True, slots=True)
class Champion:
    """The present champion."""

    version: int
    model: Model
    trained_on: KnownRows | None
    """The rows that it was trained and chosen on; None where nobody here knows."""


class ChampionReading(BaseModel):
    """What the champion scores on the compared rows."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    test: dict[str, Interval]
    n_rows: int
    """Rows of the test that neither model was trained or chosen on."""
    known: bool
    """Whether it is known what both were trained on. Where it is not, the champion may have seen some of these rows,
    which can only be to its advantage: nothing is promoted by that."""


def challenge(
    champion: Champion,
    challenger_NC: Tensor,
    trained_on: KnownRows | None,
    features: Features,
    target_N: Tensor,
    spec: DataSpec,
    objective: Objective,
    how: Resampling,
    again: Sequence[Tensor] = (),
) -> tuple[Comparison | None, ChampionReading | None, str | None]:
    """Compare on the test rows that are new to both.

    Args:
        challenger_NC: the winner's outputs for `features`.
        trained_on: the rows that the winner was trained and chosen on.
        spec: the winner's; `target_N` is encoded by it.
        again: the outputs of the winner's further seeds.

    Returns:
        The comparison and the champion's reading; or why there is none.
    """
    problem = incomparable(champion.model.spec, spec)
    if problem is not None:
        return None, None, problem
    seen = [None if known is None else known.among(features) for known in (trained_on, champion.trained_on)]
    rows = np.flatnonzero(~_any(seen, len(target_N)))
    if len(rows) == 0:
        return None, None, f"none of the {len(target_N)} test rows is new to both"
    at = torch.from_numpy(rows)
    theirs = _in_units_of(spec, champion.model.spec, champion.model.outputs(take(features, rows)))
    ours, target = challenger_NC[at], target_N[at]
    scores = score_intervals(theirs, target, spec, how)
    if objective.metric not in scores or not math.isfinite(scores[objective.metric].value):
        return None, None, f"{objective.metric} is undefined on the {len(rows)} test rows that are new to both"
    comparison = compare(ours, theirs, target, spec, objective, how, [outputs_NC[at] for outputs_NC in again])
    reading = ChampionReading(test=scores, n_rows=len(rows), known=all(mask is not None for mask in seen))
    return comparison, reading, None


def incomparable(theirs: DataSpec, ours: DataSpec) -> str | None:
    """Why two models cannot be scored on the same rows; None where they can."""
    if theirs.kind != ours.kind or theirs.task != ours.task:
        return f"it is a {theirs.kind} {theirs.task} model, the data is {ours.kind} {ours.task}"
    if ours.task == "forecast":
        asked = [(spec.n_steps, spec.n_features, spec.horizon, spec.season) for spec in (theirs, ours)]
        if asked[0] != asked[1]:
            said = [f"{h} steps from {n} with {d} values each and a season of {m}" for n, d, h, m in asked]
            return f"it forecasts {said[0]}, the data asks for {said[1]}"
    if set(theirs.labels) != set(ours.labels):
        return f"it knows the labels {list(theirs.labels)[:8]}, the data has {list(ours.labels)[:8]}"
    return None


def _any(masks: list[npt.NDArray[np.bool_] | None], n: int) -> npt.NDArray[np.bool_]:
    result: npt.NDArray[np.bool_] = np.zeros(n, dtype=np.bool_)
    for mask in masks:
        if mask is not None:
            result |= mask
    return result


def _in_units_of(ours: DataSpec, theirs: DataSpec, outputs_NC: Tensor) -> Tensor:
    """Another model's outputs in our order of labels, or in our standardisation of the target."""
    if ours.is_quantity:
        return (outputs_NC * theirs.target_scale + theirs.target_mean - ours.target_mean) / ours.target_scale
    order = torch.tensor([theirs.labels.index(label) for label in ours.labels])
    return outputs_NC[:, order]
