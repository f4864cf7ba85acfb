"""Tables of OpenML by number, as ``openml:1590``: scikit-learn fetches them, checks their md5 and keeps them in its own
cache (``SCIKIT_LEARN_DATA``, else ``~/scikit_learn_data``). A number names one version of a data set for good."""

from __future__ import annotations

import contextlib
import os
import socket
import warnings
from collections.abc import Iterator
from dataclasses import replace
from http.client import HTTPException
from pathlib import Path
from typing import Any, Final

from sklearn.datasets import fetch_openml, get_data_home

from pipeline.data.dataset import Dataset
from pipeline.data.findings import Finding
from pipeline.data.readers.frames import from_frame
from pipeline.data.readers.request import Request
from pipeline.errors import DataError

TIMEOUT_S: Final = 30.0
"""Without an answer for so long OpenML counts as away."""


def read_openml(request: Request) -> Dataset:
    """A data set by its number; its default target where none is named.

    Raises:
        DataError: no number, no such data set, no network, or a format that is no table.
    """
    number = str(request.path)
    name = f"openml:{number}"
    if not number.isdigit():
        raise DataError("an OpenML source is named by a number", "write openml:1590 for adult, say", file=name)
    home = Path(get_data_home())
    with warnings.catch_warnings(record=True) as said, _timeout():
        warnings.simplefilter("always")
        try:
            bunch: Any = fetch_openml(data_id=int(number), as_frame=True, parser="pandas", data_home=home, n_retries=1)
        except (ValueError, KeyError) as error:  # no such data set, a sparse one, or another md5
            raise DataError(f"OpenML has no such table ({_line(error)})", "check the number", file=name) from error
        except (OSError, HTTPException) as error:
            remedy = "check the network, or name a file instead"
            raise DataError(f"OpenML cannot be reached ({_line(error)})", remedy, file=name) from error
        finally:
            _remove_empty(home)
    findings = [
        Finding(severity="warning", subject=name, message=_line(warning.message), check="values")
        for warning in said
        if issubclass(warning.category, UserWarning)
    ]
    targets = list(bunch.target_names)
    if request.target is None and request.labelled and len(targets) != 1:
        raise DataError(f"it has {len(targets)} default targets", "name one in data.target", file=name)
    asked = replace(request, path=Path(name), target=request.target or (targets[0] if len(targets) == 1 else None))
    return from_frame(bunch.frame, asked, findings)


def _line(error: object) -> str:
    return " ".join(str(error).split())[:200]


@contextlib.contextmanager
def _timeout() -> Iterator[None]:
    """scikit-learn sets no limit of its own."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(TIMEOUT_S)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


def _remove_empty(folder: Path) -> None:
    """Take away folders that a failed download left empty."""
    for path, _, _ in os.walk(folder, topdown=False):
        with contextlib.suppress(OSError):
            os.rmdir(path)
