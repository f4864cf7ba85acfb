"""The tensors that models see. Axes: B rows, T steps, D values a step, C channels, H height, W width."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from pipeline.data.spec import DataSpec


class Inputs(NamedTuple):
    """One batch of prepared rows, whatever the kind.

    Shape:
        x: float32; tabular ``(B, n_numeric)``, image ``(B, C, H, W)``, sequence ``(B, T, D)`` zero-padded at the end;
            text: int32 codes ``(B, T)``, zero-padded at the end.
        categories: int64 ``(B, n_categorical)``; None unless the data is tabular and has categorical columns.
        lengths: int64 ``(B,)`` on the CPU or the batch's device, each >= 1; None unless the data is sequences
            or texts.
    """

    x: Tensor
    categories: Tensor | None = None
    lengths: Tensor | None = None

    def take(self, rows: Tensor | slice) -> Inputs:
        """The given rows, in their order."""
        return Inputs(*(None if part is None else part[rows] for part in self))  # type: ignore[arg-type]

    def to(self, device: torch.device) -> Inputs:
        return Inputs(*(None if part is None else part.to(device) for part in self))  # type: ignore[arg-type]


@dataclass(frozen=True, slots=True)
class Part:
    """Rows with their targets: int64 class codes ``(N,)``, or float32 standardised values ``(N,)``."""

    inputs: Inputs
    target: Tensor

    def __len__(self) -> int:
        return len(self.target)

    def take(self, rows: Tensor | slice) -> Part:
        return Part(self.inputs.take(rows), self.target[rows])

    def to(self, device: torch.device) -> Part:
        return Part(self.inputs.to(device), self.target.to(device))


@dataclass(frozen=True, slots=True)
class Development:
    """All that a search may see: the training and the validation part. The sealed test is not in here."""

    spec: DataSpec
    train: Part
    validation: Part
    fingerprint: str
    """sha256 over the raw data and every choice of the preparation: equal fingerprints, equal tensors."""
    folds: Tensor | None = None
    """int64 ``(N,)``: the fold in which each training row is validated, -1 where in none. None without
    cross-validation; with it, `validation` is `train`."""
    moments: Tensor | None = None
    """int64 ``(N,)``: of folds that walk forward in time, the last step that each row reads."""

    def held(self, fold: int) -> Tensor:
        """The rows that a fold validates, ``(M,)``."""
        assert self.folds is not None, "only cross-validated data has folds"
        return torch.nonzero(self.folds == fold)[:, 0]

    def rest(self, fold: int) -> Tensor:
        """The rows that a fold trains on, ``(M,)``: all others, or those that were over before its first one."""
        assert self.folds is not None, "only cross-validated data has folds"
        if self.moments is None:
            return torch.nonzero(self.folds != fold)[:, 0]
        first = self.moments[self.held(fold)].min()
        return torch.nonzero(self.moments + self.spec.horizon <= first)[:, 0]

    def to(self, device: torch.device) -> Development:
        train = self.train.to(device)
        validation = self.validation.to(device) if self.folds is None else train
        return Development(self.spec, train, validation, self.fingerprint, self.folds, self.moments)
