"""The evaluation stage: finalists read once on the sealed test, and their runs."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from flows.slice_table import slices_csv
from flows.stages.experiment import Experiment, check_against_data
from flows.stages.retrain import n_seeds
from flows.stores import Stores
from flows.workspace import Workspace
from pipeline.config import EvaluateConfig, ExperimentConfig
from pipeline.data.identity import KnownRows
from pipeline.data.prepare import Prepared, load_known_rows
from pipeline.errors import DataError
from pipeline.evaluation.calibration import fit_temperature
from pipeline.evaluation.champion import Champion
from pipeline.evaluation.finalists import Evaluation, Finalist, choose_finalists, evaluate, over_seeds
from pipeline.evaluation.intervals import Resampling
from pipeline.files import write_atomic
from pipeline.packaging.conformal import fit_conformal
from pipeline.packaging.package import write_trial_package
from pipeline.packaging.predictor import Predictor
from pipeline.packaging.verify import load_package
from pipeline.records import TrialRecord, read_records, trial_directory
from pipeline.registry.base import ModelRegistry, ModelVersion
from pipeline.registry.loading import load_version
from pipeline.search.directory import SearchState
from pipeline.search.retraining import seed_directory, seed_records
from pipeline.tracking.base import FinalistInfo
from pipeline.tracking.replay import read_replay

EVALUATION = "evaluation.json"


def package_trial(workspace: Workspace, prepared: Prepared, record: TrialRecord) -> Path:
    """The model package of a completed trial, made when it is first asked for."""
    directory = trial_directory(workspace.search(record.search), record.number)
    return write_trial_package(directory / "package", record, directory, prepared)


def package_finalist(workspace: Workspace, prepared: Prepared, record: TrialRecord, settings: EvaluateConfig) -> Path:
    """A finalist's package: the trial's, or one beside it with what the validation part was asked for."""
    return _asked_of_validation(
        package_trial(workspace, prepared, record),
        record,
        trial_directory(workspace.search(record.search), record.number),
        prepared,
        settings,
    )


def _asked_of_validation(
    package: Path, record: TrialRecord, trial: Path, prepared: Prepared, settings: EvaluateConfig
) -> Path:
    """The package, or one in the trial's folder that has a temperature and room for intervals or sets, too."""
    spec, level = prepared.spec, settings.conformal
    calibrate = settings.calibrate and not spec.is_quantity and not spec.n_folds
    if not calibrate and level is None:
        return package
    validation = prepared.development().validation
    logits = load_package(package).logits(validation.inputs)
    temperature = fit_temperature(logits, validation.target) if calibrate else 1.0
    conformal = None if level is None else fit_conformal(logits / temperature, validation.target, spec, level)
    name = "-".join(("package", *(["calibrated"] if calibrate else []), *([] if level is None else [f"{level:g}"])))
    return write_trial_package(trial / name, record, trial, prepared, temperature, conformal)


def load_finalist(
    workspace: Workspace, prepared: Prepared, search: str, number: int, settings: EvaluateConfig
) -> Predictor:
    """The model of a finalist as it was read on the sealed test."""
    record = next(record for record in read_records(workspace.search(search)) if record.number == number)
    return load_package(package_finalist(workspace, prepared, record, settings))


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
    chosen = choose_finalists(records, objective, config.evaluate.finalists)
    packages = {r.number: package_finalist(workspace, prepared, r, config.evaluate) for r in chosen}
    models = {number: load_package(package) for number, package in packages.items()}
    wanted = n_seeds(config, chosen, records)
    again = {r.number: _completed(seed_records(directory, r, wanted)) for r in chosen}
    finalists = over_seeds(chosen, {number: list(seeds.values()) for number, seeds in again.items()}, objective)
    champion = stores.registry.champion(config.registered_model)
    read = {number: 1 + len(seeds) if seeds else 0 for number, seeds in again.items()}
    evaluation = _stored_evaluation(directory, finalists, models, champion, read)
    if evaluation is None:
        evaluation = evaluate(
            finalists,
            models,
            prepared.sealed,
            objective,
            trained_on=prepared.known_rows(),
            champion=None if champion is None else load_champion(champion, stores.registry, workspace, directory),
            how=resampling(config),
            reason=f"finalists of {state.id}",
            ledger=workspace.sealed_readings,
            seeds={
                record.number: _seeds(record, models[record.number], again[record.number], prepared, experiment)
                for record in chosen
                if again[record.number]
            },
            slicing=prepared.slicing(),
            gated=[gate.slice for gate in config.promotion.gates if gate.slice is not None],
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
                metrics=_finalist_metrics(finalist, objective.metric)
                | (_naive_metrics(evaluation) if finalist is evaluation.winner else {}),
            ),
            packages[finalist.trial],
            _finalist_files(directory, evaluation, finalist),
        )
        for finalist in evaluation.finalists
    }
    return Evaluated(evaluation, runs)


def resampling(config: ExperimentConfig) -> Resampling:
    """How an experiment asks for its intervals."""
    return Resampling(config.evaluate.confidence, config.evaluate.bootstrap, config.search.seed)


def read_evaluation(directory: Path) -> Evaluation | None:
    """The evaluation in a search's directory; None where there is none that this version can read."""
    try:
        return Evaluation.model_validate_json((directory / EVALUATION).read_bytes())
    except (FileNotFoundError, ValueError):
        return None


def _stored_evaluation(
    directory: Path,
    finalists: tuple[TrialRecord, ...],
    models: Mapping[int, Predictor],
    champion: ModelVersion | None,
    n_read: Mapping[int, int],
) -> Evaluation | None:
    """The evaluation that this search already has, if it was of the same finalists, seeds and champion."""
    stored = read_evaluation(directory)
    if stored is None:
        return None
    same_finalists = [
        (f.trial, f.temperature, None if f.coverage is None else f.coverage.level, len(f.seeds))
        for f in stored.finalists
    ] == [(r.number, models[r.number].temperature, _level(models[r.number]), n_read[r.number]) for r in finalists]
    # Once this search's own winner is the champion, the comparison that made it so stands.
    own = champion is not None and champion.tags.get("automl.key") == f"{directory.name}/{finalists[0].number}"
    same_champion = own or stored.champion == (None if champion is None else champion.version)
    return stored if same_finalists and same_champion else None


def _level(model: Predictor) -> float | None:
    return None if model.conformal is None else model.conformal.level


def _completed(seeds: Mapping[int, TrialRecord]) -> dict[int, TrialRecord]:
    return {k: record for k, record in seeds.items() if record.state == "COMPLETE"}


def _seeds(
    finalist: TrialRecord,
    model: Predictor,
    again: Mapping[int, TrialRecord],
    prepared: Prepared,
    experiment: Experiment,
) -> list[tuple[float, Predictor]]:
    """Validation score and model of every seed of a finalist, its own first. All are calibrated alike."""
    found = [(finalist.objective or 0.0, model)]
    for k, record in again.items():
        trial = seed_directory(experiment.workspace.search(finalist.search), finalist.number, k)
        package = write_trial_package(trial / "package", record, trial, prepared)
        asked = _asked_of_validation(package, record, trial, prepared, experiment.config.evaluate)
        found.append((record.objective or 0.0, load_package(asked)))
    return found


def _finalist_files(directory: Path, evaluation: Evaluation, finalist: Finalist) -> dict[str, Path]:
    """What a finalist's run shows beside its metrics, by artifact path."""
    if finalist.sliced is None:
        return {}
    path = trial_directory(directory, finalist.trial) / "slices.csv"
    write_atomic(path, slices_csv(evaluation, finalist.sliced).encode())
    return {"slices/slices.csv": path}


def _finalist_metrics(finalist: Finalist, metric: str) -> dict[str, float]:
    metrics = {f"val/{metric}": finalist.validation}
    if finalist.validation_se is not None:
        metrics[f"val/{metric}_se"] = finalist.validation_se
    for name, interval in finalist.test.items():
        metrics |= {f"test/{name}": interval.value, f"test/{name}_lo": interval.low, f"test/{name}_hi": interval.high}
    metrics |= {f"cost/{name}": value for name, value in finalist.costs.items()}
    if finalist.reliability is not None:
        metrics["temperature"] = finalist.temperature
    if finalist.coverage is not None:
        size = "set_size" if finalist.reliability is not None else "interval_width"
        for name, interval in (("coverage", finalist.coverage.held), (size, finalist.coverage.size)):
            metrics |= {
                f"test/{name}": interval.value,
                f"test/{name}_lo": interval.low,
                f"test/{name}_hi": interval.high,
            }
    if finalist.seeds:
        scores = [seed.test for seed in finalist.seeds]
        metrics |= {f"test/{metric}_seeds_mean": statistics.fmean(scores), "n_seeds": float(len(scores))}
        metrics[f"test/{metric}_seeds_sd"] = statistics.stdev(scores)
    return metrics


def _naive_metrics(evaluation: Evaluation) -> dict[str, float]:
    """Of a forecast: what repeating the last season scores on the same windows, and what the winner is better by."""
    if evaluation.forecast is None:
        return {}
    naive = {f"naive/{name}": interval.value for name, interval in evaluation.forecast.naive.items()}
    return naive | {"test/skill": evaluation.forecast.skill}


def load_champion(version: ModelVersion, registry: ModelRegistry, workspace: Workspace, directory: Path) -> Champion:
    """A registered version as the one to beat; its package is fetched into `directory`."""
    model = load_version(registry, version, directory / f"champion-v{version.version}")
    return Champion(version.version, model, _trained_on(version, workspace))


def _trained_on(version: ModelVersion, workspace: Workspace) -> KnownRows | None:
    """The rows behind a registered version, where its search was made in this workspace and its data is still here."""
    replay = read_replay(workspace.search(version.tags.get("automl.search", "unknown")))
    try:
        return None if replay is None else load_known_rows(workspace.data / replay.prepared)
    except DataError:  # prepared by an earlier version, or cleared away
        return None
