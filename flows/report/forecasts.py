"""The report's section on forecasts: the end of the test as a picture, and the error beside the naive one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from flows.report.html import figure, section
from flows.report.material import Material
from flows.report.svg import Chart, escaped, scale_of
from pipeline.evaluation.forecasts import ForecastReading, Shown

PAST: Final = 3
"""Horizons of the past that are drawn before the first window."""
_LEGEND: Final = "<span class='key'><i class='s0'></i>forecast</span><span class='key'><i class='s1'></i>naive</span>"
_TRUTH: Final = "<span class='key'><i class='s5'></i>truth</span>"


def forecasts(material: Material) -> str:
    """Nothing where the task is another."""
    if material.evaluation is None or material.evaluation.forecast is None:
        return ""
    reading = material.evaluation.forecast
    body = f"<p>On the sealed test the winner {escaped(reading.line)}.</p>"
    for shown in reading.shown:
        of = f"{shown.series}: w" if shown.series else "W"
        n_windows = len(shown.truth) // reading.horizon
        body += figure(
            ahead(shown, reading),
            f"{of}hat came after {shown.origin}, the last {n_windows} windows of the test one after the other.",
            _TRUTH + _LEGEND,
        )
    if reading.horizon > 1:
        body += figure(by_step(reading), "Mean absolute error by how far ahead, over all windows.", _LEGEND)
    return section("Forecasts", body)


def ahead(shown: Shown, reading: ForecastReading) -> str:
    """Truth, forecast and naive forecast of some windows, with what came before."""
    past = shown.past[-max(PAST * reading.horizon, 10) :]
    known = [*past, *shown.truth]
    chart = Chart("Forecasts at the end of the test", width=760, height=300)
    x = scale_of([float(-len(past) + 1), float(len(shown.truth))], *chart.across, pad=0.01)
    y = scale_of([*known, *shown.forecast, *shown.naive], *chart.upward)
    chart.axes(x, y, f"steps after {shown.origin}", "")
    for start in range(0, len(shown.truth), reading.horizon):
        chart.line(x(start + 0.5), chart.top, x(start + 0.5), chart.height - chart.bottom, "axis")
    chart.path([(x(step - len(past) + 1), y(v)) for step, v in enumerate(known)], "s5 l", "truth")
    for values, colour, name in ((shown.naive, "s1", "naive"), (shown.forecast, "s0", "forecast")):
        for start in range(0, len(values), reading.horizon):
            window = values[start : start + reading.horizon]
            _line(chart, [(x(start + 1 + k), y(v)) for k, v in enumerate(window)], colour, name)
    return chart.svg()


def by_step(reading: ForecastReading) -> str:
    """The error of the winner and of the naive forecast, step by step."""
    chart = Chart("Error by steps ahead", width=640, height=240)
    steps = reading.by_step
    x = scale_of([float(step.step) for step in steps], *chart.across)
    y = scale_of([0.0, *(value for step in steps for value in (step.model, step.naive))], *chart.upward)
    chart.axes(x, y, "steps ahead", "mae")
    _line(chart, [(x(step.step), y(step.naive)) for step in steps], "s1", "naive")
    _line(chart, [(x(step.step), y(step.model)) for step in steps], "s0", "forecast")
    return chart.svg()


def _line(chart: Chart, points: Sequence[tuple[float, float]], colour: str, name: str) -> None:
    """A line, or a dot where it has one point."""
    if len(points) == 1:
        chart.dot(*points[0], colour, name)
    else:
        chart.path(points, f"{colour} l strong" if colour == "s0" else f"{colour} l", name)
