"""Schedules as Prefect keeps them: one deployment of the flow `automl` for each experiment, in this machine's pool."""

from __future__ import annotations

import datetime
import hashlib
import os
import socket
import sys
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.actions import DeploymentScheduleCreate, WorkPoolCreate
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterDeploymentId,
    FlowRunFilterState,
    FlowRunFilterStateType,
    WorkPoolFilter,
    WorkPoolFilterName,
)
from prefect.client.schemas.objects import FlowRun, StateType
from prefect.client.schemas.responses import DeploymentResponse
from prefect.client.schemas.schedules import SCHEDULE_TYPES, CronSchedule, IntervalSchedule
from prefect.client.schemas.sorting import FlowRunSort
from prefect.exceptions import ObjectNotFound
from prefect.states import Cancelled
from prefect.utilities.callables import parameter_schema
from prefect.workers.process import ProcessWorker

from flows.scheduling.flow import automl
from flows.workspace import STATE_VARIABLE, Workspace
from pipeline.config import ScheduleConfig
from pipeline.errors import InputError

ENTRYPOINT = "flows.scheduling.flow.automl"
PAGE = 200
"""Most flow runs that Prefect's API returns at once."""


@dataclass(frozen=True, slots=True)
class Scheduled:
    """A deployment, its next tick and its last run that did something or ended."""

    experiment: str
    when: str
    paused: bool
    next: datetime.datetime | None
    last: str | None


def pool_name(workspace: Workspace) -> str:
    """``automl`` on the server that is only ours; on a shared one each workspace of each machine has its own."""
    if "PREFECT_API_URL" not in os.environ or (workspace.prefect_home / "server.json").exists():
        return "automl"
    return f"automl-{socket.gethostname()}-{hashlib.sha256(str(workspace.state).encode()).hexdigest()[:6]}"


async def ensure_pool(client: PrefectClient, name: str) -> None:
    """Make the process work pool where it is missing."""
    try:
        await client.read_work_pool(name)
    except ObjectNotFound:
        template = ProcessWorker.get_default_base_job_template()
        await client.create_work_pool(WorkPoolCreate(name=name, type="process", base_job_template=template))


async def deploy(
    client: PrefectClient, workspace: Workspace, experiment: str, file: Path, schedule: ScheduleConfig
) -> UUID:
    """Create or change an experiment's deployment. What was set in Prefect's UI (trials, promote, …) stays."""
    pool = pool_name(workspace)
    await ensure_pool(client, pool)
    before = await find(client, experiment)
    flow_id = await client.create_flow_from_name(automl.name)
    deployment = await client.create_deployment(
        flow_id=flow_id,
        name=experiment,
        description=f"Searches {file.name} when its data is new, and promotes what is better.",
        tags=["automl"],
        entrypoint=ENTRYPOINT,
        pull_steps=[],
        work_pool_name=pool,
        job_variables={
            # Without a command Prefect looks for a project to install before each run.
            "command": f"{sys.executable} -m prefect.engine",
            "working_dir": str(Path.cwd()),
            "env": {STATE_VARIABLE: str(workspace.state)},
        },
        parameters={**({} if before is None else before.parameters), "file": str(file)},
        parameter_openapi_schema=parameter_schema(automl).model_dump_for_openapi(),
        enforce_parameter_schema=True,
        schedules=[DeploymentScheduleCreate(schedule=as_prefect(schedule), active=True)],
        paused=False,
    )
    return deployment


def as_prefect(schedule: ScheduleConfig) -> SCHEDULE_TYPES:
    """Our schedule as Prefect's."""
    if schedule.cron is not None:
        return CronSchedule(cron=schedule.cron, timezone=schedule.timezone)
    assert schedule.interval is not None
    return IntervalSchedule(interval=datetime.timedelta(seconds=schedule.interval))


async def find(client: PrefectClient, experiment: str) -> DeploymentResponse | None:
    """An experiment's deployment."""
    try:
        return await client.read_deployment_by_name(f"{automl.name}/{experiment}")
    except ObjectNotFound:
        return None


async def find_or_refuse(client: PrefectClient, experiment: str) -> DeploymentResponse:
    """An experiment's deployment.

    Raises:
        InputError: it is not scheduled.
    """
    deployment = await find(client, experiment)
    if deployment is None:
        known = [d.name for d in await client.read_deployments()]
        hint = f"scheduled: {', '.join(sorted(known))}" if known else "nothing is scheduled here"
        raise InputError(f"{experiment} is not scheduled", hint)
    return deployment


async def listed(client: PrefectClient, workspace: Workspace) -> list[Scheduled]:
    """What is scheduled on this machine, by name."""
    return [await _scheduled(client, d) for d in await _mine(client, workspace)]


async def _mine(client: PrefectClient, workspace: Workspace) -> list[DeploymentResponse]:
    pool = WorkPoolFilter(name=WorkPoolFilterName(any_=[pool_name(workspace)]))
    return sorted(await client.read_deployments(work_pool_filter=pool), key=lambda d: d.name)


async def _scheduled(client: PrefectClient, deployment: DeploymentResponse) -> Scheduled:
    schedule = deployment.schedules[0] if deployment.schedules else None
    coming = await _runs(client, deployment.id, [StateType.SCHEDULED], FlowRunSort.NEXT_SCHEDULED_START_TIME_ASC, 1)
    over = [StateType.RUNNING, StateType.COMPLETED, StateType.FAILED, StateType.CRASHED, StateType.CANCELLED]
    last = await _runs(client, deployment.id, over, FlowRunSort.EXPECTED_START_TIME_DESC, 1)
    if schedule is None:
        when = "by hand"
    elif isinstance(schedule.schedule, CronSchedule):
        when = f"{schedule.schedule.cron} {schedule.schedule.timezone or 'UTC'}"
    elif isinstance(schedule.schedule, IntervalSchedule):
        when = f"every {schedule.schedule.interval.total_seconds():g} s"
    else:  # made in Prefect's UI
        when = getattr(schedule.schedule, "rrule", "never")
    return Scheduled(
        experiment=deployment.name,
        when=when,
        paused=deployment.paused or (schedule is not None and not schedule.active),
        next=coming[0].expected_start_time if coming else None,
        last=(last[0].state.message or last[0].state_name) if last and last[0].state else None,
    )


async def _runs(
    client: PrefectClient, deployment: UUID, states: list[StateType], sort: FlowRunSort, limit: int
) -> list[FlowRun]:
    return await client.read_flow_runs(
        flow_run_filter=FlowRunFilter(
            deployment_id=FlowRunFilterDeploymentId(any_=[deployment]),
            state=FlowRunFilterState(type=FlowRunFilterStateType(any_=states)),
        ),
        sort=sort,
        limit=limit,
    )


async def pause(client: PrefectClient, deployment: DeploymentResponse) -> None:
    """Start nothing more. Prefect forgets the ticks to come, but would still start those that are late."""
    await client.pause_deployment(deployment.id)
    late = await _runs(client, deployment.id, [StateType.SCHEDULED], FlowRunSort.NEXT_SCHEDULED_START_TIME_ASC, PAGE)
    for run in late:
        if run.auto_scheduled:
            await client.set_flow_run_state(run.id, Cancelled(message="skipped: the schedule was paused"), force=True)
            await client.update_flow_run(run.id, tags=[*run.tags, "skipped"])


async def tidy(client: PrefectClient, workspace: Workspace, now: datetime.datetime) -> list[str]:
    """Before anything runs: runs whose process died with an earlier `automl serve` are Cancelled, and of the ticks that
    were missed only the latest is caught up with.

    Only for whoever holds this workspace's `serve_lock`: no run of this pool has a process then.

    Returns:
        What was done, a line each.
    """
    done = []
    for deployment in await _mine(client, workspace):
        orphans = [StateType.RUNNING, StateType.PENDING, StateType.CANCELLING]
        for run in await _runs(client, deployment.id, orphans, FlowRunSort.EXPECTED_START_TIME_DESC, PAGE):
            line = f"interrupted: its process ended with `automl serve`; the next run goes on with {deployment.name}"
            await client.set_flow_run_state(run.id, Cancelled(message=line), force=True)
            done.append(f"{run.name}: {line}")
        waiting = await _runs(
            client, deployment.id, [StateType.SCHEDULED], FlowRunSort.NEXT_SCHEDULED_START_TIME_ASC, PAGE
        )
        missed = [run for run in waiting if run.expected_start_time is not None and run.expected_start_time < now]
        for run in missed[:-1]:
            line = f"skipped: nobody served at {run.expected_start_time:%Y-%m-%d %H:%M} UTC; one later tick catches up"
            await client.set_flow_run_state(run.id, Cancelled(message=line), force=True)
            await client.update_flow_run(run.id, tags=[*run.tags, "skipped"])
        if len(missed) > 1:
            done.append(f"{deployment.name}: {len(missed) - 1} missed ticks skipped, one is caught up with")
    return done
