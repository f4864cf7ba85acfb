"""Data from the user's own code, as ``python:module:function``: the function is called without arguments, in this
process, with the folder of the experiment in front of Python's path. Whoever names one knows that its code runs."""

from __future__ import annotations

import contextlib
import importlib
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from pipeline.data.dataset import Dataset
from pipeline.data.readers.arrays import shaped
from pipeline.data.readers.frames import from_frame
from pipeline.data.readers.request import Request
from pipeline.errors import DataError

REMEDY = "return a DataFrame, or (X, y)"


def read_function(request: Request) -> Dataset:
    """What the function returns: a DataFrame that has the target, or X and y. X is a DataFrame, an array (rows of a
    table, images or sequences, by its shape and ``data.kind``), or a list of arrays ``(T_i, D)``. Without labels X
    alone will do.

    Raises:
        DataError: no such module or function, what it raises, or what it returns cannot be read.
    """
    folder, name = request.path.parent, request.path.name
    with _importing_from(folder), contextlib.redirect_stdout(sys.stderr):  # what is printed there is no answer of ours
        returned = _called(_function(name, folder), name)
    source = f"python:{name}"
    if isinstance(returned, pd.DataFrame):
        return from_frame(returned, request, [])
    x, y = returned if isinstance(returned, tuple) and len(returned) == 2 else (returned, None)
    if request.labelled and y is None:
        raise DataError(f"{source} returned a {type(returned).__name__}", REMEDY)
    target = _values(y, source) if request.labelled else None
    if target is not None and (not hasattr(x, "__len__") or len(target) != len(x)):
        raise DataError(f"{source} returned {len(target)} targets for other rows", "return as many rows as targets")
    if request.labelled and request.target is not None:
        raise DataError(f"{source} returns its own target, but data.target is {request.target!r}", "remove it")
    return _with_target(x, target, request, source)


def _with_target(x: Any, target: npt.NDArray[Any] | None, request: Request, source: str) -> Dataset:
    if isinstance(x, pd.DataFrame):
        table = from_frame(x, replace(request, target=None, labelled=False), [])
        return Dataset(table.kind, table.features, target, source)
    if isinstance(x, np.ndarray) and len(x):
        kind, features = shaped(x, request)
        return Dataset(kind, features, target, source)
    if isinstance(x, list) and x and all(isinstance(steps, np.ndarray) and steps.ndim in (1, 2) for steps in x):
        request.refuse_other_than("sequence")
        series = [np.asarray(steps, dtype=np.float32) for steps in x]
        return Dataset("sequence", [s[:, None] if s.ndim == 1 else s for s in series], target, source)
    raise DataError(f"{source} returned X as a {type(x).__name__}", "return a DataFrame, an array or a list of arrays")


def _values(y: Any, source: str) -> npt.NDArray[Any]:
    values = np.asarray(y)
    if values.ndim != 1:
        raise DataError(f"{source} returned y with the shape {values.shape}", "return one target a row")
    return values


def _function(name: str, folder: Path) -> Callable[[], Any]:
    module_name, _, function_name = name.partition(":")
    if not module_name or not function_name:
        raise DataError(f"python:{name} names no function", "write python:module:function")
    function = getattr(_module(module_name, folder), function_name, None)
    if not callable(function):
        raise DataError(f"the module {module_name!r} has no function {function_name!r}", "check its name")
    result: Callable[[], Any] = function
    return result


def _module(name: str, folder: Path) -> ModuleType:
    """The module as its file is now: a process that lives through a night reads those of the folder again."""
    try:
        importlib.invalidate_caches()
        known = sys.modules.get(name)
        if known is not None and Path(known.__file__ or "/").is_relative_to(folder.absolute()):
            return importlib.reload(known)
        return importlib.import_module(name)
    except (Exception, SystemExit) as error:  # whatever the user's code raises
        raise DataError(f"the module {name!r} cannot be imported ({_line(error)})", "correct it") from error


def _called(function: Callable[[], Any], name: str) -> Any:
    try:
        return function()
    except (Exception, SystemExit) as error:  # whatever the user's code raises
        raise DataError(f"python:{name} failed ({_line(error)})", "call it in Python to see where") from error


def _line(error: BaseException) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"


@contextlib.contextmanager
def _importing_from(folder: Path) -> Iterator[None]:
    before = list(sys.path)
    sys.path.insert(0, str(folder.absolute()))
    try:
        yield
    finally:
        sys.path[:] = before
