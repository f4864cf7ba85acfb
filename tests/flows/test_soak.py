"""``make soak``: five ticks of a real one-minute cron while the data grows; about seven minutes."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.flows.project import make_table, tabular_project
from tests.flows.served import serving, wait_for

pytestmark = pytest.mark.skipif("AUTOML_SOAK" not in os.environ, reason="takes seven minutes; `make soak` runs it")
TICKS = 5


def test_five_ticks_of_a_cron_search_new_data_and_skip_the_rest(tmp_path: Path) -> None:
    project = tabular_project(tmp_path)
    with serving(project, compressed=False) as served:
        project.here("schedule", "small.yaml", "--cron", "* * * * *")
        wait_for(lambda: any("unchanged since" in line for _, line in served.runs("small")))
        make_table(project.folder, n=700, seed=1)
        wait_for(lambda: len(project.searches()) == 2 and len(served.runs("small")) >= TICKS)
        wait_for(lambda: sum(event != "skipped" for event, _ in served.runs("small")) == 2)
        ended = served.runs("small")
        assert served.stop() == 0
    assert {event for event, _ in ended} <= {"promoted", "finished", "skipped"}, ended
    assert ended[0][0] == "promoted"
    assert all(line.startswith("skipped: ") for event, line in ended if event == "skipped"), ended
    assert [search.status for search in project.searches()] == ["finished"] * 2, "one for each data"
    promoted = sum(event == "promoted" for event, _ in ended)
    assert project.champion() == promoted == len(project.moves()), "the alias moves by the gate only"
