"""Finalists: the best trials by validation score, read once on the sealed test. The test never picks the winner.

Where a score has a standard error, over folds or over seeds, the winner is the smallest model within one of the best
(Breiman et al., Classification and Regression Trees, 1984, section 3.4.3): what is better by less is mostly luck.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from pydantic import BaseModel, ConfigDict
from torch import Tensor

from pipeline.data.identity import KnownRows
from pipeline.data.preprocess import encode_target
from pipeline.data.sealed import SealedTest, unseal
from pipeline.data.slicing import Slicing
from pipeline.data.spec import DataSpec
from pipeline.errors import SearchError
from pipeline.evaluation.calibration import Reliability, reliability
from pipeline.evaluation.champion import Champion, ChampionReading, Model, challenge
from pipeline.evaluation.cost import Cost, measure_cost
from pipeline.evaluation.coverage import Coverage, measure_coverage
from pipeline.evaluation.forecasts import ForecastReading, block_length, read_forecasts
from pipeline.evaluation.intervals import Comparison, Interval, Resampling, score_intervals
from pipeline.evaluation.mistakes import Confusion, Residuals, confusion, residuals
from pipeline.evaluation.pictures import Picture, mistaken
from pipeline.evaluation.slices import Sliced, read_slices
from pipeline.objective import Objective
from pipeline.records import TrialRecord
from pipeline.training.metrics import validation_metrics


class SeedScore(BaseModel):
    """What one seed of a finalist reached in the search's metric."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    validation: float
    test: float


class Finalist(BaseModel):
    """One finalist's validation score and its reading of the sealed test."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    trial: int
    family: str
    validation: float
    """Of the trial; the mean over its seeds where it was trained with several."""
    validation_se: float | None = None
    """Standard error of `validation` over the folds, or else over the seeds; None with neither."""
    n_params: int
    test: dict[str, Interval]
    """Of the trial itself: its model is the one that may be promoted."""
    seeds: tuple[SeedScore, ...] = ()
    """Every seed's own scores, the trial's first; empty where it was trained once."""
    temperature: float = 1.0
    """What the logits are divided by, fitted on the validation part; 1 without calibration."""
    reliability: Reliability | None = None
    """None for regression."""
    coverage: Coverage | None = None
    """What its intervals or sets hold; None where it makes none."""
    cost: Cost | None = None
    sliced: Sliced | None = None
    """None where it was evaluated before there were slices."""

    @property
    def costs(self) -> dict[str, float]:
        """What a gate can bound besides metrics, by the names of `pipeline.objective.COSTS`."""
        costs = {"n_params": float(self.n_params)}
        if self.reliability is not None:
            costs["ece"] = self.reliability.ece
        return costs if self.cost is None else costs | self.cost.model_dump()

    @property
    def score(self) -> str:
        """``0.9743``, or with the standard error over folds or seeds ``0.9743 ± 0.0061``."""
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
    """Why the present champion could not be compared on these rows."""
    champion_reading: ChampionReading | None = None
    confusion: Confusion | None = None
    """Of the winner; None for regression, and for more classes than a person can look at."""
    residuals: Residuals | None = None
    """Of the winner; None for classes and forecasts."""
    mistaken: tuple[Picture, ...] = ()
    """Of images: those of the test that the winner is most wrong about."""
    forecast: ForecastReading | None = None
    """Of the winner; None for other tasks."""

    @property
    def winner(self) -> Finalist:
        """The finalist that validation chose."""
        return self.finalists[0]

    @property
    def choice(self) -> str:
        """Why the winner won, in a sentence."""
        if self.winner.validation_se is None:
            return "The winner has the best validation score."
        return f"The winner is the smallest model within one standard error of the best score {self.over}."

    @property
    def over(self) -> str:
        """Where a validation score comes from."""
        n_seeds = max(len(finalist.seeds) for finalist in self.finalists)
        if n_seeds > 1:
            return f"over {n_seeds} seeds"
        return "on validation" if self.winner.validation_se is None else "in cross-validation"

    @property
    def compared_rows(self) -> str:
        """`` of the 380 of 400 test rows that are new to both``, where there was a comparison; for a sentence's end."""
        reading = self.champion_reading
        if reading is None:
            return ""
        if not reading.known:
            return f" of {reading.n_rows} test rows, some of which the champion may have been trained on"
        return f" of the {reading.n_rows} of {self.n_rows} test rows that are new to both"

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
    ranked = _ranked(complete, objective)
    best_of_family = {record.family: record for record in reversed(ranked)}
    winner = _winner(ranked, objective)
    chosen = {record.number for record in (*ranked[:n], *best_of_family.values())} - {winner.number}
    return (winner, *(record for record in ranked if record.number in chosen))


def over_seeds(
    finalists: Iterable[TrialRecord], again: Mapping[int, Sequence[TrialRecord]], objective: Objective
) -> tuple[TrialRecord, ...]:
    """The finalists with the mean of their scores over seeds, the winner by that first, then the best.

    The standard error is that over the folds where there are folds, since further seeds see the same rows.

    Args:
        again: by trial, what its further seeds brought; those that failed do not count.
    """
    means = []
    for record in finalists:
        scores = [r.objective for r in (record, *again.get(record.number, ())) if r.objective is not None]
        error = record.objective_se
        if error is None and len(scores) > 1:
            error = statistics.stdev(scores) / math.sqrt(len(scores))
        means.append(record.model_copy(update={"objective": statistics.fmean(scores), "objective_se": error}))
    ranked = _ranked(means, objective)
    winner = _winner(ranked, objective)
    return (winner, *(record for record in ranked if record is not winner))


def _ranked(records: Iterable[TrialRecord], objective: Objective) -> list[TrialRecord]:
    return sorted(records, key=lambda r: (objective.rank_key(r.objective or 0.0), r.n_params, r.number))


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
    trained_on: KnownRows | None,
    champion: Champion | None,
    how: Resampling,
    reason: str,
    ledger: Path,
    n_bytes: Mapping[int, int],
    seeds: Mapping[int, Sequence[tuple[float, Model]]] | None = None,
    slicing: Slicing | None = None,
    gated: Sequence[str] = (),
) -> Evaluation:
    """Open the sealed test once, for all finalists and the present champion together; the reading goes to `ledger`.

    Args:
        finalists: the winner first; their objective is what is reported as validation score.
        trained_on: the rows that the finalists were trained and chosen on; None where nobody here knows.
        how: in blocks of rows where the task asks for them, whatever its own say.
        n_bytes: of each finalist's package.
        seeds: by trial, each of its seeds' validation score and model, the trial's own first.
        slicing: how the rows are divided for scores by slice; None for no such scores.
        gated: columns whose slices a gate asks for.
    """
    dataset, target = unseal(sealed, reason, ledger)
    spec = models[finalists[0].number].spec
    encoded, how = encode_target(spec, target), replace(how, block=block_length(dataset, spec))
    outputs = {record.number: models[record.number].outputs(dataset.features) for record in finalists}
    trained = {
        number: [(score, model.outputs(dataset.features)) for score, model in several]
        for number, several in (seeds or {}).items()
    }
    winning, further = outputs[finalists[0].number], trained.get(finalists[0].number, [])[1:]
    read = []
    for record in finalists:
        model, mine = models[record.number], outputs[record.number]
        sliced = None
        if slicing is not None and spec.task != "forecast":  # windows overlap: they are no rows to be divided
            sliced = read_slices(
                mine, dataset.features, encoded, spec, objective, slicing, confidence=how.confidence, keep=gated
            )
        read.append(
            Finalist(
                trial=record.number,
                family=record.family,
                validation=record.objective or 0.0,
                validation_se=record.objective_se,
                n_params=record.n_params,
                test=score_intervals(mine, encoded, spec, how),
                seeds=tuple(
                    SeedScore(validation=score, test=_score(theirs, encoded, spec, objective))
                    for score, theirs in trained.get(record.number, ())
                ),
                temperature=model.temperature,
                reliability=None if spec.is_quantity else reliability(mine, encoded),
                coverage=_coverage(model, mine, encoded, how.confidence),
                cost=measure_cost(model.outputs, dataset.features, n_bytes[record.number]),
                sliced=sliced,
            )
        )
    evaluation = Evaluation(
        metric=objective.metric,
        n_rows=len(target),
        finalists=tuple(read),
        confusion=None if spec.is_quantity else confusion(winning, encoded, spec),
        residuals=residuals(winning, encoded, spec) if spec.task == "regression" else None,
        mistaken=mistaken(winning, encoded, spec, dataset.features),
        forecast=read_forecasts(dataset, winning, encoded, spec, objective, how) if spec.task == "forecast" else None,
    )
    if champion is None:
        return evaluation
    comparison, reading, problem = challenge(
        champion,
        winning,
        trained_on,
        dataset.features,
        encoded,
        spec,
        objective,
        how,
        [outputs_NC for _, outputs_NC in further],
    )
    return evaluation.model_copy(
        update={
            "champion": champion.version,
            "versus_champion": comparison,
            "champion_reading": reading,
            "champion_problem": problem,
        }
    )


def _coverage(model: Model, outputs_NC: Tensor, target_N: Tensor, confidence: float) -> Coverage | None:
    if model.conformal is None:
        return None
    return measure_coverage(model.conformal, outputs_NC, target_N, model.spec, confidence)


def _score(outputs_NC: Tensor, target_N: Tensor, spec: DataSpec, objective: Objective) -> float:
    return float(validation_metrics(outputs_NC[None], target_N, spec)[objective.metric][0])
