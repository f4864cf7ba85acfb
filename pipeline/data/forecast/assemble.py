"""From a table of series to prepared windows in memory: find the step, cut, divide by time, fit on the past."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch

from pipeline.data.assemble import Assembled, preparation_fingerprint, target_of
from pipeline.data.config import DataConfig
from pipeline.data.dataset import Dataset
from pipeline.data.findings import Finding
from pipeline.data.forecast.clock import Clock, Steps
from pipeline.data.forecast.layout import find_layout
from pipeline.data.forecast.parts import divide, find_cuts
from pipeline.data.forecast.series import Layout, Piece, read_pieces
from pipeline.data.forecast.settle import Settled, lagged_error, settle
from pipeline.data.forecast.windows import Windows, cut_windows
from pipeline.data.identity import KnownRows
from pipeline.data.preprocess import ForecastPreprocessor, encode_target
from pipeline.data.preprocess.forecast import fit_forecast
from pipeline.data.profile import profile
from pipeline.data.slicing import Slicing
from pipeline.data.spec import DataSpec
from pipeline.data.split import Split
from pipeline.data.tensors import Development, Part
from pipeline.errors import DataError

FEW_HORIZONS = 7
"""A test part of fewer horizons has no three blocks of windows, two horizons each, without a target in common."""


def assemble_forecast(config: DataConfig, data: Dataset, separate_test: Dataset | None) -> Assembled:
    """Prepare labelled rows of series; `separate_test` has the rows after them where the config names a file for it.

    Raises:
        DataError: the rows are no regular series, or too few for context, horizon and three parts.
    """
    wanted, name = config.forecasting, config.target or "target"
    table = _table(data, name)
    rows = table if separate_test is None else pd.concat([table, _table(separate_test, name)], ignore_index=True)
    layout, layout_findings = find_layout(wanted, rows, name)
    steps = layout.clock.steps(rows[layout.clock.column])
    test_from = None if separate_test is None else _test_from(steps, len(table), layout.clock)
    pieces, gap_findings = read_pieces(rows, layout, wanted.fill)
    # The horizon may wait for the calendar, and the shares of the parts for the horizon.
    least = wanted.horizon if wanted.horizon != "auto" else 1
    past = _before(pieces, find_cuts(steps[: len(table)], config.split, least, test_from).validation_from)
    settled = settle(wanted, layout.clock, past)
    cuts = find_cuts(steps[: len(table)], config.split, settled.horizon, test_from)
    past = _before(pieces, cuts.validation_from)
    cycles = layout.clock.cycles_within(max(len(piece.steps) for piece in past))
    windows = cut_windows(pieces, layout.clock, cycles, context=settled.context, horizon=settled.horizon)
    n_folds = config.split.folds if config.split.by == "kfold" else 0
    split = divide(windows.origins, settled.horizon, cuts, n_folds)
    fitted = np.flatnonzero(windows.origins + settled.horizon < cuts.validation_from)
    preprocessor = fit_forecast(
        layout,
        past,
        [windows.inputs[row] for row in fitted],
        horizon=settled.horizon,
        season=settled.season,
        fill=wanted.fill,
        cycles=cycles,
    )
    dataset = _as_dataset(windows, preprocessor, data.name)
    spec = _spec(preprocessor, target_of(dataset)[fitted], split, past, settled, n_folds)
    train = _part(preprocessor, spec, dataset.take(split.train))
    covariates = dict.fromkeys(layout.covariates, "numeric")
    developed = dataset.take(np.concatenate([split.train, split.validation]))
    return Assembled(
        development=Development(
            spec=spec,
            train=train,
            validation=train if n_folds else _part(preprocessor, spec, dataset.take(split.validation)),
            fingerprint=preparation_fingerprint(config, data, separate_test),
            folds=None if split.folds is None else torch.from_numpy(split.folds),
            moments=None if split.folds is None else torch.from_numpy(windows.origins[split.train]),
        ),
        preprocessor=preprocessor,
        test=dataset.take(split.test),
        findings=(
            *data.findings,
            *layout_findings,
            *gap_findings,
            *_said(layout, settled, split, windows),
        ),
        known=KnownRows.of(developed.features),
        slicing=Slicing(target=layout.target),  # windows overlap: no slice of them is rows of its own
        profile=profile(_rows(rows[steps < cuts.test_from], layout), covariates, name, is_quantity=True),
        split_hash=split.digest,
        n_rows=len(rows),
    )


def _table(data: Dataset, target: str) -> pd.DataFrame:
    """All columns, the target's at the end."""
    if not isinstance(data.features, pd.DataFrame):
        raise DataError(
            f"a forecast needs a table of series, but the data is {data.kind} data", "set data.kind to auto"
        )
    return data.features.assign(**{target: target_of(data)})


def _rows(table: pd.DataFrame, layout: Layout) -> Dataset:
    """The rows themselves, which windows repeat many times."""
    target = table[layout.target].to_numpy()
    return Dataset("tabular", table[list(layout.covariates)].reset_index(drop=True), target, layout.target)


def _test_from(steps: Steps, n_source: int, clock: Clock) -> int:
    """The first step of a separate test, which comes after the source."""
    latest, first = steps[:n_source].max(), steps[n_source:].min()
    if first <= latest:
        begins, ends = clock.times(np.array([first, latest]))
        raise DataError(
            f"`data.test` must come after `data.source` in time, but begins at {begins}, and the source ends at {ends}",
            "leave data.test out, so that the last rows are the test",
        )
    return int(first)


def _before(pieces: Sequence[Piece], step: int) -> list[Piece]:
    """What of the pieces lies before a step."""
    ends = [int(np.searchsorted(piece.steps, step)) for piece in pieces]
    return [
        Piece(piece.name, piece.steps[:end], piece.values[:end])
        for piece, end in zip(pieces, ends, strict=True)
        if end > 0
    ]


def _as_dataset(windows: Windows, preprocessor: ForecastPreprocessor, name: str) -> Dataset:
    """Windows as rows; what is learned is how the future differs from the naive forecast."""
    times = preprocessor.layout.clock.times(windows.origins)
    origins = pd.DataFrame(
        {"series": windows.names.astype(str), "step": windows.origins, "time": [str(time) for time in times]}
    )
    target = windows.ahead - preprocessor.naive(windows.inputs)
    return Dataset("forecast", windows.inputs, target, name, origins=origins)


def _part(preprocessor: ForecastPreprocessor, spec: DataSpec, dataset: Dataset) -> Part:
    return Part(preprocessor.transform(dataset.features), encode_target(spec, target_of(dataset)))


def _spec(
    preprocessor: ForecastPreprocessor,
    trained: npt.NDArray[Any],
    split: Split,
    past: Sequence[Piece],
    settled: Settled,
    n_folds: int,
) -> DataSpec:
    error = lagged_error(past, preprocessor.season)
    return DataSpec(
        kind="forecast",
        task="forecast",
        n_steps=preprocessor.n_steps,
        n_features=preprocessor.n_features,
        horizon=preprocessor.horizon,
        season=preprocessor.season,
        seasons=tuple(season for season in settled.errors if preprocessor.season != season <= preprocessor.n_steps),
        naive_error=error if np.isfinite(error) else 0.0,
        target_mean=float(trained.mean()),
        target_scale=float(trained.std()) or preprocessor.scale,
        n_train=len(split.train),
        n_validation=len(split.train) if n_folds else len(split.validation),
        n_folds=n_folds,
    )


def _said(layout: Layout, settled: Settled, split: Split, windows: Windows) -> tuple[Finding, ...]:
    """What was decided, and why."""
    clock, horizon = layout.clock, settled.horizon
    n_series = len(set(windows.names.tolist()))
    tried = ", ".join(f"{season}: {error:.4g}" for season, error in settled.errors.items())
    ranges = []
    parts = [("training", split.train), ("validation", split.validation), ("test", split.test)]
    if split.folds is not None:
        parts[1] = (f"of it the {split.folds.max() + 1} folds", split.train[split.folds >= 0])
    for part, rows in parts:
        ends = clock.times(np.array([windows.origins[rows].min() + 1, windows.origins[rows].max() + horizon]))
        ranges.append(f"{part} {ends[0]} to {ends[1]}")
    used = len(split.train) + len(split.validation) + len(split.test)
    said = [
        Finding(
            severity="info",
            subject=layout.target,
            message=f"{horizon} steps of {clock.step} are forecast from {settled.context}, as differences to the naive "
            f"forecast, which repeats the last {'value' if settled.season == 1 else f'{settled.season} steps'}",
            evidence=f"{n_series} series; naive error on the training part by season: {tried}",
        ),
        Finding(
            severity="info",
            subject="split",
            message=f"windows are divided by the time of what they predict: {', '.join(ranges)}",
            evidence=f"{len(windows) - used} windows that reach over a border are left out",
        ),
    ]
    steps = int(windows.origins[split.test].max() - windows.origins[split.test].min()) + horizon
    if steps < FEW_HORIZONS * horizon:
        said.append(
            Finding(
                severity="warning",
                subject="split",
                message="most of the test's windows predict the same steps: its intervals are too narrow",
                evidence=f"{len(split.test)} windows over {steps} steps, {steps / horizon:.1f} horizons",
                remedy="add rows, raise data.split.test or lower data.forecast.horizon",
            )
        )
    return tuple(said)
