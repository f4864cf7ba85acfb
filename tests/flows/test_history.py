"""The picture of a search: a mark a trial, the best so far, and no text of a user's that a browser would act on."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import pytest

from flows.stages.history import history_svg
from pipeline.records import TrialRecord
from pipeline.training.measurement import State
from tests.tracking.records import record

SVG = "{http://www.w3.org/2000/svg}"


def marks(svg: str, element: str) -> list[str]:
    """What the pointer says of every dot (``circle``) or cross (``path``)."""
    return [
        tip.text or "" for mark in ElementTree.fromstring(svg).iter(SVG + element) for tip in mark.iter(SVG + "title")
    ]


def search(*trials: tuple[State, float | None]) -> list[TrialRecord]:
    return [record(number, state, objective=score) for number, (state, score) in enumerate(trials)]


def test_every_trial_with_a_score_has_its_mark() -> None:
    records = search(("COMPLETE", 0.5), ("PRUNED", 0.3), ("FAIL", None), ("COMPLETE", 0.7), ("COMPLETE", 0.6))
    svg = history_svg(records, "a search")
    assert marks(svg, "circle") == [f"#{n:03d} mlp: {score}, complete" for n, score in ((0, 0.5), (3, 0.7), (4, 0.6))]
    assert marks(svg, "path") == ["#001 mlp: 0.3, pruned"]


@pytest.mark.parametrize(("metric", "steps"), [("accuracy", [0.5, 0.7]), ("log_loss", [0.5, 0.2])])
def test_the_line_goes_from_best_to_best(metric: str, steps: list[float]) -> None:
    records = search(("COMPLETE", 0.5), ("COMPLETE", 0.7), ("PRUNED", 0.1), ("COMPLETE", 0.2))
    svg = history_svg([r.model_copy(update={"metric": metric}) for r in records], "a search")
    [line] = re.findall(r'<path d="(M[^"]+)" fill="none"', svg)
    dots = re.findall(r'cy="([\d.]+)" r="4"[^>]*><title>#\d+ mlp: ([\d.]+),', svg)
    height_of = {float(score): height for height, score in dots}
    assert re.findall(r"(?:M[\d.]+ |V)([\d.]+)", line) == [height_of[step] for step in steps]


@pytest.mark.parametrize("trials", [[], [("FAIL", None)], [("COMPLETE", 0.5)], [("COMPLETE", 0.0), ("COMPLETE", 0.0)]])
def test_searches_of_hardly_anything_can_be_drawn(trials: list[tuple[State, float | None]]) -> None:
    ElementTree.fromstring(history_svg(search(*trials), "a search"))


def test_a_title_is_text() -> None:
    assert "<script>" not in history_svg(search(("COMPLETE", 0.5)), "<script>alert(1)</script>")
