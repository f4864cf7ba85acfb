"""The finalists trained again with other seeds, before the sealed test is opened: `evaluate.seeds`."""

from __future__ import annotations

from collections.abc import Sequence

from flows.stages.experiment import Experiment, check_against_data
from pipeline.config import ExperimentConfig
from pipeline.data.prepare import Prepared
from pipeline.errors import Interrupted
from pipeline.evaluation.finalists import choose_finalists
from pipeline.records import TrialRecord, read_records
from pipeline.search.calibrations import Calibrations
from pipeline.search.directory import SearchState, search_lock
from pipeline.search.pool import WorkerPool
from pipeline.search.progress import StopRequest
from pipeline.search.retraining import Retraining, seeds_wanted
from pipeline.training.config import TrainSettings
from pipeline.training.devices import Slot, find_slots


def retrain_stage(experiment: Experiment, prepared: Prepared, state: SearchState, stop: StopRequest) -> None:
    """Train what is still missing of the finalists' seeds, where an earlier start was stopped at it.

    Raises:
        Interrupted: a stop was asked for; the same command goes on with it.
    """
    config = experiment.config
    directory = experiment.workspace.search(state.id)
    slots = find_slots(config.resources.devices, config.resources.slots_per_device)
    slots = slots[:1] if config.train.deterministic else slots
    metric = check_against_data(config, prepared).objective.metric
    settings = TrainSettings(metric=metric, **config.train.model_dump())
    with search_lock(directory):
        retraining = plan_seeds(experiment, prepared, state, slots[0], stop)
        if retraining.needed:
            used = slots[: retraining.needed]
            with WorkerPool(used, prepared.directory, settings, directory / "workers") as pool:
                retraining.run(pool)
    if stop.requested:
        raise Interrupted(f"search {state.id} is interrupted; the same command goes on with its finalists", stop.by)


def n_seeds(config: ExperimentConfig, finalists: Sequence[TrialRecord], records: Sequence[TrialRecord]) -> int:
    """How often an experiment's finalists are trained, their trials included."""
    return seeds_wanted(config.evaluate.seeds, finalists, records, repeatable=config.train.deterministic)


def plan_seeds(
    experiment: Experiment, prepared: Prepared, state: SearchState, slot: Slot, stop: StopRequest
) -> Retraining:
    """What is missing of the finalists' seeds: nothing where each is trained once.

    Args:
        slot: one of those that will train; they are alike.

    Raises:
        SearchError: no trial completed.
    """
    config, workspace = experiment.config, experiment.workspace
    directory = workspace.search(state.id)
    objective = check_against_data(config, prepared).objective
    records = list(read_records(directory))
    finalists = choose_finalists(records, objective, config.evaluate.finalists)
    calibrations = Calibrations(workspace.state / "calibration.json", slot.device)
    n_folds = max(1, prepared.spec.n_folds)
    alone = config.train.deterministic or config.resources.cohort == 1
    return Retraining(
        directory,
        finalists,
        n_seeds(config, finalists, records),
        stop,
        together=lambda trial, n: not alone and calibrations.together_pays(trial, prepared.spec, n * n_folds),
        per_trial=config.search.budget.per_trial,
        lockstep=config.train.deterministic,
    )
