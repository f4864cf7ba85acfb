"""What a raw cell means, as a number or as text. Fitting, prediction and labels all ask here, so that they agree."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pandas as pd

MISSING: Final = (
    "", "?", "NA", "N/A", "n/a", "#N/A", "#NA", "NaN", "nan", "-NaN", "-nan", "NULL", "null", "None", "<NA>",
)  # fmt: skip
"""Texts that mean a missing value: those of pandas, and ``?`` as the UCI repository writes it."""

_LARGEST: Final = 1e150
"""Magnitudes are clipped here, so that differences and squares of numbers stay finite in float64."""


def numbers(values: pd.Series | npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """Every value as float64 ``(N,)``; NaN where it is missing, infinite or no number."""
    series = pd.Series(values)
    if series.dtype.kind not in "biuf":
        series = pd.to_numeric(series.astype("str"), errors="coerce")
    result: npt.NDArray[np.float64] = series.to_numpy(dtype=np.float64, copy=True)
    result[~np.isfinite(result)] = np.nan
    return result.clip(-_LARGEST, _LARGEST)


def texts(values: pd.Series | npt.NDArray[Any]) -> pd.Series:
    """Every value as stripped text; missing where it is missing. Whole numbers have no decimal point: 1.0 is ``1``."""
    series = pd.Series(values)
    if series.dtype.kind in "iuf":
        return number_texts(series.to_numpy(dtype=np.float64))
    text = series.astype("str").str.strip()
    return text.mask(text.isin(MISSING))


def number_texts(values: npt.NDArray[np.float64]) -> pd.Series:
    """Numbers as text, the shortest that reads back the same; missing where NaN."""
    codes, distinct = pd.factorize(values + 0.0)  # -0.0 becomes 0.0
    names = np.array(
        [f"{value:.0f}" if value.is_integer() and abs(value) < 1e15 else repr(value) for value in distinct.tolist()],
        dtype=object,
    )
    result = pd.Series(np.full(len(values), None, dtype=object))
    result[codes >= 0] = names[codes[codes >= 0]]
    return result.astype("str")


def all_numbers(values: pd.Series | npt.NDArray[Any]) -> bool:
    """Whether there are values, and all that are not missing are numbers: then ``1``, ``1.0`` and ``01`` are one."""
    distinct = texts(values).dropna().unique()
    return len(distinct) > 0 and not np.isnan(numbers(np.asarray(distinct, dtype=object))).any()


def level_texts(values: pd.Series | npt.NDArray[Any], numeric: bool) -> pd.Series:
    """The level of every value as text; missing where it is missing, and where it is no number among `numeric` ones."""
    return number_texts(numbers(values)) if numeric else texts(values)
