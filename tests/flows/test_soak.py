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
        for tick in range(1, TICKS + 1):
            wait_for(lambda n=tick: len(served.runs("small")) >= n, 150)
            if tick == 2:
                make_table(project.folder, n=700, seed=1)
        ended = served.runs("small")
        assert served.stop() == 0
    assert {name for name, _ in ended} <= {"promoted", "finished", "skipped"}, ended
    assert ended[0][0] == "promoted"
    assert ended[1][1].startswith("skipped: the data is unchanged")
    assert len(project.searches()) == 2, "one for each data"
    for search in project.searches():
        assert search.status == "finished"
    promoted = sum(name == "promoted" for name, _ in ended)
    assert project.champion() == promoted == len(project.moves()), "the alias moves by the gate only"
