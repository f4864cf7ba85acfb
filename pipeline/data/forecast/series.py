"""A table in long format as series: sorted by time, a row a step, in pieces where steps are missing."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import pandas as pd
from pydantic import BaseModel, ConfigDict

from pipeline.data.findings import Finding
from pipeline.data.forecast.clock import Clock, Steps
from pipeline.data.values import numbers, texts
from pipeline.errors import DataError

SHOWN = 3


class Layout(BaseModel):
    """Which columns of a table are what."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    clock: Clock
    target: str
    series: str | None
    covariates: tuple[str, ...]

    @property
    def columns(self) -> tuple[str, ...]:
        """All that is read."""
        return tuple(name for name in (self.clock.column, self.series, self.target, *self.covariates) if name)


@dataclass(frozen=True, slots=True)
class Piece:
    """Steps of one series without a gap.

    Args:
        name: of the series; empty where there is only one.
        steps: ``(T,)``, each one more than the one before.
        values: float64 ``(T, 1 + n_covariates)``, the target first; covariates may be NaN.
    """

    name: str
    steps: Steps
    values: npt.NDArray[np.float64]


def series_codes(frame: pd.DataFrame, column: str | None) -> tuple[npt.NDArray[np.int64], list[str]]:
    """The series of every row, from 0, and their names.

    Raises:
        DataError: a row that belongs to none.
    """
    if column is None:
        return np.zeros(len(frame), dtype=np.int64), [""]
    text = texts(frame[column])
    if text.isna().any():
        row = int(text.isna().to_numpy().argmax()) + 1
        raise DataError(
            f"the series column {column!r} must have a value in every row, but row {row} has none "
            f"({int(text.isna().sum())} such rows)",
            "fill them in or remove the rows",
        )
    codes, names = pd.factorize(text, sort=True)
    return codes.astype(np.int64), [str(name) for name in names]


def read_pieces(frame: pd.DataFrame, layout: Layout, fill: int) -> tuple[list[Piece], tuple[Finding, ...]]:
    """The series in the order of their names, each in pieces in the order of time.

    Args:
        fill: so many missing steps in a row are filled with what was before them.

    Raises:
        DataError: two rows of a series have the same time, or a time or target cannot be read.
    """
    codes, names = series_codes(frame, layout.series)
    steps = layout.clock.steps(frame[layout.clock.column])
    values = np.stack([numbers(frame[name]) for name in (layout.target, *layout.covariates)], axis=1)
    bad = np.flatnonzero(np.isnan(values[:, 0]))
    if len(bad):
        raise DataError(
            f"the target of a forecast must be finite numbers, but {layout.target!r} has "
            f"{str(frame[layout.target].iloc[bad[0]])!r} in row {bad[0] + 1} ({len(bad)} such rows)",
            "fix or remove the rows",
        )
    order = np.lexsort((steps, codes))
    codes, steps, values = codes[order], steps[order], values[order]
    _refuse_repeated(frame, layout, order, codes, steps)
    distances = np.where(np.diff(codes) == 0, np.diff(steps), 1)
    findings = _gaps(layout, names, codes, steps, distances, fill)
    bounds = np.concatenate([[0], np.flatnonzero((np.diff(codes) != 0) | (distances > fill + 1)) + 1, [len(codes)]])
    pieces = [
        _filled(Piece(names[codes[start]], steps[start:end], values[start:end]))
        for start, end in pairwise(bounds.tolist())
    ]
    return pieces, findings


def tails(frame: pd.DataFrame, layout: Layout, fill: int, n_steps: int) -> Iterator[Piece]:
    """The last `n_steps` of every series: what a forecast is made from.

    Raises:
        DataError: a series that is shorter, or has a gap in them.
    """
    missing = [name for name in layout.columns if name not in frame.columns]
    if missing:
        raise DataError(
            f"the table lacks the column{'s' * (len(missing) > 1)} {', '.join(map(repr, missing[:10]))}",
            "add what the model was trained on: forecasts are made from the past of the target itself",
        )
    known = frame[texts(frame[layout.target]).notna().to_numpy()]
    pieces, _ = read_pieces(known.reset_index(drop=True), layout, fill)
    last = {piece.name: piece for piece in pieces}  # pieces are in the order of time
    for name, piece in last.items():
        if len(piece.steps) < n_steps:
            gap = " after its last gap" if sum(other.name == name for other in pieces) > 1 else ""
            raise DataError(
                f"a forecast needs the last {n_steps} steps of a series, but {_called(name)} has "
                f"{len(piece.steps)}{gap}",
                "give it more of the past" + (", or fill the gap in" if gap else ""),
            )
        yield Piece(name, piece.steps[-n_steps:], piece.values[-n_steps:])


def _refuse_repeated(
    frame: pd.DataFrame, layout: Layout, order: npt.NDArray[np.int64], codes: npt.NDArray[np.int64], steps: Steps
) -> None:
    twice = np.flatnonzero((np.diff(codes) == 0) & (np.diff(steps) == 0))
    if len(twice) == 0:
        return
    first, second = sorted((int(order[twice[0]]), int(order[twice[0] + 1])))
    when = str(frame[layout.clock.column].iloc[first])
    within = "" if layout.series is None else f" of series {str(frame[layout.series].iloc[first])!r}"
    raise DataError(
        f"a series must have one row a time, but rows {first + 1} and {second + 1}{within} both have {when!r} "
        f"({len(twice)} repeated times)",
        "remove one of them"
        if layout.series
        else "remove one, or name the column that tells the series apart with data.forecast.series",
    )


def _gaps(
    layout: Layout,
    names: list[str],
    codes: npt.NDArray[np.int64],
    steps: Steps,
    distances: npt.NDArray[np.int64],
    fill: int,
) -> tuple[Finding, ...]:
    at = np.flatnonzero(distances > 1)
    if len(at) == 0:
        return ()
    n_missing, longest = int((distances[at] - 1).sum()), int(distances[at].max()) - 1
    before = layout.clock.times(steps[at[:SHOWN]])
    where = ", ".join(
        f"after {when}" + (f" in {names[codes[row]]}" if names[codes[row]] else "")
        for row, when in zip(at[:SHOWN], before, strict=True)
    )
    filled = int((distances[at] <= fill + 1).sum())
    what = f"{n_missing} steps are missing in {len(at)} gaps"
    done = f"{filled} are filled with the values before them" if filled else "windows do not reach over them"
    return (
        Finding(
            severity="warning" if filled < len(at) else "info",
            subject=layout.clock.column,
            message=f"{what}: {done}",
            evidence=f"{where}; the longest has {longest} steps of {layout.clock.step}",
            remedy=f"add the rows, or set data.forecast.fill: {longest}" if filled < len(at) else "",
            check="values",
        ),
    )


def _filled(piece: Piece) -> Piece:
    """Every step of a piece, the values of missing ones being those of the step before."""
    steps = np.arange(piece.steps[0], piece.steps[-1] + 1)
    if len(steps) == len(piece.steps):
        return piece
    return Piece(piece.name, steps, piece.values[np.searchsorted(piece.steps, steps, side="right") - 1])


def _called(name: str) -> str:
    return f"series {name!r}" if name else "the data"
