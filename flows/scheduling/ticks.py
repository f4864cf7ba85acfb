"""When a schedule fires, asked of Prefect's own code: a cron that never does, or not on every day it names, is refused.

Measured on Prefect 3.8.8: ``30 2 * * *`` in Europe/Berlin fires at 01:30 on the day that has no 02:30.
"""

from __future__ import annotations

import asyncio
import datetime
from collections.abc import Iterator
from zoneinfo import ZoneInfo

from prefect.server.schemas.schedules import CronSchedule

from pipeline.errors import ConfigError

UTC = datetime.UTC
_HORIZON = datetime.timedelta(days=2 * 366)
"""How far ahead changes of the clock are looked for."""
_CRON_EXAMPLE = 'write minute, hour, day of month, month, day of week, as "0 3 * * *"'


def check_cron(cron: str, timezone: str, now: datetime.datetime, *, file: str | None, line: int | None) -> None:
    """Refuse what would surprise at night.

    Args:
        now: aware; the present.
        file: where the cron was written, for the error; None where it was an argument.

    Raises:
        ConfigError: no cron, one that never fires, or one that names a time which daylight saving skips.
    """
    if len(cron.split()) != 5 and not cron.startswith("@"):
        raise ConfigError(f"a cron must have 5 fields, but got {cron!r}", _CRON_EXAMPLE, file=file, line=line)
    try:
        schedule = CronSchedule(cron=cron, timezone="UTC")
    except ValueError:
        raise ConfigError(f"{cron!r} is not a cron", _CRON_EXAMPLE, file=file, line=line) from None
    if not _fires(schedule, now, None):
        raise ConfigError(f"the cron {cron!r} never fires", "name a date that exists", file=file, line=line)
    for start, end in _skipped_hours(timezone, now):
        # A cron that fires every hour (or minute) loses nothing: there is no such hour to fire in.
        before = _fires(schedule, start - datetime.timedelta(hours=1), start)
        after = _fires(schedule, end, end + datetime.timedelta(hours=1))
        if _fires(schedule, start, end) and not (before and after):
            raise ConfigError(
                f"the cron {cron!r} names a time that does not exist in {timezone} on {start:%Y-%m-%d}: daylight "
                f"saving skips {start:%H:%M} to {end:%H:%M}",
                "choose a time outside that hour, or --timezone UTC",
                file=file,
                line=line,
            )


def _fires(schedule: CronSchedule, start: datetime.datetime, end: datetime.datetime | None) -> bool:
    """Whether it fires in [start, end). Wall clock times stand in as UTC: what the cron names, whatever exists."""
    last = None if end is None else end - datetime.timedelta(seconds=1)
    try:
        return bool(asyncio.run(schedule.get_dates(n=1, start=start, end=last)))
    except ValueError:  # croniter's "failed to find next date"
        return False


def _skipped_hours(timezone: str, now: datetime.datetime) -> Iterator[tuple[datetime.datetime, datetime.datetime]]:
    """Gaps of the wall clock within the horizon, as [start, end) with UTC standing in for the zone."""
    zone = ZoneInfo(timezone)
    step = datetime.timedelta(minutes=30)  # all clocks change on a full or half hour of UTC
    at = now.astimezone(UTC).replace(minute=0, second=0, microsecond=0)
    until = at + _HORIZON
    offset = at.astimezone(zone).utcoffset()
    while at < until:
        after = (at + step).astimezone(zone).utcoffset()
        assert offset is not None
        assert after is not None
        if after > offset:
            change = at + step
            yield change + offset, change + after
        offset, at = after, at + step
