"""Finalists: the best trials by validation score, read once on the sealed test. The test never picks the winner.

Under cross-validation the winner is the smallest model within one standard error of the best score (Breiman et al.,
Classification and Regression Trees, 1984, section 3.4.3): what is better by less is mostly luck.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

import torch
from pydantic import BaseModel, ConfigDict
from torch import Tensor

from pipeline.data.dataset import Features
from pipeline.data.preprocess import encode_target
from pipeline.data.sealed import SealedTest, unseal
from pipeline.data.spec import DataSpec
from pipeline.errors import SearchError
from pipeline.evaluation.calibration import Reliability, reliability
from pipeline.evaluation.cost import Cost, measure_cost
from pipeline.evaluation.intervals import Comparison, Interval, compare, score_intervals
from pipeline.evaluation.mistakes import Confusion, Residuals, confusion, residuals
from pipeline.objective import Objective
from pipeline.records import TrialRecord


class Model(Protocol):
    """A loaded model package: raw rows in, outputs out."""

    @property
    def spec(self) -> DataSpec: ...

    @property
    def temperature(self) -> float:
        """What its logits were divided by: 1 where it is not calibrated."""
        ...

    def outputs(self, features: Features) -> Tensor:
        """``(N, n_outputs)``: logits or standardised values."""
        ...


class Finalist(BaseModel):
    """One finalist's validation score and its reading of the sealed test."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    trial: int
    family: str
    validation: float
    validation_se: float | None = None
    """Standard error of `validation` over the folds; None without cross-validation."""
    n_params: int
    test: dict[str, Interval]
    temperature: float = 1.0
    """What the logits are divided by, fitted on the validation part; 1 without calibration."""
    reliability: Reliability | None = None
    """None for regression."""
    cost: Cost | None = None

    @property
    def costs(self) -> dict[str, float]:
        """What a gate can bound besides metrics, by the names of `pipeline.objective.COSTS`."""
        costs = {"n_params": float(self.n_params)}
        if self.reliability is not None:
            costs["ece"] = self.reliability.ece
        return costs if self.cost is None else costs | self.cost.model_dump()

    @property
    def score(self) -> str:
        """``0.9743``, or with the standard error over the folds ``0.9743 ± 0.0061``."""
        error = "" if self.validation_se is None else f" ± {self.validation_se:.4f}"
        return f"{self.validation:.4f}{error}"


class Evaluation(BaseModel):
    """What the sealed test said of a search's finalists: the winner, then the others, best validation score first."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    metric: str
    n_rows: int
    finalists: tuple[Finalist, ...]
    versus_champion: Comparison | None = None
    champion: int | None = None
    """The registry version that the winner was compared with."""
    champion_problem: str | None = None
    """Why the present champion could not be read on these rows."""
    confusion: Confusion | None = None
    """Of the winner; None for regression, and for more classes than a person can look at."""
    residuals: Residuals | None = None
    """Of the winner; None for classes."""

    @property
    def winner(self) -> Finalist:
        """The finalist that validation chose."""
        return self.finalists[0]

    @property
    def choice(self) -> str:
        """Why the winner won, in a sentence."""
        if self.winner.validation_se is None:
            return "The winner has the best validation score."
        return "The winner is the smallest model within one standard error of the best cross-validated score."

    @property
    def optimism(self) -> float:
        """Validation minus sealed test of the winner: what choosing the best of many trials flatters by."""
        return self.winner.validation - self.winner.test[self.metric].value


def choose_finalists(records: Iterable[TrialRecord], objective: Objective, n: int) -> tuple[TrialRecord, ...]:
    """The winner, then the `n` best completed trials and the best one of every family, best first; ties go to the
    smaller model. Trials that repeat another one's result are that one.

    Raises:
        SearchError: no trial completed.
    """
    complete = [r for r in records if r.state == "COMPLETE" and r.objective is not None and r.duplicate_of is None]
    if not complete:
        raise SearchError(
            "no trial completed, so there is nothing to evaluate; see `automl leaderboard` for the reasons"
        )
    ranked = sorted(complete, key=lambda r: (objective.rank_key(r.objective or 0.0), r.n_params, r.number))
    best_of_family = {record.family: record for record in reversed(ranked)}
    winner = _winner(ranked, objective)
    chosen = {record.number for record in (*ranked[:n], *best_of_family.values())} - {winner.number}
    return (winner, *(record for record in ranked if record.number in chosen))


def _winner(ranked: Sequence[TrialRecord], objective: Objective) -> TrialRecord:
    """The first, or by the one-standard-error rule the smallest that is not clearly worse."""
    best = ranked[0]
    if best.objective_se is None:
        return best
    limit = objective.rank_key(best.objective or 0.0) + best.objective_se
    close = [record for record in ranked if objective.rank_key(record.objective or 0.0) <= limit]
    return min(close, key=lambda record: record.n_params)


def evaluate(
    finalists: Sequence[TrialRecord],
    models: Mapping[int, Model],
    sealed: SealedTest,
    objective: Objective,
    *,
    champion: tuple[int, Model] | None,
    confidence: float,
    n_resamples: int,
    seed: int,
    reason: str,
    ledger: Path,
    n_bytes: Mapping[int, int],
) -> Evaluation:
    """Open the sealed test once, for all finalists and the present champion together; the reading goes to `ledger`.

    Args:
        n_bytes: of each finalist's package.
    """
    dataset, target = unseal(sealed, reason, ledger)
    outputs = {record.number: models[record.number].outputs(dataset.features) for record in finalists}
    spec = models[finalists[0].number].spec
    encoded = encode_target(spec, target)
    read = tuple(
        Finalist(
            trial=record.number,
            family=record.family,
            validation=record.objective or 0.0,
            validation_se=record.objective_se,
            n_params=record.n_params,
            test=score_intervals(
                outputs[record.number], encoded, spec, confidence=confidence, n_resamples=n_resamples, seed=seed
            ),
            temperature=models[record.number].temperature,
            reliability=None if spec.task == "regression" else reliability(outputs[record.number], encoded),
            cost=measure_cost(models[record.number].outputs, dataset.features, n_bytes[record.number]),
        )
        for record in finalists
    )
    winning = outputs[finalists[0].number]
    evaluation = Evaluation(
        metric=objective.metric,
        n_rows=len(target),
        finalists=read,
        confusion=None if spec.task == "regression" else confusion(winning, encoded, spec),
        residuals=residuals(winning, encoded, spec) if spec.task == "regression" else None,
    )
    if champion is None:
        return evaluation
    version, model = champion
    problem = incomparable(model.spec, spec)
    if problem is not None:
        return evaluation.model_copy(update={"champion": version, "champion_problem": problem})
    theirs = _in_units_of(spec, model.spec, model.outputs(dataset.features))
    comparison = compare(
        outputs[finalists[0].number],
        theirs,
        encoded,
        spec,
        objective,
        confidence=confidence,
        n_resamples=n_resamples,
        seed=seed,
    )
    return evaluation.model_copy(update={"champion": version, "versus_champion": comparison})


def incomparable(theirs: DataSpec, ours: DataSpec) -> str | None:
    """Why two models cannot be scored on the same rows; None where they can."""
    if theirs.kind != ours.kind or theirs.task != ours.task:
        return f"it is a {theirs.kind} {theirs.task} model, the data is {ours.kind} {ours.task}"
    if set(theirs.labels) != set(ours.labels):
        return f"it knows the labels {list(theirs.labels)[:8]}, the data has {list(ours.labels)[:8]}"
    return None


def _in_units_of(ours: DataSpec, theirs: DataSpec, outputs_NC: Tensor) -> Tensor:
    """Another model's outputs in our order of labels, or in our standardisation of the target."""
    if ours.task == "regression":
        return (outputs_NC * theirs.target_scale + theirs.target_mean - ours.target_mean) / ours.target_scale
    order = torch.tensor([theirs.labels.index(label) for label in ours.labels])
    return outputs_NC[:, order]
