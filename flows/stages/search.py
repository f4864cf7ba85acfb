"""The search stage: find or create the search, run it, leave it finished or resumable."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from flows.stages.evaluate import package_trial
from flows.stages.experiment import Checked, Experiment, card_of, check_against_data
from flows.stages.retrain import plan_seeds
from flows.stores import DELIVERY_S, Stores
from flows.workspace import Workspace
from pipeline.config import Budget, ExperimentConfig
from pipeline.data.card import card_markdown
from pipeline.data.prepare import Prepared
from pipeline.errors import ConfigError, Interrupted, SearchError, SearchPausedError
from pipeline.records import read_records
from pipeline.search.asking import SearchPlan
from pipeline.search.calibrations import Calibrations
from pipeline.search.controller import Controller
from pipeline.search.directory import (
    SearchState,
    differences,
    new_id,
    read_state,
    search_lock,
    states_of,
    write_state,
)
from pipeline.search.pool import WorkerPool
from pipeline.search.progress import Progress, StopRequest
from pipeline.search.sink import TrackerSink
from pipeline.search.study import open_study
from pipeline.tracking.base import SearchInfo
from pipeline.tracking.replay import Replay, read_replay, write_replay
from pipeline.training.config import TrainSettings
from pipeline.training.devices import find_slots
from search_spaces import default_params, suggest_trial
from search_spaces.narrow import Narrowed

PARENT_RUN_WAIT_S = 10.0
"""How long a search waits for its parent run to exist before it begins all the same."""
PREVIOUS_BEST = 3
"""How many of the last search's best trials a new one tries first."""


def find_or_create_search(experiment: Experiment, prepared: Prepared, *, new: bool) -> SearchState:
    """The search to go on with, or a new one.

    Raises:
        ConfigError: an unfinished search had other settings or other data.
    """
    config, workspace = experiment.config, experiment.workspace
    earlier = states_of(workspace.state, config.name)
    if earlier and not new:
        latest = earlier[-1]
        changes = differing(workspace, latest, config, prepared)
        if not changes:
            return latest.model_copy(update={"config_yaml": config.to_yaml()})
        if latest.status == "unfinished":
            raise ConfigError(
                f"search {latest.id} is unfinished and was started with other settings ({'; '.join(changes[:5])})",
                "undo the change, or start afresh with --new",
            )
    now = time.time()
    return SearchState(
        id=new_id(config.name, now, workspace.searches),
        experiment=config.name,
        config_yaml=config.to_yaml(),
        fingerprint=prepared.fingerprint,
        split_hash=prepared.split_hash,
        created=now,
    )


def differing(workspace: Workspace, state: SearchState, config: ExperimentConfig, prepared: Prepared) -> list[str]:
    """What keeps a run from going on with a search: settings, or the data itself, with its rows then and now."""
    changes = differences(state.config_yaml, config.to_yaml())
    if state.fingerprint != prepared.fingerprint:
        earlier = read_replay(workspace.search(state.id))
        rows = "" if earlier is None else f": {earlier.info.n_rows} rows then, {prepared.n_rows} now"
        changes.append(f"the data itself{rows}")
    return changes


def search_stage(
    experiment: Experiment,
    prepared: Prepared,
    state: SearchState,
    stores: Stores,
    stop: StopRequest,
    on_progress: Callable[[Progress], None],
) -> Progress:
    """Run the search until its budget is used up.

    Raises:
        Interrupted: a stop was asked for; the search is resumable.
        SearchPausedError: the disk is full; the search is resumable.
        SearchError: another controller holds it, or too many trials fail.
    """
    config, workspace = experiment.config, experiment.workspace
    checked = check_against_data(config, prepared)
    directory = workspace.search(state.id)
    with search_lock(directory):
        stored = read_state(directory)
        elapsed = 0.0 if stored is None else stored.elapsed
        state = state.model_copy(update={"elapsed": elapsed, "status": "unfinished"})
        write_state(directory, state)
        deterministic = config.train.deterministic
        study = open_study(
            directory,
            state.id,
            checked.objective.direction,
            config.search,
            config.train.max_epochs,
            len(checked.families) > 1,
        )
        slots = find_slots(config.resources.devices, config.resources.slots_per_device)
        settings = TrainSettings(metric=checked.objective.metric, **config.train.model_dump())
        cohort = None if config.resources.cohort == "auto" else config.resources.cohort
        plan = SearchPlan(
            search=state.id,
            directory=directory,
            spec=prepared.spec,
            metric=checked.objective.metric,
            budget=config.search.budget,
            max_epochs=config.train.max_epochs,
            seed=config.search.seed,
            suggest=lambda suggester, seed: suggest_trial(
                Narrowed(suggester, config.search.space), prepared.spec, checked.families, seed
            ),
            calibrations=Calibrations(workspace.state / "calibration.json", slots[0].device),
            first=_first_trials(experiment, prepared, checked, state),
            foreseeable=config.search.pruner == "none" and config.train.patience >= config.train.max_epochs,
            lockstep=deterministic,
            disk_floor=round(config.resources.min_free_disk_gb * 2**30),
            # Its size is measured, and measurements differ from run to run.
            max_cohort=1 if deterministic and cohort is None else cohort,
        )
        # Suggestions repeat only if results arrive in the same order: one worker.
        used = (slots[:1] if deterministic else slots)[: _most_workers(directory, config.search.budget, elapsed)]
        # Workers start while MLflow opens; the first word to a store waits for it.
        with WorkerPool(used, prepared.directory, settings, directory / "workers") as pool, _delivering(stores):
            _start_search(stores, directory, prepared, _search_info(config, prepared, state, checked))
            sink = TrackerSink(
                stores.background,
                state.id,
                lambda record: package_trial(workspace, prepared, record),
                config.tracking.models,
            )
            controller = Controller(plan, study, pool, sink, stop, _saving(directory, state, on_progress), elapsed)
            try:
                reason = controller.run()
            except SearchPausedError:
                stores.background.interrupt_search(state.id)
                raise
            except SearchError as error:
                write_state(directory, state.model_copy(update={"status": "failed", "reason": str(error)}))
                stores.background.flush(DELIVERY_S)
                stores.tracker.finish_search(state.id, "FAILED", {}, {"automl.reason": str(error)[:500]}, {})
                raise
            elapsed = controller.elapsed
            if pool.workers and not stop.requested and controller.progress.complete:
                plan_seeds(experiment, prepared, state, slots[0], stop).run(pool)  # while the workers are warm
        finished = not stop.requested
        status = "finished" if finished else "unfinished"
        write_state(directory, state.model_copy(update={"elapsed": elapsed, "status": status, "reason": reason}))
    if not finished:
        stores.background.interrupt_search(state.id)
        raise Interrupted(f"search {state.id} is interrupted; the same command goes on with it", stop.by)
    return controller.progress


def _most_workers(directory: Path, budget: Budget, elapsed: float) -> int | None:
    """How many workers have anything to do: none in a search that is over; None for as many as there are slots."""
    if budget.time is not None and elapsed >= budget.time:
        return 0
    return None if budget.trials is None else max(0, budget.trials - sum(1 for _ in read_records(directory)))


def _start_search(stores: Stores, directory: Path, prepared: Prepared, info: SearchInfo) -> None:
    """Create the parent run, and keep on disk what replaying the search needs. A store that is away is not waited for.

    Raises:
        StoreRefusedError: the store does not want this search at all.
    """
    write_replay(directory, Replay(info=info, prepared=prepared.directory.name))
    started = stores.background.start_search(info)
    try:
        started.result(PARENT_RUN_WAIT_S)
    except TimeoutError:
        print("warning: MLflow does not answer; the search goes on, and is delivered when it does", file=sys.stderr)


@contextmanager
def _delivering(stores: Stores) -> Iterator[None]:
    """On the way out the tracker has every trial, so that it can be spoken to directly again."""
    try:
        yield
    finally:
        stores.background.flush(DELIVERY_S)


def _saving(directory: Path, state: SearchState, on_progress: Callable[[Progress], None]) -> Callable[[Progress], None]:
    """Keep the time used on disk every few seconds: what a kill forgets of a time budget is at most that."""
    last = time.monotonic()

    def save(progress: Progress) -> None:
        nonlocal last
        on_progress(progress)
        if time.monotonic() - last >= 5.0:
            last = time.monotonic()
            write_state(directory, state.model_copy(update={"elapsed": progress.elapsed}))

    return save


def _search_info(config: ExperimentConfig, prepared: Prepared, state: SearchState, checked: Checked) -> SearchInfo:
    search = config.search
    params = {
        "families": ", ".join(checked.families),
        "metric": checked.objective.metric,
        "sampler": search.sampler,
        "pruner": search.pruner,
        "budget.trials": str(search.budget.trials),
        "budget.time_s": str(search.budget.time),
        "seed": str(search.seed),
        "max_epochs": str(config.train.max_epochs),
        "patience": str(config.train.patience),
        "precision": config.train.precision,
        "data.source": config.data.source,
        "data.kind": prepared.spec.kind,
        "data.task": prepared.spec.task,
        "data.n_train": str(prepared.spec.n_train),
        "data.n_validation": str(prepared.spec.n_validation),
        "data.n_folds": str(prepared.spec.n_folds),
        "data.n_test": str(len(prepared.sealed)),
    }
    return SearchInfo(
        id=state.id,
        experiment=config.name,
        metric=checked.objective.metric,
        direction=checked.objective.direction,
        params=params,
        config_yaml=state.config_yaml,
        data_fingerprint=prepared.fingerprint,
        data_source=config.data.source,
        data_schema=dict(prepared.schema),
        n_rows=prepared.n_rows,
        texts=_card_files(config, prepared),
    )


def _card_files(config: ExperimentConfig, prepared: Prepared) -> dict[str, str]:
    card = card_of(config, prepared)
    return {"data/card.md": card_markdown(card), "data/card.json": card.model_dump_json(indent=1)}


def _first_trials(
    experiment: Experiment, prepared: Prepared, checked: Checked, state: SearchState
) -> list[dict[str, object]]:
    """Parameters that are tried before anything is sampled. What the file narrows is left out by name."""
    search = experiment.config.search
    first: list[dict[str, object]] = []
    if "defaults" in search.warm_start:
        first += [dict(default_params(family, prepared.spec, checked.families)) for family in checked.families]
    if "previous" in search.warm_start:
        earlier = [s for s in states_of(experiment.workspace.state, state.experiment) if s.created < state.created]
        if earlier:
            first += _best_params(experiment.workspace.search(earlier[-1].id), checked)
    return [{k: v for k, v in params.items() if k not in search.space} for params in first]


def _best_params(directory: Path, checked: Checked) -> list[dict[str, object]]:
    complete = [r for r in read_records(directory) if r.state == "COMPLETE" and r.metric == checked.objective.metric]
    complete = [r for r in complete if r.family in checked.families and r.duplicate_of is None]
    ranked = sorted(complete, key=lambda r: checked.objective.rank_key(r.objective or 0.0))
    return [dict(record.params) for record in ranked[:PREVIOUS_BEST]]
