"""A search at a glance: every trial's score by number, and the best so far, as an SVG that stands for itself."""

from __future__ import annotations

import html
import math
from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from pipeline.objective import METRICS
from pipeline.records import TrialRecord

WIDTH, HEIGHT = 900, 380
LEFT, RIGHT, TOP, BOTTOM = 74, 20, 66, 46
LEGEND = 46
COLOURS = {"mlp": "#3b6fb6", "cnn": "#d1762c", "lstm": "#3f9a5f"}
OTHER = "#8a5fb0"
INK, GRID, PRUNED = "#333333", "#e3e3e3", "#9aa0a6"
SHOWN_SHARE = 0.6
"""Of the scores, the best: those that went nowhere would press the others into a line. They are drawn at the edge."""


def history_svg(records: Sequence[TrialRecord], title: str) -> str:
    """Dots are completed trials, crosses pruned ones, the line the best so far. Trials without a score are left out."""
    scored = [r for r in records if r.objective is not None and math.isfinite(r.objective) and r.state != "FAIL"]
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}" '
        'font-family="system-ui, sans-serif" font-size="12">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
        f'<text x="{LEFT}" y="24" font-size="15" fill="{INK}">{html.escape(title)}</text>',
    ]
    parts += _drawn(scored) if scored else [f'<text x="{LEFT}" y="80" fill="{INK}">no trial has a score</text>']
    return "\n".join([*parts, "</svg>"])


def _drawn(scored: Sequence[TrialRecord]) -> Iterator[str]:
    metric = METRICS[scored[0].metric]
    scores = np.array([record.objective for record in scored], dtype=np.float64)
    low, high = _range(scores, maximize=metric.direction == "maximize")
    last = max(record.number for record in scored)

    def x(number: float) -> float:
        return LEFT + 8 + (WIDTH - LEFT - RIGHT - 16) * number / max(1, last)

    def y(score: float) -> float:
        share = (min(max(score, low), high) - low) / (high - low)
        return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * share

    for tick in _ticks(low, high):
        yield f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y(tick):.1f}" y2="{y(tick):.1f}" stroke="{GRID}"/>'
        yield f'<text x="{LEFT - 8}" y="{y(tick) + 4:.1f}" text-anchor="end" fill="{INK}">{tick:.4g}</text>'
    for tick in _ticks(0, last):
        if tick.is_integer():
            yield f'<text x="{x(tick):.1f}" y="{HEIGHT - 26}" text-anchor="middle" fill="{INK}">{tick:.0f}</text>'
    yield f'<text x="{WIDTH / 2:.0f}" y="{HEIGHT - 8}" text-anchor="middle" fill="{INK}">trial</text>'
    yield (
        f'<text transform="translate(16 {HEIGHT / 2:.0f}) rotate(-90)" text-anchor="middle" fill="{INK}">'
        f"validation {metric.metric}</text>"
    )
    steps: list[str] = []
    best = metric.worst
    for record in scored:
        if record.state == "COMPLETE" and metric.better(record.objective or 0.0, best):
            steps += [] if not steps else [f"H{x(record.number):.1f}"]
            best = record.objective or 0.0
            steps.append(f"{'V' if steps else 'M' + format(x(record.number), '.1f') + ' '}{y(best):.1f}")
    if steps:
        yield f'<path d="{" ".join([*steps, f"H{x(last):.1f}"])}" fill="none" stroke="{INK}" stroke-width="1.2"/>'
    for record in scored:
        yield _mark(record, x(record.number), y(record.objective or 0.0))
    yield from _legend(list(dict.fromkeys(record.family for record in scored)))


def _mark(record: TrialRecord, x: float, y: float) -> str:
    tip = f"<title>{html.escape(record.label)}: {record.objective:.5g}, {record.state.lower()}</title>"
    if record.state == "PRUNED":
        cross = f"M{x - 3:.1f} {y - 3:.1f}l6 6m0 -6l-6 6"
        return f'<path d="{cross}" stroke="{COLOURS.get(record.family, OTHER)}" stroke-opacity="0.55">{tip}</path>'
    return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" fill="{COLOURS.get(record.family, OTHER)}">{tip}</circle>'


def _legend(families: Sequence[str]) -> Iterator[str]:
    at = LEFT + 4
    for family in families:
        yield f'<circle cx="{at}" cy="{LEGEND}" r="4" fill="{COLOURS.get(family, OTHER)}"/>'
        yield f'<text x="{at + 9}" y="{LEGEND + 4}" fill="{INK}">{html.escape(family)}</text>'
        at += 70
    yield f'<path d="M{at - 3} {LEGEND - 3}l6 6m0 -6l-6 6" stroke="{PRUNED}"/>'
    yield f'<text x="{at + 9}" y="{LEGEND + 4}" fill="{INK}">pruned</text>'
    yield f'<path d="M{at + 70} {LEGEND}h24" stroke="{INK}"/>'
    yield f'<text x="{at + 100}" y="{LEGEND + 4}" fill="{INK}">best so far</text>'


def _range(scores: npt.NDArray[np.float64], *, maximize: bool) -> tuple[float, float]:
    """What the axis shows: the best scores, with some air."""
    low, high = float(scores.min()), float(scores.max())
    if maximize:
        low = float(np.quantile(scores, 1 - SHOWN_SHARE))
    else:
        high = float(np.quantile(scores, SHOWN_SHARE))
    air = 0.06 * (high - low) or 0.05 * abs(high) or 1.0
    return low - air, high + air


def _ticks(low: float, high: float) -> list[float]:
    """Round numbers within, about five."""
    if high <= low:
        return [float(low)]
    step = 10 ** math.floor(math.log10((high - low) / 4))
    step *= next(factor for factor in (1, 2, 5, 10) if (high - low) / (step * factor) <= 6)
    first = math.ceil(low / step)
    return [float(step * n) for n in range(first, math.floor(high / step) + 1)]
