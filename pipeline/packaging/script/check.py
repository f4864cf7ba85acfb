"""Whether a script prepares the rows that its trial was trained on: it is loaded, and its tensors are the search's, and
so is what it tells the model of them."""

from __future__ import annotations

import importlib.util
import math
import sys
from pathlib import Path
from types import ModuleType
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from pipeline.data.prepare import Prepared
from pipeline.data.spec import DataSpec
from pipeline.data.tensors import Part
from pipeline.errors import InputError
from pipeline.packaging.script.plan import Plan

CLOSE: Final = 1e-4
"""Largest difference of a prepared value between script and search: scikit-learn's transformers round otherwise."""


def check_rows(
    staged: Path, plan: Plan, data: str, prepared: Prepared, rows: dict[str, npt.NDArray[Any]], used: tuple[str, str]
) -> float:
    """The largest difference between the script's prepared rows and the search's. The test part is left alone.

    Raises:
        InputError: the script prepares other rows, or another `DataSpec`.
    """
    script = _load(staged)
    read, fit = (getattr(script, name) for name in used)
    raw = read(str(data), script.PLAN)
    if len(script.labelled(raw)[1]) != len(rows["part"]):
        raise _other(plan, f"{len(script.labelled(raw)[1])} rows instead of {len(rows['part'])}")
    made = script.prepare(script.PLAN, raw, rows, fit)
    wanted = prepared.development()
    pairs = [("training", made.train, wanted.train)]
    if wanted.folds is None:
        pairs.append(("validation", made.validation, wanted.validation))
    largest = max(_largest_difference(plan, name, ours, theirs) for name, ours, theirs in pairs)
    for field in DataSpec.model_fields:
        if not _alike(getattr(made.spec, field), getattr(prepared.spec, field)):
            raise _other(plan, f"other {field} of the data")
    return largest


def _largest_difference(plan: Plan, name: str, made: Any, wanted: Part) -> float:
    largest = 0.0
    for field, ours, theirs in (
        *((f, getattr(made.inputs, f), getattr(wanted.inputs, f)) for f in ("categories", "lengths", "x")),
        ("target", made.target, wanted.target),
    ):
        if ours is None and theirs is None:
            continue
        if ours is None or theirs is None or ours.shape != theirs.shape:
            raise _other(plan, f"other {field} in the {name} part")
        apart = (ours - theirs).abs()
        worst = float(apart.max()) if apart.numel() else 0.0
        if worst > CLOSE:
            at = np.unravel_index(int(apart.argmax()), apart.shape)
            where = _column(plan, field, int(at[1])) if plan.kind == "tabular" and len(at) == 2 else field
            raise _other(plan, f"{where} differs by {worst:.2g} in row {int(at[0]) + 1} of the {name} part")
        largest = max(largest, worst)
    return largest


def _alike(ours: object, theirs: object) -> bool:
    """Whether two fields of a `DataSpec` are equal, numbers up to rounding."""
    if isinstance(ours, tuple) and isinstance(theirs, tuple):
        return len(ours) == len(theirs) and all(map(_alike, ours, theirs))
    if isinstance(ours, float) and isinstance(theirs, float):
        return math.isclose(ours, theirs, rel_tol=CLOSE, abs_tol=CLOSE)
    return ours == theirs


def _column(plan: Plan, field: str, position: int) -> str:
    names = plan.columns.categorical if field == "categories" else plan.columns.numeric
    return f"the column {names[position]!r}" if position < len(names) else f"{field} {position + 1}"


def _other(plan: Plan, what: str) -> InputError:
    return InputError(
        f"a script would not prepare {plan.data} as the search did: {what}", "please report it, with the column's type"
    )


def _load(path: Path) -> ModuleType:
    """The script as a module; it trains nothing."""
    name = "automl_script_that_is_checked"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None, "a file of Python has a loader"
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look there for what their annotations mean
    try:
        spec.loader.exec_module(module)
    finally:
        del sys.modules[name]
    return module
