"""The finalists trained again with other seeds, before the sealed test is opened: `evaluate.seeds`."""

from __future__ import annotations

from flows.stages.experiment import Experiment, check_against_data
from pipeline.data.prepare import Prepared
from pipeline.errors import Interrupted
from pipeline.evaluation.finalists import choose_finalists
from pipeline.records import read_records
from pipeline.search.calibrations import Calibrations
from pipeline.search.directory import SearchState, search_lock
from pipeline.search.pool import WorkerPool
from pipeline.search.progress import StopRequest
from pipeline.search.retraining import Retraining
from pipeline.training.config import TrainSettings
from pipeline.training.devices import find_slots


def retrain_stage(experiment: Experiment, prepared: Prepared, state: SearchState, stop: StopRequest) -> None:
    """Train what is missing of the finalists' seeds; nothing where there is one seed.

    Raises:
        Interrupted: a stop was asked for; the same command goes on with it.
    """
    config, workspace = experiment.config, experiment.workspace
    if config.evaluate.seeds == 1:
        return
    directory = workspace.search(state.id)
    objective = check_against_data(config, prepared).objective
    finalists = choose_finalists(read_records(directory), objective, config.evaluate.finalists)
    slots = find_slots(config.resources.devices, config.resources.slots_per_device)
    slots = slots[:1] if config.train.deterministic else slots
    settings = TrainSettings(metric=objective.metric, **config.train.model_dump())
    calibrations = Calibrations(workspace.state / "calibration.json", slots[0].device)
    n_folds = max(1, prepared.spec.n_folds)
    alone = config.train.deterministic or config.resources.cohort == 1
    with search_lock(directory):
        retraining = Retraining(
            directory,
            finalists,
            config.evaluate.seeds,
            stop,
            together=lambda trial, n: not alone and calibrations.together_pays(trial, prepared.spec, n * n_folds),
            per_trial=config.search.budget.per_trial,
            lockstep=config.train.deterministic,
        )
        if retraining.needed:
            used = slots[: retraining.needed]
            with WorkerPool(used, prepared.directory, settings, directory / "workers") as pool:
                retraining.run(pool)
    if stop.requested:
        raise Interrupted(f"search {state.id} is interrupted; the same command goes on with its finalists", stop.by)
