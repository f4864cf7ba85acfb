"""The evaluation stage: finalists read once on the sealed test, and their runs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from flows.stages.experiment import Experiment, check_against_data
from flows.stores import Stores
from flows.workspace import Workspace
from pipeline.data.prepare import Prepared
from pipeline.evaluation.calibration import fit_temperature
from pipeline.evaluation.finalists import Evaluation, choose_finalists, evaluate
from pipeline.evaluation.intervals import Interval
from pipeline.files import write_atomic
from pipeline.packaging.package import write_trial_package
from pipeline.packaging.predictor import Predictor
from pipeline.packaging.verify import load_package
from pipeline.records import TrialRecord, read_records, trial_directory
from pipeline.registry.base import ModelRegistry, ModelVersion
from pipeline.registry.loading import load_version
from pipeline.search.directory import (
    SearchState,
)
from pipeline.tracking.base import FinalistInfo

EVALUATION = "evaluation.json"
CALIBRATED = "package-calibrated"


def package_trial(workspace: Workspace, prepared: Prepared, record: TrialRecord) -> Path:
    """The model package of a completed trial, made when it is first asked for."""
    directory = trial_directory(workspace.search(record.search), record.number)
    return write_trial_package(directory / "package", record, directory, prepared)


def package_finalist(workspace: Workspace, prepared: Prepared, record: TrialRecord, *, calibrate: bool) -> Path:
    """A finalist's package: the trial's, or one beside it with a temperature that the validation part asks for."""
    package = package_trial(workspace, prepared, record)
    if not calibrate or prepared.spec.task == "regression" or prepared.spec.n_folds:
        return package
    validation = prepared.development().validation
    temperature = fit_temperature(load_package(package).logits(validation.inputs), validation.target)
    directory = trial_directory(workspace.search(record.search), record.number)
    return write_trial_package(directory / CALIBRATED, record, directory, prepared, temperature)


@dataclass(frozen=True, slots=True)
class Evaluated:
    """An evaluation, and the runs of its finalists by trial."""

    evaluation: Evaluation
    runs: dict[int, str]


def evaluate_stage(
    experiment: Experiment,
    prepared: Prepared,
    state: SearchState,
    stores: Stores,
) -> Evaluated:
    """Read the sealed test once for the finalists of a finished search, and log their runs."""
    config, workspace = experiment.config, experiment.workspace
    directory = workspace.search(state.id)
    objective = check_against_data(config, prepared).objective
    records = list(read_records(directory))
    finalists = choose_finalists(records, objective, config.evaluate.finalists)
    calibrate = config.evaluate.calibrate
    packages = {r.number: package_finalist(workspace, prepared, r, calibrate=calibrate) for r in finalists}
    models = {number: load_package(package) for number, package in packages.items()}
    champion = stores.registry.champion(config.registered_model)
    evaluation = _stored_evaluation(directory, finalists, models, champion)
    if evaluation is None:
        evaluation = evaluate(
            finalists,
            models,
            prepared.sealed,
            objective,
            champion=None
            if champion is None
            else (champion.version, _load_version(stores.registry, champion, directory)),
            confidence=config.evaluate.confidence,
            n_resamples=config.evaluate.bootstrap,
            seed=config.search.seed,
            reason=f"finalists of {state.id}",
            ledger=workspace.sealed_readings,
            n_bytes={n: sum(file.stat().st_size for file in package.iterdir()) for n, package in packages.items()},
        )
        write_atomic(directory / EVALUATION, evaluation.model_dump_json(indent=1).encode())
    by_number = {record.number: record for record in finalists}
    runs = {
        finalist.trial: stores.tracker.finish_finalist(
            state.id,
            FinalistInfo(
                trial=finalist.trial,
                family=finalist.family,
                params=by_number[finalist.trial].params,
                metrics=_finalist_metrics(finalist.test)
                | {f"val/{objective.metric}": finalist.validation}
                | {f"cost/{name}": value for name, value in finalist.costs.items()}
                | ({} if finalist.reliability is None else {"temperature": finalist.temperature}),
            ),
            packages[finalist.trial],
            {},
        )
        for finalist in evaluation.finalists
    }
    return Evaluated(evaluation, runs)


def _stored_evaluation(
    directory: Path,
    finalists: tuple[TrialRecord, ...],
    models: Mapping[int, Predictor],
    champion: ModelVersion | None,
) -> Evaluation | None:
    """The evaluation that this search already has, if it was of the same finalists and the same champion."""
    try:
        stored = Evaluation.model_validate_json((directory / EVALUATION).read_bytes())
    except (FileNotFoundError, ValueError):
        return None
    same_finalists = [(f.trial, f.temperature) for f in stored.finalists] == [
        (record.number, models[record.number].temperature) for record in finalists
    ]
    # Once this search's own winner is the champion, the comparison that made it so stands.
    own = champion is not None and champion.tags.get("automl.key") == f"{directory.name}/{finalists[0].number}"
    same_champion = own or stored.champion == (None if champion is None else champion.version)
    return stored if same_finalists and same_champion else None


def _finalist_metrics(test: Mapping[str, Interval]) -> dict[str, float]:
    metrics: dict[str, float] = {}
    for name, interval in test.items():
        metrics |= {f"test/{name}": interval.value, f"test/{name}_lo": interval.low, f"test/{name}_hi": interval.high}
    return metrics


def _load_version(registry: ModelRegistry, version: ModelVersion, directory: Path) -> Predictor:
    return load_version(registry, version, directory / f"champion-v{version.version}")
