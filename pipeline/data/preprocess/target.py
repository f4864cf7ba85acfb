"""Raw target values to what models are trained on: class codes, or standardised numbers."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from torch import Tensor

from pipeline.data.spec import DataSpec, Label
from pipeline.data.values import numbers, texts
from pipeline.errors import DataError


def encode_target(spec: DataSpec, raw: npt.NDArray[Any]) -> Tensor:
    """int64 class codes ``(N,)``, or float32 ``(target - target_mean) / target_scale``: ``(N,)``, of
    forecasts ``(N, horizon)``.

    Raises:
        DataError: a label that training did not have, or a value that is no number.
    """
    if not spec.is_quantity:
        return torch.from_numpy(encode_labels(spec.labels, raw))
    if spec.task == "forecast":
        values: npt.NDArray[np.float64] = raw.astype(np.float64)
    else:
        values = numbers(raw)
        check_numbers(values, raw)
    return torch.from_numpy(((values - spec.target_mean) / spec.target_scale).astype(np.float32))


def check_numbers(values: npt.NDArray[np.float64], raw: npt.NDArray[Any]) -> None:
    """Raises DataError where a regression target was no finite number."""
    bad = np.flatnonzero(np.isnan(values))
    if len(bad):
        raise DataError(
            f"a regression target must be finite numbers, but row {bad[0] + 1} has {raw[bad[0]]!r} "
            f"({len(bad)} such rows)",
            "fix or remove the rows",
        )


def encode_labels(labels: tuple[Label, ...], raw: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
    """Each row's position in `labels` ``(N,)``; ``1``, ``1.0`` and ``"1"`` are the same label.

    Raises:
        DataError: a value that is none of them.
    """
    codes = label_codes(labels, raw)
    unknown = np.flatnonzero(codes < 0)
    if len(unknown):
        raise DataError(
            f"the target value {raw[unknown[0]]!r} ({len(unknown)} rows) is none of the {len(labels)} labels that "
            f"training has ({', '.join(map(repr, labels[:8]))})",
            "correct the label, or add rows of it to the training data",
        )
    return codes


def label_codes(labels: tuple[Label, ...], raw: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
    """As `encode_labels`, with -1 for a value that is none of them."""
    if isinstance(labels[0], bool):
        keys = pd.Index([str(label).lower() for label in labels])
        codes = keys.get_indexer(pd.Index(texts(raw).str.lower()))
    elif isinstance(labels[0], str):
        codes = pd.Index(labels, dtype="str").get_indexer(pd.Index(texts(raw)))
    else:
        codes = pd.Index(labels, dtype="float64").get_indexer(pd.Index(numbers(raw)))
    return codes.astype(np.int64)
