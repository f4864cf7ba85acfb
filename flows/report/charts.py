"""The charts of a report, from records and evaluations to SVG."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Final

from flows.report.svg import Chart, Scale, compact, scale_of
from pipeline.evaluation.calibration import Reliability
from pipeline.evaluation.finalists import Evaluation
from pipeline.evaluation.importance import Importance
from pipeline.evaluation.intervals import Interval
from pipeline.evaluation.mistakes import Confusion, Residuals
from pipeline.evaluation.slices import Slice
from pipeline.objective import METRICS
from pipeline.records import TrialRecord
from pipeline.text import shortened

MOST_AXES: Final = 7
SLICE_NAME: Final = 40
"""Characters of a slice that are shown."""
COLUMN_NAME: Final = 28
HEADING: Final = 50.0
"""Height of a heading and a legend."""
DECADES: Final = 20.0
"""A parameter that spans more than this ratio is drawn on a logarithmic axis."""


def families_of(records: Sequence[TrialRecord]) -> dict[str, str]:
    """Each family's class of colour."""
    return {family: f"s{number}" for number, family in enumerate(sorted({r.family for r in records}))}


def history(records: Sequence[TrialRecord], heading: str = "") -> str:
    """Every trial's score in the order of the trials, and the best so far; with a heading and a legend in it where the
    drawing has no page around it to say them."""
    scored = [r for r in records if r.objective is not None]
    objective, colours = METRICS[records[0].metric], families_of(records)
    chart = Chart("Score of every trial, and the best so far")
    if heading:
        chart.top += HEADING
        chart.height += HEADING
        _head(chart, heading, colours)
    complete = [r for r in scored if r.state == "COMPLETE"]
    x = scale_of([float(r.number) for r in records], *chart.across)
    y = scale_of(_clipped([r.objective or 0.0 for r in scored], complete), *chart.upward)
    chart.axes(x, y, "trial", objective.metric)
    best: list[tuple[float, float]] = []
    for record in scored:
        value = record.objective or 0.0
        if record.state == "COMPLETE" and (not best or objective.better(value, best[-1][1])):
            best.append((float(record.number), value))
    steps = [point for (a, v), (b, w) in pairwise(best) for point in ((a, v), (b, v), (b, w))] or best[:1]
    if best:
        steps = [*steps, (float(records[-1].number), best[-1][1])]
        chart.path([(x(n), y(v)) for n, v in steps], "best")
    for record in scored:
        value = record.objective or 0.0
        tip = f"{record.label}: {value:.4f}, {record.state.lower()} after {len(record.curve)} epochs"
        at = x(record.number), min(max(y(value), chart.top), chart.height - chart.bottom)
        if record.state == "COMPLETE":
            chart.dot(*at, colours[record.family], tip)
        else:
            chart.cross(*at, f"{colours[record.family]} x", tip)
    return chart.svg()


def _head(chart: Chart, heading: str, colours: Mapping[str, str]) -> None:
    chart.text(chart.left, 18, heading, kind="c")
    at, y = chart.left + 4, 38.0
    for family, colour in colours.items():
        chart.dot(at, y, colour)
        chart.text(at + 8, y + 4, family)
        at += 62
    chart.cross(at, y, "s5 x")
    chart.text(at + 8, y + 4, "pruned")
    chart.path([(at + 62, y), (at + 86, y)], "best")
    chart.text(at + 92, y + 4, "best so far")


def curves(records: Sequence[TrialRecord], finalists: Sequence[int], colours: Mapping[str, str]) -> str:
    """The finalists' validation score by epoch."""
    chosen = [record for number in finalists for record in records if record.number == number and record.curve]
    chart = Chart("Validation score of the finalists by epoch")
    metric = records[0].metric
    values = {r.number: [m.metrics[metric] for m in r.curve if metric in m.metrics] for r in chosen}
    x = scale_of([1.0, *(float(len(v)) for v in values.values())], *chart.across)
    every = [v for curve in values.values() for v in curve]
    low, high = _bounds([v for curve in values.values() for v in curve[len(curve) // 4 :]], every)
    y = scale_of([min(max(v, low), high) for v in every], *chart.upward)
    chart.axes(x, y, "epoch", metric)
    floor = chart.height - chart.bottom
    for rank, record in enumerate(chosen):
        points = [(x(epoch), min(max(y(v), chart.top), floor)) for epoch, v in enumerate(values[record.number], 1)]
        chart.path(points, f"{colours[record.family]} l{' strong' if rank == 0 else ''}", record.label)
        if record.best_epoch is not None and record.best_epoch <= len(points):
            chart.dot(*points[record.best_epoch - 1], colours[record.family], f"{record.label}: its best epoch")
    return chart.svg()


def intervals(evaluation: Evaluation, colours: Mapping[str, str]) -> str:
    """The finalists' test scores with their intervals, and where validation had them."""
    metric, finalists = evaluation.metric, evaluation.finalists
    chart = Chart("Test scores with intervals", height=46 + 30 * len(finalists), left=110)
    tests = [f.test[metric] for f in finalists]
    x = scale_of([v for t in tests for v in (t.low, t.high)] + [f.validation for f in finalists], *chart.across)
    for value in x.ticks():
        chart.line(x(value), chart.top, x(value), chart.height - chart.bottom, "g")
        chart.text(x(value), chart.height - chart.bottom + 15, compact(value), "middle")
    chart.text(sum(chart.across) / 2, chart.height - 4, metric, "middle", "n")
    for row, (finalist, test) in enumerate(zip(finalists, tests, strict=True)):
        y, colour = chart.top + 18 + 30 * row, colours[finalist.family]
        chart.text(chart.left - 10, y + 4, f"#{finalist.trial:03d} {finalist.family}", "end")
        chart.line(x(test.low), y, x(test.high), y, f"{colour} whisker")
        chart.dot(x(test.value), y, colour, f"sealed test: {test}", 5)
        chart.cross(x(finalist.validation), y, "v x", f"validation: {finalist.validation:.4f}", 4)
    return chart.svg()


def slices(worst: Sequence[Slice], whole: Interval) -> str:
    """Slices' scores by one metric with their intervals, against all rows."""
    left = _room([s.name for s in worst], SLICE_NAME)
    chart = Chart("Scores by slice", width=440 + left, height=46 + 24 * len(worst), left=left, right=84)
    scores = [(s, s.score) for s in worst if s.score is not None]
    x = scale_of([v for _, score in scores for v in (score.low, score.high)] + [whole.value], *chart.across)
    floor = chart.height - chart.bottom
    for value in x.ticks():
        chart.line(x(value), chart.top, x(value), floor, "g")
        chart.text(x(value), floor + 15, compact(value), "middle")
    chart.text(sum(chart.across) / 2, chart.height - 4, worst[0].metric, "middle", "n")
    chart.line(x(whole.value), chart.top, x(whole.value), floor, "axis")
    for row, (s, score) in enumerate(scores):
        y, colour = chart.top + 14 + 24 * row, "bad" if s.worse else "s0"
        chart.text(chart.left - 10, y + 4, shortened(s.name, SLICE_NAME), "end")
        chart.line(x(score.low), y, x(score.high), y, f"{colour} whisker")
        chart.dot(x(score.value), y, colour, f"{s.name}: {score} on {s.n_rows} rows", 4.5)
        chart.text(chart.width - chart.right + 8, y + 4, f"{s.n_rows:,} rows")
    return chart.svg()


def importance(shares: Mapping[str, float], colour: str) -> str:
    """Parameters by their share of what made trials good."""
    ranked = sorted(shares.items(), key=lambda item: -item[1])[:10]
    chart = Chart("Importance of the parameters", width=420, height=12 + 22 * len(ranked), left=150, bottom=2, top=6)
    x = Scale(0.0, max([v for _, v in ranked] or [1.0]) or 1.0, chart.left, chart.width - 52)
    for row, (name, share) in enumerate(ranked):
        y = chart.top + 22 * row
        chart.text(chart.left - 8, y + 13, name, "end")
        chart.box(chart.left, y + 3, x(share) - chart.left, 13, colour, f"{name}: {share:.1%}")
        chart.text(x(share) + 5, y + 13, f"{share:.0%}")
    return chart.svg()


def column_importance(measured: Importance, most: int) -> str:
    """Columns by how much the score falls without them, with intervals."""
    shown = measured.columns[:most]
    left = _room([c.column for c in shown], COLUMN_NAME)
    chart = Chart("Importance of the columns", width=440 + left, height=46 + 24 * len(shown), left=left, right=70)
    x = scale_of([0.0, *(v for c in shown for v in (c.low, c.high))], *chart.across)
    floor = chart.height - chart.bottom
    for value in x.ticks():
        chart.line(x(value), chart.top, x(value), floor, "g")
        chart.text(x(value), floor + 15, compact(value), "middle")
    chart.text(sum(chart.across) / 2, chart.height - 4, f"{measured.metric} lost", "middle", "n")
    chart.line(x(0), chart.top, x(0), floor, "axis")
    for row, column in enumerate(shown):
        y, colour = chart.top + 14 + 24 * row, "s0" if column.low > 0 else "s5"
        tip = f"{column.column}: {column.drop:.4f} [{column.low:.4f}, {column.high:.4f}]"
        chart.text(chart.left - 10, y + 4, shortened(column.column, COLUMN_NAME), "end")
        chart.line(x(column.low), y, x(column.high), y, f"{colour} whisker")
        chart.dot(x(column.drop), y, colour, tip, 4.5)
        said = f"{column.drop:.4f}" if abs(column.drop) < 1 else compact(column.drop)
        chart.text(chart.width - chart.right + 8, y + 4, said)
    return chart.svg()


def parallel(records: Sequence[TrialRecord], names: Sequence[str], colour: str) -> str:
    """Trials as lines through their parameters to their score; the better, the stronger."""
    objective = METRICS[records[0].metric]
    ranked = sorted(records, key=lambda r: objective.rank_key(r.objective or 0.0), reverse=True)  # the best on top
    names = list(names)[:MOST_AXES]
    chart = Chart("Parameters of the trials", width=760, height=300, left=60, right=60, top=34, bottom=16)
    step = (chart.across[1] - chart.across[0]) / max(1, len(names))
    axes = [_axis([r.params.get(name) for r in ranked], chart) for name in names]
    scores = _clipped([r.objective or 0.0 for r in ranked], [r for r in ranked if r.state == "COMPLETE"])
    axes.append(_axis(scores, chart))
    for column, (name, (_, marks)) in enumerate(zip([*names, objective.metric], axes, strict=True)):
        x = chart.left + column * step
        chart.line(x, chart.top, x, chart.height - chart.bottom, "axis")
        short = name.removesuffix(".name").rsplit(".", 1)[-1]
        chart.text(x, 12 if column % 2 == 0 else 25, short, "middle", "n")
        for y, words in marks:
            chart.text(x + 4, y + 4, words[:12])
    for rank, record in enumerate(ranked):
        strength = "strong" if rank == len(ranked) - 1 else "" if rank >= len(ranked) * 3 // 4 else "faint"
        places = [(chart.left + column * step, at[rank]) for column, (at, _) in enumerate(axes)]
        known = [(x, y) for x, y in places if y is not None]
        chart.path(known, f"{colour} l {strength}", f"{record.label}: {record.objective:.4f}")
    return chart.svg()


def reliability_diagram(measured: Reliability) -> str:
    """How often a class was right against how sure the model was; the diagonal is honest."""
    chart = Chart("Reliability", width=340, height=300)
    x, y = Scale(0, 1, *chart.across), Scale(0, 1, *chart.upward)
    chart.axes(x, y, "probability of the predicted class", "share that is right")
    chart.line(x(0), y(0), x(1), y(1), "axis")
    total = sum(b.n_rows for b in measured.bins)
    chart.path([(x(b.confidence), y(b.accuracy)) for b in measured.bins], "s0 l")
    for b in measured.bins:
        tip = f"{b.n_rows} rows: {b.confidence:.1%} sure, {b.accuracy:.1%} right"
        chart.dot(x(b.confidence), y(b.accuracy), "s0", tip, 3 + 7 * (b.n_rows / total) ** 0.5)
    return chart.svg()


def confusion_matrix(counted: Confusion) -> str:
    """Rows by true class (down) and predicted class (across); shades are shares of a true class."""
    n = len(counted.labels)
    cell = min(44.0, 400.0 / n)
    chart = Chart("Confusion matrix", width=110 + n * cell, height=64 + n * cell, left=92, top=44)
    for i, label in enumerate(counted.labels):
        if n <= 30:
            chart.text(chart.left - 6, chart.top + (i + 0.5) * cell + 4, str(label)[:12], "end")
            chart.text(chart.left + (i + 0.5) * cell, chart.top - 8, str(label)[: 12 if n < 8 else 5], "middle")
        total = sum(counted.rows[i]) or 1
        for j, count in enumerate(counted.rows[i]):
            kind = "right" if i == j else "wrong"
            share = count / total if i == j else min(1.0, 4 * count / total)
            at = chart.left + j * cell, chart.top + i * cell
            tip = (
                f"{label} taken for {counted.labels[j]}: {count} of {total}"
                if i != j
                else f"{label}: {count} of {total}"
            )
            chart.box(*at, cell - 1, cell - 1, "empty", tip)
            if count:
                chart.box(*at, cell - 1, cell - 1, kind, tip, opacity=0.12 + 0.7 * share)
                if cell >= 20:
                    chart.text(at[0] + cell / 2, at[1] + cell / 2 + 4, count, "middle", "c")
    chart.text(chart.left, 14, "predicted", "start", "n")
    chart.text(4, chart.top + 8, "true", "start", "n")
    return chart.svg()


def residual_scatter(seen: Residuals, metric: str) -> str:
    """Predicted against true values; the diagonal is right."""
    chart = Chart("Predicted against true values", width=420, height=340, left=66)
    both = [*seen.true, *seen.predicted]
    x, y = scale_of(both, *chart.across), scale_of(both, *chart.upward)
    chart.axes(x, y, "true value", "predicted")
    chart.line(x(x.low), y(y.low), x(x.high), y(y.high), "axis")
    for true, predicted in zip(seen.true, seen.predicted, strict=True):
        chart.dot(x(true), y(predicted), "s0 thin", f"true {true:.5g}, predicted {predicted:.5g}", 2.5)
    return chart.svg()


def _room(names: Sequence[str], most: int) -> float:
    """Width for the longest of the names at the left of a chart."""
    return 24 + 6.2 * min(most, max((len(name) for name in names), default=0))


def _axis(values: Sequence[object], chart: Chart) -> tuple[list[float | None], list[tuple[float, str]]]:
    """Where each value lies on an axis of a parallel plot, and the axis's marks."""
    low, high = chart.upward
    numbers = [float(v) for v in values if isinstance(v, int | float) and not isinstance(v, bool)]
    if len(numbers) == sum(v is not None for v in values) and len(set(numbers)) > 1:
        log = min(numbers) > 0 and max(numbers) / min(numbers) > DECADES
        scale = scale_of(numbers, low, high, log=log, pad=0.0)
        places = [None if v is None else scale(float(str(v))) for v in values]
        return places, [(scale(v), compact(v)) for v in (min(numbers), max(numbers))]
    levels = sorted({str(v) for v in values if v is not None})
    gap = (low - high) / max(1, len(levels))
    at = {level: low - gap * (number + 0.5) for number, level in enumerate(levels)}
    return [None if v is None else at[str(v)] for v in values], [(y, level) for level, y in at.items()]


def _clipped(values: Sequence[float], complete: Sequence[TrialRecord]) -> list[float]:
    """The values, those far outside of what completed trials reached put on the edge: else one wreck hides the rest."""
    low, high = _bounds([r.objective or 0.0 for r in complete], values)
    return [min(max(value, low), high) for value in values]


def _bounds(good: Sequence[float], every: Sequence[float]) -> tuple[float, float]:
    """Tukey's fences around the good values, or all there are where they are few."""
    if len(good) < 4:
        return min(every, default=0.0), max(every, default=0.0)
    first, _, third = statistics.quantiles(good, n=4)
    room = 2 * (third - first) or abs(third) * 0.02
    return max(min(every), first - room), min(max(every), third + room)
