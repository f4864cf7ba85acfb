"""``automl schedule``: put an experiment on a schedule, look at what is scheduled, pause, resume and remove it."""

from __future__ import annotations

import asyncio
import datetime
import os
import shutil
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from flows.commands.loading import experiment_name
from flows.commands.shown import Shown, lines
from flows.environment import configure
from flows.workspace import Workspace, find_workspace
from pipeline.config import ScheduleConfig, load_experiment
from pipeline.errors import ConfigError, InputError
from pipeline.yaml_source import parse_yaml

if TYPE_CHECKING:
    from prefect.client.orchestration import PrefectClient

T = TypeVar("T")
Change = Literal["pause", "resume", "remove"]
NOTHING = 'nothing is scheduled; `automl schedule FILE --cron "0 3 * * *"` schedules'


def schedule_experiment(file: Path, cron: str | None, interval: str | None, timezone: str | None) -> Shown:
    """Put an experiment on the schedule of its file, or on the one given.

    Raises:
        ConfigError: the file, or a schedule that is none.
    """
    given = {"cron": cron, "interval": interval, "timezone": timezone}
    overrides = [f"schedule.{key}={_quoted(value)}" for key, value in given.items() if value is not None]
    if cron is not None:
        overrides.append("schedule.interval=null")
    if interval is not None:
        overrides.append("schedule.cron=null")
    config, workspace = load_experiment(file, tuple(overrides)), _workspace()
    schedule = config.schedule
    if schedule.cron is None and schedule.interval is None:
        raise ConfigError(
            "an experiment needs a schedule to be scheduled", 'use --cron "0 3 * * *" or --interval 1h', file=file
        )
    # Prefect is imported when its settings stand in the environment and its home can be made, and that is from here on.
    new = not workspace.state.exists()
    workspace.create()
    from flows.scheduling.deployments import deploy
    from flows.scheduling.ticks import check_cron

    if schedule.cron is not None:
        where = _where(file) if cron is None else ("--cron", None)
        now = datetime.datetime.now(datetime.UTC)
        try:
            check_cron(schedule.cron, schedule.timezone, now, file=where[0], line=where[1])
        except InputError:
            if new:
                shutil.rmtree(workspace.state)
            raise

    async def go(client: PrefectClient) -> None:
        await deploy(client, workspace, config.name, file, schedule)

    _with_client(go)
    when = _in_words(schedule)
    value = {"experiment": config.name, "schedule": when, "deployment": f"automl/{config.name}"}
    return lines(value, f"{config.name} is scheduled {when}; `automl serve` runs it")


def change_schedule(experiment: str, change: Change) -> Shown:
    """Pause, resume or remove an experiment's schedule.

    Raises:
        InputError: it is not scheduled.
    """
    name = experiment_name(experiment)
    if _nothing_yet(_workspace()):
        raise InputError(f"{name} is not scheduled", "nothing is scheduled here")
    from flows.scheduling.deployments import find_or_refuse, pause

    async def go(client: PrefectClient) -> None:
        deployment = await find_or_refuse(client, name)
        if change == "pause":
            await pause(client, deployment)
        elif change == "resume":
            await client.resume_deployment(deployment.id)
        else:
            await client.delete_deployment(deployment.id)

    _with_client(go)
    past = {"pause": "paused", "resume": "resumed", "remove": "removed"}[change]
    return lines({"experiment": name, "state": past}, f"the schedule of {name} is {past}")


def list_schedules() -> Shown:
    """What is scheduled on this machine."""
    workspace = _workspace()
    if _nothing_yet(workspace):
        return lines([], NOTHING)
    from flows.scheduling.deployments import listed

    rows = _with_client(lambda client: listed(client, workspace))
    value: list[dict[str, Any]] = [asdict(row) for row in rows]
    if not rows:
        return lines(value, NOTHING)
    texts = []
    for row in rows:
        coming = "paused" if row.paused else "not yet planned"
        if row.next is not None and not row.paused:
            coming = f"next {row.next.astimezone(datetime.UTC):%Y-%m-%d %H:%M} UTC"
        texts.append(f"{row.experiment}: {row.when}, {coming}")
        texts += [] if row.last is None else [f"  last: {row.last}"]
    return lines(value, *texts)


def _workspace() -> Workspace:
    workspace = find_workspace()
    configure(workspace.prefect_home)
    return workspace


def _nothing_yet(workspace: Workspace) -> bool:
    """Looking must not create a database."""
    return "PREFECT_API_URL" not in os.environ and not (workspace.prefect_home / "prefect.db").exists()


def _with_client(go: Callable[[PrefectClient], Awaitable[T]]) -> T:
    from flows.scheduling.client import prefect_client

    async def connected() -> T:
        async with prefect_client() as client:
            return await go(client)

    return asyncio.run(connected())


def _where(file: Path) -> tuple[str, int | None]:
    source = parse_yaml(file)
    return source.where(source.longest_known(("schedule", "cron")))


def _quoted(value: str) -> str:
    """As YAML: a cron begins with what YAML takes for an alias."""
    return "'" + value.replace("'", "''") + "'"


def _in_words(schedule: ScheduleConfig) -> str:
    if schedule.cron is not None:
        return f'at "{schedule.cron}" {schedule.timezone}'
    return f"every {schedule.interval:g} s"
