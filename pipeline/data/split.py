"""One division of row numbers into training, validation and test part.

Chance is a lottery: every row (every group, where groups stay whole) has a number that its content and the seed decide,
and the lowest are held out, in each class its share. So the parts have exact sizes, and where rows are added to the
data the others stay where they are, but for the few at the end of a part: what yesterday's model was trained on is
seldom in today's test, and can be recognised there (`pipeline.data.identity`).
"""

from __future__ import annotations

import hashlib
import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from sklearn.model_selection import GroupKFold, KFold, StratifiedKFold

from pipeline.data.config import SplitConfig
from pipeline.data.dataset import Rows
from pipeline.data.findings import Finding
from pipeline.data.identity import Hashes, draw_order, text_hashes
from pipeline.data.times import stamps, time_format
from pipeline.data.values import numbers, texts
from pipeline.errors import DataError

SMALL_VALIDATION = 250
"""A validation part of fewer rows is cross-validated instead: at 95 % accuracy the standard error of 250 rows is 1.4
points, more than what good trials differ by, so a search of many trials would choose by luck."""


@dataclass(frozen=True, slots=True)
class Split:
    """Row numbers of the source, ascending and disjoint. `test` is empty where the test is a file of its own,
    `validation` where there are folds."""

    train: Rows
    validation: Rows
    test: Rows
    folds: Rows | None = None
    """By kfold: the fold in which each row of `train` is validated, from 0."""

    @property
    def digest(self) -> str:
        """sha256 of the row numbers: equal digests, equal splits."""
        parts = (self.train, self.validation, self.test, *(() if self.folds is None else (self.folds,)))
        return hashlib.sha256(
            b"".join(len(p).to_bytes(8, "little") + p.astype("<i8").tobytes() for p in parts)
        ).hexdigest()


def make_split(
    config: SplitConfig,
    hashes: Hashes,
    *,
    classes: npt.NDArray[np.int64] | None,
    key: pd.Series | None,
    with_test: bool,
) -> tuple[Split, tuple[Finding, ...]]:
    """Divide rows by the config. The same config, seed and data give the same split.

    Args:
        hashes: one for each row, of its content.
        classes: class codes of the rows, None for regression.
        key: the values of ``split.column`` where the split is by group or time.
        with_test: False where the test is a file of its own: all rows are development rows then.

    Raises:
        DataError: too few groups, a key with missing values, or stamps that cannot be read.
    """
    by = config.by if config.by != "auto" else "random" if classes is None else "stratified"
    if by == "stratified" and classes is None:
        raise DataError("a stratified split needs classes, but the task is regression", "set data.split.by to random")
    n_rows = len(hashes)
    n_test = max(1, round(config.test * n_rows)) if with_test else 0
    n_validation = max(1, round(config.validation * n_rows))
    small = n_validation < SMALL_VALIDATION and n_rows - n_test >= 2 * config.folds
    if by == "kfold" or (config.by == "auto" and small):
        return _cross_validation(config, hashes, n_test, classes, key)
    everything: Rows = np.arange(n_rows)
    findings: list[Finding] = []
    if by == "time":
        assert key is not None
        return _by_time(_stamps(key), n_validation, n_test), ()
    if by == "group":
        assert key is not None
        groups, places = _groups(key, with_test, config.seed)
        rest, test = _hold_out_groups(everything, groups, n_test, places)
        train, validation = _hold_out_groups(rest, groups, n_validation, places)
        return Split(train, validation, test), ()
    strata, places = classes if by == "stratified" else None, draw_order(hashes, config.seed)
    rest, test = _hold_out(everything, strata, n_test, places, findings)
    train, validation = _hold_out(rest, strata, n_validation, places, findings)
    return Split(train, validation, test), tuple({finding.message: finding for finding in findings}.values())


def _hold_out(
    rows: Rows, classes: npt.NDArray[np.int64] | None, n_held: int, places: Hashes, findings: list[Finding]
) -> tuple[Rows, Rows]:
    """Take the `n_held` rows with the lowest places out, with the classes' shares kept. A row that is alone in its
    class stays in training."""
    if n_held == 0:
        return rows, rows[:0]
    if classes is None:
        return _divided(rows, rows[np.argsort(places[rows], kind="stable")[:n_held]])
    count_of_row = np.bincount(classes[rows])[classes[rows]]
    alone, several = rows[count_of_row < 2], rows[count_of_row >= 2]
    n_classes = len(np.unique(classes[several]))
    if n_held < n_classes or len(several) - n_held < n_classes:
        findings.append(
            Finding(
                severity="warning",
                subject="split",
                message=f"{n_held} held-out rows cannot hold {n_classes} classes in proportion: drawn at random",
                remedy="add rows, or group rare classes",
                check="classes",
            )
        )
        return _hold_out(rows, None, n_held, places, findings)
    if len(alone):
        findings.append(
            Finding(
                severity="warning",
                subject="split",
                message="classes with a single row are in the training part only, so that nothing measures them",
                remedy="add rows, or group rare classes",
                check="classes",
            )
        )
    _, class_of_row, counts = np.unique(classes[several], return_inverse=True, return_counts=True)
    by_place = np.argsort(places[several], kind="stable")
    # Of each class the first, in the order of places.
    nth_of_its_class = pd.Series(class_of_row[by_place]).groupby(class_of_row[by_place]).cumcount().to_numpy()
    chosen = nth_of_its_class < _shares(counts, n_held)[class_of_row[by_place]]
    return _divided(rows, several[by_place[chosen]])


def _shares(counts: npt.NDArray[np.int64], n_held: int) -> npt.NDArray[np.int64]:
    """`n_held` rows divided among classes by their sizes (largest remainders); each keeps a row."""
    exact = n_held * counts / counts.sum()
    shares: npt.NDArray[np.int64] = np.floor(exact).astype(np.int64)
    while shares.sum() < n_held:
        shares[np.argmax(np.where(shares < counts - 1, exact - shares, -np.inf))] += 1
    return shares


def _divided(rows: Rows, held: Rows) -> tuple[Rows, Rows]:
    """The others and the held ones, ascending."""
    return np.setdiff1d(rows, held), np.sort(held)


def _cross_validation(
    config: SplitConfig, hashes: Hashes, n_test: int, classes: npt.NDArray[np.int64] | None, key: pd.Series | None
) -> tuple[Split, tuple[Finding, ...]]:
    """Hold the test out, and divide the other rows into folds: with the classes' shares kept, or groups kept whole."""
    everything: Rows = np.arange(len(hashes))
    findings: list[Finding] = []
    folds: Rows
    if key is not None:
        groups, places = _groups(key, n_test > 0, config.seed)
        rest, test = _hold_out_groups(everything, groups, n_test, places)
        n_groups = len(np.unique(groups[rest]))
        if n_groups < config.folds:
            raise DataError(
                f"{config.folds} folds by {key.name!r} need as many groups, but {n_groups} are left beside the test",
                "lower data.split.folds",
            )
        parts = GroupKFold(config.folds).split(rest, groups=groups[rest])
    else:
        rest, test = _hold_out(everything, classes, n_test, draw_order(hashes, config.seed), findings)
        if len(rest) < 2 * config.folds:
            raise DataError(
                f"{config.folds} folds need {2 * config.folds} rows, but {len(rest)} are left beside the test",
                "add rows or lower data.split.folds",
            )
        enough = classes is not None and np.bincount(classes[rest]).max() >= config.folds
        splitter = (StratifiedKFold if enough else KFold)(config.folds, shuffle=True, random_state=config.seed)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # a class with fewer rows than folds is in some of them
            parts = list(splitter.split(rest, None if classes is None else classes[rest]))
    folds = np.empty(len(rest), dtype=np.int64)
    for fold, (_, held) in enumerate(parts):
        folds[held] = fold
    findings.append(
        Finding(
            severity="info",
            subject="split",
            message=f"every trial is cross-validated in {config.folds} folds of {len(rest)} rows",
            remedy="" if config.by == "kfold" else "set data.split.by to stratified or random for one validation part",
        )
    )
    return Split(rest, rest[:0], test, folds), tuple({finding.message: finding for finding in findings}.values())


def _groups(key: pd.Series, with_test: bool, seed: int) -> tuple[npt.NDArray[np.int64], Hashes]:
    """The group of every row, from 0, and the place of every group in the lottery."""
    text = texts(key)
    if text.isna().any():
        raise DataError(
            f"the group column {key.name!r} must have a value in every row, but {int(text.isna().sum())} have none",
            "fill them in or remove the rows",
        )
    codes, names = pd.factorize(text)
    needed = 3 if with_test else 2
    if len(names) < needed:
        raise DataError(
            f"a split by {key.name!r} needs >= {needed} groups, but there are {len(names)}", "choose another"
        )
    return codes.astype(np.int64), draw_order(text_hashes(names), seed)


def _hold_out_groups(rows: Rows, groups: npt.NDArray[np.int64], n_held: int, places: Hashes) -> tuple[Rows, Rows]:
    """Take whole groups out: of all groups, the share that `n_held` is of the rows."""
    if n_held == 0:
        return rows, rows[:0]
    present = np.unique(groups[rows])
    n_groups = min(max(1, round(len(present) * n_held / len(rows))), len(present) - 1)
    held = present[np.argsort(places[present], kind="stable")[:n_groups]]
    return _divided(rows, rows[np.isin(groups[rows], held)])


def _stamps(key: pd.Series) -> npt.NDArray[Any]:
    """Numbers where all are numbers, else dates and times as seconds since 1970."""
    values = numbers(key)
    if not np.isnan(values).any():
        return values
    when = stamps(key, time_format(key) or "ISO8601")
    bad = np.flatnonzero(np.isnan(when))
    if len(bad):
        raise DataError(
            f"the time column {key.name!r} must have a number or a date in every row, but row {bad[0] + 1} "
            f"has {key.iloc[bad[0]]!r} ({len(bad)} such rows)",
            "fix or remove the rows",
        )
    return when


def _by_time(when: npt.NDArray[Any], n_validation: int, n_test: int) -> Split:
    """The last `n_test` rows are the test, the `n_validation` before them validation; equal stamps stay together."""
    ordered = np.sort(when)
    n = len(ordered)
    test_from = ordered[n - n_test] if n_test else None
    validation_from = ordered[n - n_test - n_validation]
    is_test = when >= test_from if test_from is not None else np.zeros(n, dtype=bool)
    is_train = when < validation_from
    split = Split(*(np.flatnonzero(mask) for mask in (is_train, ~is_train & ~is_test, is_test)))
    if min(len(split.train), len(split.validation)) == 0:
        raise DataError("too many rows have the same time to split by it", "use a finer time, or split by group")
    return split
