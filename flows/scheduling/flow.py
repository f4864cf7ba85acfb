"""The flow of a scheduled search: what a deployment runs. It ends in one line, and leaves no process behind.

Imports are inside: a tick that finds nothing to do must not wait for torch and MLflow.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import UUID

from prefect import State, flow, runtime
from prefect.client.orchestration import get_client
from prefect.logging import get_run_logger
from prefect.states import Cancelled, Completed, Failed

from flows.environment import configure
from flows.notify import notify
from flows.processes import end_with_parent, on_signals
from flows.scheduling.client import UNREACHABLE
from flows.workspace import Workspace, find_workspace
from pipeline.config import ExperimentConfig, load_experiment
from pipeline.errors import AutoMLError, InputError, Interrupted
from pipeline.files import holder_of
from pipeline.registry.ledger import Move

if TYPE_CHECKING:
    from flows.run import Run
    from flows.stages import Experiment
    from pipeline.data.prepare import Prepared

FLOW = "automl"
DRAIN_S = 4.0
"""How long trials have to reach the end of their epoch when the run is cancelled; then their workers are killed."""
END_S = 25.0
"""How long the whole process has. Prefect kills it after 30 s."""


def _run_name() -> str:
    """``adult 2026-11-22 03:00``."""
    name = runtime.deployment.name or Path(str(runtime.flow_run.parameters["file"])).stem
    return f"{name} {runtime.flow_run.scheduled_start_time:%Y-%m-%d %H:%M}"


@flow(name=FLOW, flow_run_name=_run_name, validate_parameters=False, persist_result=False)
def automl(
    file: str,
    trials: int | None = None,
    time: str | None = None,
    families: list[str] | None = None,
    promote: bool = True,
) -> State[Any]:
    """Search the experiment's data if it is new, and promote only what is better.

    Args:
        file: The experiment file, from the deployment's working directory.
        trials: Total trials, instead of the file's search.budget.trials.
        time: Total time, as 30m, instead of the file's search.budget.time.
        families: Families to search, instead of the file's search.families.
        promote: Whether a winner that passes the gates becomes the champion.
    """
    end_with_parent(signal.SIGTERM)
    workspace = find_workspace()
    configure(workspace.prefect_home)
    try:
        config = load_experiment(Path(file), overrides(trials, time, families, promote))
    except InputError as error:
        return _refuse(Path(file), f"failed: {error}")
    holder = holder_of(workspace.experiment_lock(config.name))
    if holder is not None:
        return _end(config, "skipped", f"skipped: {config.name} is running ({holder})")
    return _run(config, workspace, promotes=promote)


def _refuse(file: Path, line: str) -> State[Any]:
    """Nothing is run; whom the file names is told, if it can be read at all."""
    get_run_logger().error(line)
    with suppress(InputError):
        _tell(load_experiment(file), "failed", line)
    return Failed(message=line)


def overrides(trials: object, time: object, families: object, promote: object) -> tuple[str, ...]:
    """The parameters of a run as ``--set`` would have them, so that the file's own rules judge them.

    Raises:
        InputError: `promote` is neither true nor false; the others are judged with the file.
    """
    if not isinstance(promote, bool):
        raise InputError(f"--set promote={promote}: `promote` must be true or false, but got {promote!r}")
    given = {"search.budget.trials": trials, "search.budget.time": time, "search.families": families}
    return tuple(f"{key}={_yaml(value)}" for key, value in given.items() if value is not None)


def _yaml(value: object) -> str:
    import yaml

    return yaml.safe_dump(value, default_flow_style=True).removesuffix("...\n").strip()


def _run(config: ExperimentConfig, workspace: Workspace, *, promotes: bool) -> State[Any]:
    from flows.run import AlreadyRunning, open_run
    from flows.scheduling.progress import reporting
    from flows.search_flow import prepare_task, run_tasks
    from flows.stages import Experiment

    try:
        nothing_new = _nothing_new(Experiment(config, Path.cwd(), workspace), promotes=promotes)
        if nothing_new is not None:
            return _end(config, "skipped", nothing_new)
        with reporting(config.name) as show, open_run(config, Path.cwd(), workspace, show) as run:
            run.promotes = promotes
            with _ending_in_time(run):
                prepared = prepare_task(run)
                _supersede(run, prepared)
                state = run.find_search(prepared)
                get_run_logger().info("search %s", state.id)
                try:
                    result = run_tasks(run, prepared, state)
                except Interrupted:
                    _leave(run, state.id)
                    raise
        event = "promoted" if result.outcome.promoted else "finished"
        move = result.promotion.move(config.registered_model, workspace.ledger)
        return _end(config, event, result.outcome.line, move)
    except AlreadyRunning as error:
        return _end(config, "skipped", f"skipped: {config.name} is running ({error.holder})")
    except Interrupted as stopped:
        return _end(config, "interrupted", str(stopped))
    except AutoMLError as error:
        return _end(config, "failed", f"failed: {error}")
    except Exception as error:  # ours to mend: Prefect keeps the traceback, and somebody is told
        _tell(config, "failed", f"failed: {type(error).__name__}: {error}")
        raise


def _nothing_new(experiment: Experiment, *, promotes: bool) -> str | None:
    """Why there is nothing to do: the latest search is of the same data, through, and was asked for as much. None where
    there is. MLflow is not opened for this."""
    from flows import stages
    from pipeline.search.directory import states_of

    config, workspace = experiment.config, experiment.workspace
    latest = next(reversed(states_of(workspace.state, config.name)), None)
    if latest is None or latest.status != "finished":
        return None
    outcome = stages.read_outcome(workspace.search(latest.id))
    if outcome is None or outcome.config_yaml != config.to_yaml() or (promotes and not outcome.promotes):
        return None
    if stages.differing(workspace, latest, config, stages.prepare_stage(experiment)):
        return None
    return f"skipped: the data is unchanged since {latest.id} ({outcome.line})"


def _supersede(run: Run, prepared: Prepared) -> None:
    """Close an unfinished search of other data or settings: nobody is here at night to decide, the new data is what the
    schedule is for, and the new search starts from the old one's best trials."""
    from flows import stages
    from pipeline.search.directory import states_of, write_state

    config, workspace = run.experiment.config, run.experiment.workspace
    latest = next(reversed(states_of(workspace.state, config.name)), None)
    if latest is None or latest.status != "unfinished":
        return
    differ = stages.differing(workspace, latest, config, prepared)
    if differ:
        get_run_logger().warning("search %s is superseded: %s", latest.id, "; ".join(differ[:5]))
        reason = f"superseded: {'; '.join(differ[:5])}"
        _leave(run, latest.id)
        write_state(workspace.search(latest.id), latest.model_copy(update={"status": "finished", "reason": reason}))


def _leave(run: Run, search: str) -> None:
    """No run of the search stays RUNNING in MLflow, which may never have heard of it."""
    if run.stores.tracker.survey(search) is not None:
        run.stores.tracker.interrupt_search(search)


def _end(config: ExperimentConfig, event: str, line: str, move: Move | None = None) -> State[Any]:
    """The final state, with the line that says why; whoever is to be told has been.

    What a completed run did is its tag, which Prefect's lists of runs show. They leave out states of other names.
    """
    get_run_logger().info(line)
    _tell(config, event, line, move)
    match event:
        case "interrupted":
            return Cancelled(message=line)
        case "failed":
            return Failed(message=line)
        case _:
            _tag(event)
            return Completed(message=line)


def _tag(event: str) -> None:
    """Add a tag to this flow run. It is for people who look: without it the run is what it is."""
    try:
        with get_client(sync_client=True) as client:
            client.update_flow_run(UUID(runtime.flow_run.id), tags=[*runtime.flow_run.tags, event])
    except UNREACHABLE as error:
        get_run_logger().warning("no tag %s: %s", event, error)


def _tell(config: ExperimentConfig, event: str, line: str, move: Move | None = None) -> None:
    for problem in notify(config.notify, event, config.name, line, move):
        get_run_logger().warning(problem)


@contextmanager
def _ending_in_time(run: Run) -> Iterator[None]:
    """A signal drains the search, DRAIN_S later it cuts the trials short, END_S later the process ends whatever it is
    doing: what it owned is taken up by the next run."""
    timers: list[threading.Timer] = []

    def request(by: signal.Signals) -> None:
        run.stop.request(by)
        if not timers:
            timers.append(threading.Timer(DRAIN_S, run.stop.request, [by]))
            timers.append(threading.Timer(END_S, os._exit, [128 + by]))
            for timer in timers:
                timer.daemon = True
                timer.start()

    run.on_signal = request
    with on_signals(request):
        yield
    for timer in timers:
        timer.cancel()
