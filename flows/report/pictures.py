"""Drawings with pictures in them: what the winner gets wrong, and where it looks."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from typing import Final

import numpy as np
from PIL import Image

from flows.report.svg import Chart
from pipeline.evaluation.attribution import Attribution, Map
from pipeline.evaluation.pictures import Picture
from pipeline.text import shortened

ACROSS: Final = 8
_INK: Final = np.array([[250, 248, 244], [240, 190, 120], [217, 119, 43], [110, 24, 20]], dtype=np.float64)
"""From nothing to all of it."""


def mistakes(pictures: Sequence[Picture]) -> str:
    """A grid of pictures, under each its true class and what it was taken for."""
    side, step = 68.0, 80.0
    n_rows = -(-len(pictures) // ACROSS)
    width = step * min(ACROSS, len(pictures)) + 8
    chart = Chart("Pictures that the winner gets wrong", width=width, height=n_rows * (side + 38) + 8)
    for at, picture in enumerate(pictures):
        x, y = 10 + step * (at % ACROSS), 8 + (side + 38) * (at // ACROSS)
        sure = "" if picture.probability is None else f", {picture.probability:.0%} sure"
        chart.image(x, y, side, side, picture.png, f"{picture.true} taken for {picture.predicted}{sure}")
        chart.text(x + side / 2, y + side + 13, f"is {shortened(picture.true, 10)}", "middle", "c")
        chart.text(x + side / 2, y + side + 26, f"said {shortened(picture.predicted, 9)}", "middle")
    return chart.svg()


def attention(seen: Attribution) -> str:
    """Class by class where the model looks on average, and one row with its own map."""
    has_images = any(example.png for example in seen.examples)
    return _images(seen) if has_images else _sequences(seen)


def _images(seen: Attribution) -> str:
    side, step, left = 58.0, 66.0, 84.0
    examples = {example.true: example for example in reversed(seen.examples)}
    chart = Chart("Where the model looks", width=left + step * len(seen.mean) + 6, height=26 + 3 * step)
    for row, words in enumerate(("mean map", "an example", "its map")):
        chart.text(left - 8, 26 + step * row + side / 2 + 4, words, "end", "n")
    for at, (name, mean) in enumerate(seen.mean.items()):
        x = left + step * at
        chart.text(x + side / 2, 16, shortened(name, 9), "middle", "c")
        chart.image(x, 24, side, side, heat(mean), f"{name}: mean of all its rows")
        example = examples.get(name) or seen.examples[0]
        said = f"{example.true}, predicted {example.predicted}"
        if example.png is not None:
            chart.image(x, 24 + step, side, side, example.png, said)
        chart.image(x, 24 + 2 * step, side, side, heat(example.map), said)
    return chart.svg()


def _sequences(seen: Attribution) -> str:
    """Maps are a row a feature, a column a stretch of steps."""
    left, width = 96.0, 250.0
    n_features = len(next(iter(seen.mean.values())))
    height = float(min(60, max(14, 6 * n_features)))
    examples = {example.true: example for example in reversed(seen.examples)}
    chart = Chart("Where the model looks", width=left + 2 * width + 30, height=26 + (height + 8) * len(seen.mean))
    chart.text(left + width / 2, 15, "mean map, from the first step to the last", "middle", "n")
    chart.text(left + width * 1.5 + 14, 15, "one sequence", "middle", "n")
    for at, (name, mean) in enumerate(seen.mean.items()):
        y = 22 + (height + 8) * at
        chart.text(left - 8, y + height / 2 + 4, shortened(name, 14), "end", "c")
        chart.image(left, y, width, height, heat(mean), f"{name}: mean of all its rows", stretch=True)
        example = examples.get(name) or seen.examples[0]
        said = f"{example.true}, predicted {example.predicted}"
        chart.image(left + width + 14, y, width, height, heat(example.map), said, stretch=True)
    return chart.svg()


def heat(cells: Map) -> str:
    """A map as a PNG in base64, a pixel a cell; the darkest is the map's largest."""
    shares = np.array(cells, dtype=np.float64)
    shares = shares / (shares.max() or 1.0)
    at = shares * (len(_INK) - 1)
    low = np.minimum(at.astype(int), len(_INK) - 2)
    part = (at - low)[..., None]
    pixels = (_INK[low] * (1 - part) + _INK[low + 1] * part).round().astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG", optimize=True)
    return base64.b64encode(buffer.getvalue()).decode()
