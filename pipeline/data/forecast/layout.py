"""Which columns of a table are the time, the series, the target and what is read beside it."""

from __future__ import annotations

import difflib

import numpy as np
import pandas as pd

from pipeline.data.config import ForecastConfig
from pipeline.data.findings import Finding
from pipeline.data.forecast.clock import fit_clock
from pipeline.data.forecast.series import Layout, series_codes
from pipeline.data.infer import NUMERIC_SHARE
from pipeline.data.times import time_format
from pipeline.data.values import numbers, texts
from pipeline.errors import DataError


def find_layout(config: ForecastConfig, frame: pd.DataFrame, target: str) -> tuple[Layout, tuple[Finding, ...]]:
    """Settle the columns.

    Args:
        frame: all columns, the target's too.

    Raises:
        DataError: a column that is named and not there, no time, or times without a regular step.
    """
    features = [str(name) for name in frame.columns if name != target]
    for key in ("time", "series"):
        _check(getattr(config, key), f"data.forecast.{key}", features)
    time = config.time or _only_dates(frame, features)
    codes, _ = series_codes(frame, config.series)
    clock = fit_clock(frame[time], codes, name=time)
    others = [name for name in features if name not in (time, config.series)]
    covariates, findings = _covariates(config, frame, others)
    return Layout(clock=clock, target=target, series=config.series, covariates=covariates), findings


def dates_of(frame: pd.DataFrame, names: list[str]) -> list[str]:
    """Columns of dates."""
    return [name for name in names if frame[name].dtype.kind not in "biuf" and time_format(frame[name]) is not None]


def _only_dates(frame: pd.DataFrame, features: list[str]) -> str:
    found = dates_of(frame, features)
    if len(found) == 1:
        return found[0]
    raise DataError(
        f"the time of a forecast must be named where {len(found)} columns are dates",
        f"set data.forecast.time to one of {', '.join((found or features)[:10])}",
    )


def _covariates(
    config: ForecastConfig, frame: pd.DataFrame, others: list[str]
) -> tuple[tuple[str, ...], tuple[Finding, ...]]:
    """Numeric columns beside the target; what else there is is not used, and said."""
    if config.covariates != "auto":
        for name in config.covariates:
            _check(name, "data.forecast.covariates", others)
            if not _is_numeric(frame[name]):
                raise DataError(
                    f"a covariate must be numbers, but {name!r} has other values",
                    "leave it out of data.forecast.covariates",
                )
        return tuple(dict.fromkeys(config.covariates)), ()
    used = [name for name in others if _is_numeric(frame[name])]
    left = [name for name in others if name not in used]
    if not left:
        return tuple(used), ()
    return tuple(used), (
        Finding(
            severity="info",
            subject=", ".join(left[:5]),
            message=f"{len(left)} column{'s' * (len(left) > 1)} without numbers, or with one value only, not used",
        ),
    )


def _is_numeric(column: pd.Series) -> bool:
    values = numbers(column)
    present = np.isfinite(values)
    n_present = int(texts(column).notna().sum())
    if n_present == 0 or present.sum() < NUMERIC_SHARE * n_present:
        return False
    return bool(np.ptp(values[present]) > 0)


def _check(name: str | None, key: str, names: list[str]) -> None:
    if name is not None and name not in names:
        near = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
        raise DataError(
            f"`{key}` names {name!r}, which is no column beside the target",
            f"did you mean {near[0]!r}?" if near else f"columns: {', '.join(names[:20])}",
        )
