"""The picture of a search: a mark a trial, the best so far, and no text of a user's that a browser would act on."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import pytest

from flows.report.charts import history
from flows.report.page import picture
from pipeline.records import TrialRecord
from pipeline.training.measurement import State
from tests.tracking.records import record

SVG = "{http://www.w3.org/2000/svg}"


def marks(svg: str, element: str) -> list[str]:
    """What the pointer says of every dot (``circle``) or cross (``path``)."""
    return [
        tip.text or "" for mark in ElementTree.fromstring(svg).iter(SVG + element) for tip in mark.iter(SVG + "title")
    ]


def drawn(records: list[TrialRecord], heading: str = "a search") -> str:
    return picture(history(records, heading))


def search(*trials: tuple[State, float | None]) -> list[TrialRecord]:
    return [record(number, state, objective=score) for number, (state, score) in enumerate(trials)]


def test_every_trial_with_a_score_has_its_mark() -> None:
    records = search(("COMPLETE", 0.5), ("PRUNED", 0.3), ("FAIL", None), ("COMPLETE", 0.7), ("COMPLETE", 0.6))
    svg = drawn(records)
    dots = ["#000 mlp: 0.5000, complete", "#003 mlp: 0.7000, complete", "#004 mlp: 0.6000, complete"]
    assert [tip.split(" after")[0] for tip in marks(svg, "circle")] == dots
    assert [tip.split(" after")[0] for tip in marks(svg, "path")] == ["#001 mlp: 0.3000, pruned"]


@pytest.mark.parametrize(("metric", "steps"), [("accuracy", [0.5, 0.7]), ("log_loss", [0.5, 0.2])])
def test_the_line_goes_from_best_to_best(metric: str, steps: list[float]) -> None:
    records = search(("COMPLETE", 0.5), ("COMPLETE", 0.7), ("PRUNED", 0.1), ("COMPLETE", 0.2))
    svg = drawn([r.model_copy(update={"metric": metric}) for r in records])
    line = re.findall(r'<polyline points="([^"]+)" class="best">', svg)[-1]
    dots = re.findall(r'cy="([\d.]+)" r="3.5" class="s0"><title>#\d+ mlp: ([\d.]+),', svg)
    height_of = {float(score): height for height, score in dots}
    assert list(dict.fromkeys(point.split(",")[1] for point in line.split())) == [height_of[step] for step in steps]


@pytest.mark.parametrize("trials", [[("FAIL", None)], [("COMPLETE", 0.5)], [("COMPLETE", 0.0), ("COMPLETE", 0.0)]])
def test_searches_of_hardly_anything_can_be_drawn(trials: list[tuple[State, float | None]]) -> None:
    ElementTree.fromstring(drawn(search(*trials)))


def test_a_title_is_text() -> None:
    assert "<script>" not in drawn(search(("COMPLETE", 0.5)), "<script>alert(1)</script>")
