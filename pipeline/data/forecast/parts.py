"""Windows in training, validation and test part: divided by the times that they are to predict, the past before the
future.

::

    steps     0 ........................... validation_from ........... test_from ............. end
    train     [ context ][ ahead ]|
    validation                [ context ]|[ ahead ]        |
    test                                          [ context ]|[ ahead ]

A window belongs to the part in which all of its steps ahead lie. Those that lie in two parts are left out, so that
nothing a part is measured by was ever a target of an earlier one. What a window reads may lie in an earlier part: it is
the past by then.

By kfold the second half of what is not the test is divided into folds, one after the other; each trains on all that was
over before it, so that the folds walk forward and what they train on grows.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pipeline.data.config import SplitConfig
from pipeline.data.forecast.clock import Steps
from pipeline.data.split import Split
from pipeline.errors import DataError

MIN_WINDOWS = 10
"""Fewer training windows than this teach nothing."""


@dataclass(frozen=True, slots=True)
class Cuts:
    """The first steps of the validation and of the test part."""

    validation_from: int
    test_from: int


def find_cuts(steps: Steps, config: SplitConfig, horizon: int, test_from: int | None) -> Cuts:
    """Where the parts begin: their shares are of the steps that have rows, and a horizon at least.

    Args:
        steps: of all rows of the source, of all series.
        test_from: the first step of a separate test, which takes no rows of the source.

    Returns:
        By kfold the first fold begins where the validation part would.

    Raises:
        DataError: nothing is left to train on.
    """
    distinct = np.unique(steps)
    n_test = 0 if test_from is not None else max(horizon, round(config.test * len(distinct)))
    n_validation = max(horizon, round(config.validation * len(distinct)))
    if config.by == "kfold":
        n_validation = max(horizon, (len(distinct) - n_test) // 2)
    n_train = len(distinct) - n_test - n_validation
    if n_train < 2:
        raise DataError(
            f"{len(distinct)} steps cannot be divided into three parts of at least {horizon} steps, the horizon",
            "add rows, or lower data.forecast.horizon",
        )
    after = int(distinct[-1]) + 1 if test_from is None else test_from
    return Cuts(int(distinct[n_train]), int(distinct[-n_test]) if n_test else after)


def divide(origins: Steps, horizon: int, cuts: Cuts, n_folds: int = 0) -> Split:
    """The windows of each part, by their numbers.

    Args:
        n_folds: so many folds that walk forward instead of one validation part; 0 for that.

    Raises:
        DataError: a part without any, or too few to train on.
    """
    first, last = origins + 1, origins + horizon
    train = np.flatnonzero(last < cuts.validation_from)
    validation = np.flatnonzero((first >= cuts.validation_from) & (last < cuts.test_from))
    test = np.flatnonzero(first >= cuts.test_from)
    least = max(1, n_folds)
    for name, rows, needed in (("training", train, MIN_WINDOWS), ("validation", validation, least), ("test", test, 1)):
        if len(rows) < needed:
            raise DataError(
                f"the {name} part must have {needed} or more windows, but has {len(rows)}",
                "add rows, lower data.forecast.horizon or context, or fill gaps with data.forecast.fill",
            )
    if not n_folds:
        return Split(train, validation, test)
    developed = np.flatnonzero(last < cuts.test_from)
    starts = np.unique(origins[validation])
    if len(starts) < n_folds:
        raise DataError(
            f"{n_folds} folds need as many different times, but there are {len(starts)}", "lower their number"
        )
    bounds = starts[np.arange(n_folds) * len(starts) // n_folds]
    folds = np.searchsorted(bounds, origins[developed], side="right") - 1
    return Split(developed, validation[:0], test, folds)
