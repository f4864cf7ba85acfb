"""Charts as SVG text: axes, marks, words. Everything that is written is escaped; colours are classes of the page's
style, so that it decides on light and dark."""

from __future__ import annotations

import html
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

from pipeline.text import visible

LEFT, RIGHT, TOP, BOTTOM = 56.0, 14.0, 10.0, 36.0
N_TICKS: Final = 5
PAD: Final = 0.05
"""Of an axis's range, left free at both ends."""


def escaped(text: object) -> str:
    """Text that a browser shows as it is, in an element or an attribute."""
    return html.escape(visible(str(text)))


def compact(value: float) -> str:
    """A number for an axis: ``0.95``, ``12k``, ``3e-04``."""
    if value == 0 or not math.isfinite(value):
        return "0" if value == 0 else "?"
    size = abs(value)
    if size >= 1e6:
        return f"{value / 1e6:.3g}M"
    if size >= 1e4:
        return f"{value / 1e3:.3g}k"
    return f"{value:.0e}" if size < 1e-3 else f"{value:.4g}"


@dataclass(frozen=True, slots=True)
class Scale:
    """Values of an axis to positions on it."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def __call__(self, value: float) -> float:
        low, high, value = (math.log10(v) for v in (self.low, self.high, value)) if self.log else (
            self.low, self.high, value,
        )  # fmt: skip
        share = 0.5 if high == low else (value - low) / (high - low)
        return self.start + share * (self.end - self.start)

    def ticks(self) -> list[float]:
        """Round values inside the axis."""
        if self.log:
            low, high = math.ceil(math.log10(self.low)), math.floor(math.log10(self.high))
            decades = [10.0**power for power in range(low, high + 1)]
            return decades if len(decades) > 1 else [self.low, self.high]
        if self.high == self.low:
            return [self.low]
        rough = (self.high - self.low) / N_TICKS
        power = 10 ** math.floor(math.log10(rough))
        step = next(m * power for m in (1, 2, 2.5, 5, 10) if m * power >= rough)
        first = math.ceil(self.low / step)
        return [k * step for k in range(first, math.floor(self.high / step) + 1)]


def scale_of(values: Iterable[float], start: float, end: float, *, log: bool = False, pad: float = PAD) -> Scale:
    """An axis that all finite values fit on."""
    finite = [v for v in values if math.isfinite(v) and (v > 0 or not log)] or [1.0 if log else 0.0]
    low, high = min(finite), max(finite)
    if log and low > 0:
        stretch = (high / low) ** pad if high > low else 2.0
        return Scale(low / stretch, high * stretch, start, end, log=True)
    room = (high - low) * pad if high > low else abs(high) * pad or 1.0
    return Scale(low - room, high + room, start, end)


@dataclass
class Chart:
    """One SVG drawing in the making, `width` by `height` units."""

    title: str
    width: float = 640.0
    height: float = 280.0
    left: float = LEFT
    right: float = RIGHT
    top: float = TOP
    bottom: float = BOTTOM
    parts: list[str] = field(default_factory=list)

    @property
    def across(self) -> tuple[float, float]:
        """Where the x axis starts and ends."""
        return self.left, self.width - self.right

    @property
    def upward(self) -> tuple[float, float]:
        """Where the y axis starts and ends."""
        return self.height - self.bottom, self.top

    def line(self, x1: float, y1: float, x2: float, y2: float, kind: str) -> None:
        self.parts.append(f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" class="{kind}"/>')

    def path(self, points: Sequence[tuple[float, float]], kind: str, tip: str = "") -> None:
        text = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        self.parts.append(f'<polyline points="{text}" class="{kind}">{_tip(tip)}</polyline>')

    def dot(self, x: float, y: float, kind: str, tip: str = "", radius: float = 3.5) -> None:
        self.parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{radius:g}" class="{kind}">{_tip(tip)}</circle>')

    def cross(self, x: float, y: float, kind: str, tip: str = "", size: float = 3.0) -> None:
        d = f"M{x - size:.1f} {y - size:.1f}l{2 * size:g} {2 * size:g}m0 {-2 * size:g}l{-2 * size:g} {2 * size:g}"
        self.parts.append(f'<path d="{d}" class="{kind}">{_tip(tip)}</path>')

    def box(
        self, x: float, y: float, width: float, height: float, kind: str, tip: str = "", opacity: float = 1
    ) -> None:
        see = f' fill-opacity="{opacity:.3f}"' if opacity < 1 else ""
        size = f'width="{max(0.0, width):.1f}" height="{max(0.0, height):.1f}"'
        self.parts.append(f'<rect x="{x:.1f}" y="{y:.1f}" {size} class="{kind}"{see}>{_tip(tip)}</rect>')

    def image(
        self, x: float, y: float, width: float, height: float, png: str, tip: str = "", *, stretch: bool = False
    ) -> None:
        """A PNG in base64, its pixels kept as squares; `stretch` gives it the box's form."""
        form = ' preserveAspectRatio="none"' if stretch else ""
        self.parts.append(
            f'<image x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}"{form} '
            f'href="data:image/png;base64,{escaped(png)}">{_tip(tip)}</image>'
        )

    def text(self, x: float, y: float, words: object, anchor: str = "start", kind: str = "t") -> None:
        self.parts.append(
            f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" class="{kind}">{escaped(words)}</text>'
        )

    def axes(self, x: Scale, y: Scale, x_name: str, y_name: str) -> None:
        """Ticks, a grid, and what the axes are."""
        for value in y.ticks():
            self.line(self.left, y(value), self.width - self.right, y(value), "g")
            self.text(self.left - 6, y(value) + 4, compact(value), "end")
        for value in x.ticks():
            self.text(x(value), self.height - self.bottom + 15, compact(value), "middle")
        self.text((self.left + self.width - self.right) / 2, self.height - 4, x_name, "middle", "n")
        at = f'transform="translate(12 {(self.top + self.height - self.bottom) / 2:.1f}) rotate(-90)"'
        self.parts.append(f'<text {at} text-anchor="middle" class="n">{escaped(y_name)}</text>')

    def svg(self) -> str:
        """The drawing."""
        name = escaped(self.title)
        return (
            f'<svg viewBox="0 0 {self.width:g} {self.height:g}" width="{self.width:g}" role="img" aria-label="{name}">'
            f"{''.join(self.parts)}</svg>"
        )


def _tip(words: str) -> str:
    return f"<title>{escaped(words)}</title>" if words else ""
