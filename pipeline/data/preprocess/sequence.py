"""Sequences to tensors: features standardised over all training steps, zero-padded at the end."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from pydantic import BaseModel, ConfigDict, Field, FiniteFloat

from pipeline.data.dataset import Features
from pipeline.data.readers.request import MAX_CELLS
from pipeline.data.tensors import Inputs
from pipeline.errors import DataError


class SequencePreprocessor(BaseModel):
    """Fitted on training sequences."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["sequence"] = "sequence"
    n_steps: Annotated[int, Field(ge=1, le=1_000_000)]
    """Steps of the longest training sequence."""
    mean: Annotated[tuple[FiniteFloat, ...], Field(min_length=1, max_length=100_000)]
    """Per feature, over the steps of all training sequences."""
    std: tuple[Annotated[FiniteFloat, Field(gt=0)], ...]

    @property
    def n_features(self) -> int:
        return len(self.mean)

    @property
    def schema_of_features(self) -> dict[str, str]:
        return {"sequence": f"sequence (T <= {self.n_steps}, {self.n_features})"}

    def transform(self, features: Features) -> Inputs:
        """Shape: N arrays ``(T_i, D)`` or one ``(N, T, D)`` in; x ``(N, max(n_steps, longest), D)`` and lengths out.

        Longer sequences than those of training are kept whole. Values that are not finite become the feature's mean.

        Raises:
            DataError: a sequence without steps or with another number of features.
        """
        if isinstance(features, pd.DataFrame):
            raise DataError("the model needs sequences, but got a table", "pass a list of arrays (T, D)")
        series = [_steps(values, position) for position, values in enumerate(features)]
        for position, steps in enumerate(series):
            if steps.shape[1] != self.n_features:
                raise DataError(
                    f"a sequence must have {self.n_features} features a step, but number {position + 1} has shape "
                    f"{steps.shape}",
                    "fix or remove it",
                )
        lengths = np.array([len(steps) for steps in series], dtype=np.int64)
        longest = max(self.n_steps, int(lengths.max(initial=0)))
        if len(series) * longest * self.n_features > MAX_CELLS:
            raise DataError(
                f"{len(series)} sequences padded to {longest} steps are more than {MAX_CELLS:,} values",
                "cut the longest sequences, or predict in smaller batches",
            )
        x = np.zeros((len(series), longest, self.n_features), dtype=np.float32)
        for row, steps in enumerate(series):
            x[row, : len(steps)] = np.nan_to_num((steps - self.mean) / self.std, nan=0.0, posinf=0.0, neginf=0.0)
        return Inputs(torch.from_numpy(x), lengths=torch.from_numpy(lengths))


def fit_sequence(series: Sequence[npt.NDArray[Any]]) -> SequencePreprocessor:
    """Fit on training sequences ``(T_i, D)``.

    Raises:
        DataError: a sequence without steps, or a feature without any finite value.
    """
    checked = [_steps(values, position) for position, values in enumerate(series)]
    steps = np.concatenate(checked).astype(np.float64)
    steps[~np.isfinite(steps)] = np.nan
    empty = np.flatnonzero(np.isnan(steps).all(axis=0))
    if len(empty):
        raise DataError(f"feature {empty[0]} of the sequences has no finite value", "remove it")
    std = np.nanstd(steps, axis=0)
    std[std == 0] = 1.0
    return SequencePreprocessor(
        n_steps=max(len(values) for values in checked),
        mean=tuple(np.nanmean(steps, axis=0).tolist()),
        std=tuple(std.tolist()),
    )


def _steps(values: Any, position: int) -> npt.NDArray[Any]:
    """One sequence as ``(T, D)``; ``(T,)`` has one feature."""
    try:
        steps: npt.NDArray[Any] = np.asarray(values, dtype=np.float32)
    except (ValueError, TypeError):
        steps = np.empty(0)
    steps = steps[:, None] if steps.ndim == 1 else steps
    if steps.ndim != 2 or min(steps.shape) == 0:
        raise DataError(f"sequence {position + 1} is no array of steps", "give each sequence the shape (T, D), T >= 1")
    return steps
