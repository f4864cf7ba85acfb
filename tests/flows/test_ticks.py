"""Crons that would surprise at night are refused when they are scheduled."""

from __future__ import annotations

import datetime
from pathlib import Path

import pytest

from flows.scheduling.ticks import check_cron
from pipeline.errors import ConfigError
from tests.flows.project import TABULAR, Project, make_table

NOW = datetime.datetime(2026, 11, 21, 12, 0, tzinfo=datetime.UTC)


@pytest.mark.parametrize(
    ("cron", "timezone"),
    [
        ("0 3 * * *", "Europe/Berlin"),
        ("*/15 * * * *", "Europe/Berlin"),
        ("30 * * * *", "America/New_York"),
        ("30 2 * * *", "UTC"),
        ("30 2 * * *", "Asia/Tokyo"),
        ("30 2 1 1 *", "Europe/Berlin"),
        ("0 0 29 2 *", "UTC"),
        ("0 6 * * mon-fri", "Europe/Lisbon"),
        ("@daily", "UTC"),
    ],
)
def test_crons_that_fire_whenever_they_say_are_taken(cron: str, timezone: str) -> None:
    check_cron(cron, timezone, NOW, file=None, line=None)


@pytest.mark.parametrize(
    ("cron", "timezone", "what"),
    [
        ("30 2 30 2 *", "UTC", "'30 2 30 2 *' never fires; name a date that exists"),
        ("0 0 31 4 *", "UTC", "never fires"),
        ("0 3 * *", "UTC", "must have 5 fields"),
        ("0 3 * * * *", "UTC", "must have 5 fields"),
        ("", "UTC", "must have 5 fields"),
        ("61 3 * * *", "UTC", "is not a cron"),
        ("a b c d e", "UTC", "is not a cron"),
        ("@nightly", "UTC", "is not a cron"),
        (
            "30 2 * * *",
            "Europe/Berlin",
            "does not exist in Europe/Berlin on 2027-03-28: daylight saving skips 02:00 to 03:00",
        ),
        ("0 2 * * *", "America/New_York", "on 2027-03-14"),
        ("15 2 * * *", "Australia/Lord_Howe", "daylight saving skips 02:00 to 02:30"),
        ("30 2 28 3 *", "Europe/Berlin", "on 2027-03-28"),
    ],
)
def test_others_are_refused_with_the_place_and_a_remedy(cron: str, timezone: str, what: str) -> None:
    with pytest.raises(ConfigError) as caught:
        check_cron(cron, timezone, NOW, file="small.yaml", line=7)
    assert what in str(caught.value)
    assert str(caught.value).startswith("small.yaml:7: ")
    assert "; " in str(caught.value), "what to do"


def test_a_schedule_that_is_refused_leaves_nothing_behind(tmp_path: Path) -> None:
    project = Project(tmp_path)
    make_table(tmp_path)
    project.file.write_text(TABULAR + 'schedule: {cron: "30 2 30 2 *"}\n')
    refused = project.automl("schedule", "small.yaml", code=2).err
    assert refused == "error: small.yaml:6: the cron '30 2 30 2 *' never fires; name a date that exists\n"
    assert project.automl("schedule", "small.yaml", "--cron", "0 3 * *", code=2).err.startswith("error: --cron: ")
    assert not project.state.exists()
