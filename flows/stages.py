"""The stages of an experiment as plain functions: prepare, search, evaluate, promote, report.

The Prefect flow and ``--no-prefect`` run the same ones. Every stage leaves its result on disk and finds it there again,
so a stage that is repeated after a kill repeats no work.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from flows.leaderboard import leaderboard, to_csv
from flows.stores import Stores
from flows.workspace import Workspace
from pipeline.config import ExperimentConfig
from pipeline.data.prepare import Prepared, prepare
from pipeline.errors import ConfigError, Interrupted, SearchError
from pipeline.evaluation.finalists import Evaluation, choose_finalists, evaluate
from pipeline.evaluation.gates import GateResult, check_gates, judge
from pipeline.evaluation.intervals import Interval
from pipeline.files import write_atomic
from pipeline.objective import Objective, objective_for
from pipeline.packaging.package import write_trial_package
from pipeline.packaging.predictor import Predictor
from pipeline.packaging.verify import load_package
from pipeline.records import TrialRecord, read_records, trial_directory
from pipeline.registry.base import ModelRegistry, ModelVersion
from pipeline.registry.promotion import promote
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
from pipeline.tracking.base import FinalistInfo, SearchInfo
from pipeline.training.config import TrainSettings
from pipeline.training.devices import find_slots
from search_spaces import check_overrides, default_params, families_for, suggest_trial
from search_spaces.narrow import Narrowed

PREVIOUS_BEST = 3
"""How many of the last search's best trials a new one tries first."""
DELIVERY_S = 60.0
"""How long the tracker may take to catch up before it is spoken to directly."""
EVALUATION, SUMMARY = "evaluation.json", "summary.md"


@dataclass(frozen=True, slots=True)
class Experiment:
    """A validated experiment file and where it runs."""

    config: ExperimentConfig
    root: Path
    """Folder that relative data paths start from."""
    workspace: Workspace


@dataclass(frozen=True, slots=True)
class Checked:
    """An experiment against its data: everything that can be wrong has been looked at."""

    objective: Objective
    families: tuple[str, ...]


def prepare_stage(experiment: Experiment) -> Prepared:
    """Read, check and split the data; prepared tensors are reused by content."""
    return prepare(experiment.config.data, experiment.root, experiment.workspace.data)


def check_against_data(config: ExperimentConfig, prepared: Prepared) -> Checked:
    """Settle what ``auto`` means for this data.

    Raises:
        ConfigError: a metric, family, narrowed choice, gate or device that does not exist here.
    """
    fitting = families_for(prepared.spec.kind)
    families = fitting if config.search.families == "auto" else config.search.families
    for family in families:
        if family not in fitting:
            raise ConfigError(
                f"`search.families` must fit {prepared.spec.kind} data, but got {family!r}", f"use {', '.join(fitting)}"
            )
    objective = objective_for(config.search.metric, prepared.spec.task)
    check_overrides(config.search.space, prepared.spec, families)
    check_gates(config.promotion.gates, prepared.spec.task)
    find_slots(config.resources.devices, config.resources.slots_per_device)
    return Checked(objective, families)


def find_or_create_search(experiment: Experiment, prepared: Prepared, *, new: bool) -> SearchState:
    """The search to go on with, or a new one.

    Raises:
        ConfigError: an unfinished search had other settings or other data.
    """
    config, workspace = experiment.config, experiment.workspace
    earlier = states_of(workspace.state, config.name)
    if earlier and not new:
        latest = earlier[-1]
        changes = differences(latest.config_yaml, config.to_yaml())
        if latest.fingerprint != prepared.fingerprint:
            changes.append("the data itself")
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
        SearchError: another controller holds it, or every trial fails.
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
            seed=config.search.seed,
            suggest=lambda suggester, seed: suggest_trial(
                Narrowed(suggester, config.search.space), prepared.spec, checked.families, seed
            ),
            calibrations=Calibrations(workspace.state / "calibration.json", slots[0].device),
            first=_first_trials(experiment, prepared, checked, state),
            lockstep=deterministic,
            # Its size is measured, and measurements differ from run to run.
            max_cohort=1 if deterministic and cohort is None else cohort,
        )
        # Suggestions repeat only if results arrive in the same order: one worker.
        used = slots[:1] if deterministic else slots
        # Workers start while MLflow opens; the first word to a store waits for it.
        with WorkerPool(used, prepared.directory, settings, directory / "workers") as pool, _delivering(stores):
            stores.tracker.start_search(_search_info(config, prepared, state, checked))
            sink = TrackerSink(
                stores.background,
                state.id,
                lambda record: package_trial(workspace, prepared, record),
                config.tracking.models,
            )
            controller = Controller(plan, study, pool, sink, stop, _saving(directory, state, on_progress), elapsed)
            try:
                reason = controller.run()
            except SearchError as error:
                write_state(directory, state.model_copy(update={"status": "failed", "reason": str(error)}))
                stores.background.flush(DELIVERY_S)
                stores.tracker.finish_search(state.id, "FAILED", {}, {"automl.reason": str(error)[:500]}, {})
                raise
        finished = not stop.requested
        status = "finished" if finished else "unfinished"
        write_state(
            directory, state.model_copy(update={"elapsed": controller.elapsed, "status": status, "reason": reason})
        )
    if not finished:
        stores.tracker.interrupt_search(state.id)
        raise Interrupted(f"search {state.id} is interrupted; the same command goes on with it", stop.by)
    return controller.progress


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
    )


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
    complete = [r for r in complete if r.family in checked.families]
    ranked = sorted(complete, key=lambda r: checked.objective.rank_key(r.objective or 0.0))
    return [dict(record.params) for record in ranked[:PREVIOUS_BEST]]


def package_trial(workspace: Workspace, prepared: Prepared, record: TrialRecord) -> Path:
    """The model package of a completed trial, made when it is first asked for."""
    directory = trial_directory(workspace.search(record.search), record.number)
    return write_trial_package(directory / "package", record, directory, prepared)


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
    packages = {record.number: package_trial(workspace, prepared, record) for record in finalists}
    models = {number: load_package(package) for number, package in packages.items()}
    champion = stores.registry.champion(config.registered_model)
    evaluation = _stored_evaluation(directory, finalists, champion)
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
                metrics=_finalist_metrics(finalist.test) | {f"val/{objective.metric}": finalist.validation},
            ),
            packages[finalist.trial],
            {},
        )
        for finalist in evaluation.finalists
    }
    return Evaluated(evaluation, runs)


def _stored_evaluation(
    directory: Path, finalists: tuple[TrialRecord, ...], champion: ModelVersion | None
) -> Evaluation | None:
    """The evaluation that this search already has, if it was of the same finalists and the same champion."""
    try:
        stored = Evaluation.model_validate_json((directory / EVALUATION).read_bytes())
    except (FileNotFoundError, ValueError):
        return None
    same_finalists = [f.trial for f in stored.finalists] == [record.number for record in finalists]
    # Once this search's own winner is the champion, the comparison that made it so stands.
    own = champion is not None and champion.tags.get("automl.search") == directory.name
    same_champion = own or stored.champion == (None if champion is None else champion.version)
    return stored if same_finalists and same_champion else None


def _finalist_metrics(test: Mapping[str, Interval]) -> dict[str, float]:
    metrics: dict[str, float] = {}
    for name, interval in test.items():
        metrics |= {f"test/{name}": interval.value, f"test/{name}_lo": interval.low, f"test/{name}_hi": interval.high}
    return metrics


def _load_version(registry: ModelRegistry, version: ModelVersion, directory: Path) -> Predictor:
    return load_package(registry.download(version.name, version.version, directory / f"champion-v{version.version}"))


@dataclass(frozen=True, slots=True)
class Promotion:
    """What became of the winner: one line for people, and the gates behind it."""

    promoted: bool
    line: str
    gates: tuple[GateResult, ...]
    version: int | None


def promote_stage(
    experiment: Experiment, state: SearchState, evaluated: Evaluated, prepared: Prepared, registry: ModelRegistry
) -> Promotion:
    """Make the winner the champion if every gate is passed."""
    name = experiment.config.registered_model
    evaluation = evaluated.evaluation
    winner = evaluation.winner
    champion = registry.champion(name)
    key = f"{state.id}/{winner.trial}"
    if champion is not None and champion.tags.get("automl.key") == key:
        return Promotion(
            False, f"{name} v{champion.version} is already the champion from this search", (), champion.version
        )
    gates = judge(experiment.config.promotion.gates, evaluation)
    failed = [gate for gate in gates if not gate.passed]
    if failed:
        current = "no champion" if champion is None else f"champion v{champion.version} unchanged"
        return Promotion(False, f"{name}: {current}: {failed[0].gate} not passed ({failed[0].evidence})", gates, None)
    version = make_champion(
        experiment,
        state,
        winner.trial,
        evaluated.runs[winner.trial],
        prepared,
        registry,
        expected=evaluation.champion,
        action="promote",
        evidence=[f"{g.gate}: {g.evidence}" for g in gates],
    )
    score = winner.test[evaluation.metric]
    return Promotion(
        True,
        f"promoted {name} v{version.version}: {evaluation.metric} {score} on the sealed test",
        gates,
        version.version,
    )


def make_champion(
    experiment: Experiment,
    state: SearchState,
    trial: int,
    run_id: str,
    prepared: Prepared,
    registry: ModelRegistry,
    *,
    expected: int | None,
    action: str,
    evidence: list[str],
) -> ModelVersion:
    """Register a trial's model, verify what was registered, and move the alias."""
    directory = experiment.workspace.search(state.id)

    def verify(version: ModelVersion) -> None:
        load_package(registry.download(version.name, version.version, directory / f"verify-v{version.version}"))

    return promote(
        registry,
        experiment.config.registered_model,
        run_id,
        f"{state.id}/{trial}",
        {
            "automl.search": state.id,
            "automl.trial": str(trial),
            "automl.data": prepared.fingerprint,
            "automl.split": prepared.split_hash,
        },
        expected=expected,
        action=action,
        evidence=evidence,
        verify=verify,
        ledger=experiment.workspace.ledger,
    )


def report_stage(
    experiment: Experiment,
    state: SearchState,
    progress: Progress | None,
    evaluated: Evaluated,
    promotion: Promotion,
    stores: Stores,
) -> Path:
    """Write leaderboard and summary, and end the parent run with them."""
    directory = experiment.workspace.search(state.id)
    records = list(read_records(directory))
    rows = leaderboard(records)
    write_atomic(directory / "leaderboard.csv", to_csv(rows).encode())
    write_atomic(directory / "leaderboard.json", json.dumps([row.model_dump() for row in rows]).encode())
    text = summary_markdown(state, records, evaluated.evaluation, promotion)
    write_atomic(directory / SUMMARY, text.encode())
    evaluation = evaluated.evaluation
    counts = {s: sum(r.state == s for r in records) for s in ("COMPLETE", "PRUNED", "FAIL")}
    metrics = {
        f"best/{evaluation.metric}": evaluation.winner.validation,
        "n/complete": float(counts["COMPLETE"]),
        "n/pruned": float(counts["PRUNED"]),
        "n/failed": float(counts["FAIL"]),
        "time/train_s": sum(record.train_s for record in records),
        "optimism": evaluation.optimism,
    }
    tags = {"automl.result": promotion.line, "automl.best_trial": str(evaluation.winner.trial)}
    files = {
        "leaderboard/leaderboard.csv": directory / "leaderboard.csv",
        "leaderboard/leaderboard.json": directory / "leaderboard.json",
        "report/summary.md": directory / SUMMARY,
        "report/evaluation.json": directory / EVALUATION,
    }
    stores.tracker.finish_search(state.id, "FINISHED", metrics, tags, files)
    return directory / SUMMARY


def summary_markdown(
    state: SearchState, records: list[TrialRecord], evaluation: Evaluation, promotion: Promotion
) -> str:
    """The result of a search in a page of Markdown: the answer first."""
    metric = evaluation.metric
    lines = [
        f"# {state.experiment}: {promotion.line}",
        "",
        f"Search `{state.id}`, {len(records)} trials, ended because: {state.reason or 'running'}.",
        "",
        f"## Finalists on the sealed test ({evaluation.n_rows} rows, read once)",
        "",
        f"| trial | family | validation {metric} | test {metric} | parameters |",
        "|---|---|---|---|---|",
        *(
            f"| #{f.trial:03d} | {f.family} | {f.validation:.4f} | {f.test[metric]} | {f.n_params:,} |"
            for f in evaluation.finalists
        ),
        "",
        f"Optimism of the search (validation minus test of the winner): {evaluation.optimism:+.4f}.",
        "",
        "## Gates",
        "",
        *(f"- {'passed' if g.passed else 'not passed'}: {g.gate} ({g.evidence})" for g in promotion.gates),
        "",
        "## Best trials",
        "",
        "| rank | trial | family | score | epochs | parameters | seconds |",
        "|---|---|---|---|---|---|---|",
        *(
            f"| {r.rank} | #{r.trial:03d} | {r.family} | {r.score:.4f} | {r.epochs} | {r.n_params:,} "
            f"| {r.train_s:.1f} |"
            for r in leaderboard(records)[:10]
            if r.rank is not None
        ),
    ]
    return "\n".join(lines) + "\n"
