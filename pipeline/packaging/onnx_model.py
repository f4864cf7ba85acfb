"""An exported file as a model like any other: raw rows in, outputs out. One thread, ONNX Runtime on the CPU."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from pipeline.data.dataset import Features, take
from pipeline.data.spec import DataSpec
from pipeline.errors import PackageError
from pipeline.packaging.onnx_export import open_session, standalone_inputs
from pipeline.packaging.predictor import Predictor

BATCH_ROWS: Final = 1024


@dataclass(frozen=True, slots=True)
class OnnxModel:
    """A file beside the predictor that it was exported from."""

    path: Path
    predictor: Predictor
    session: Any

    @property
    def spec(self) -> DataSpec:
        return self.predictor.spec

    @property
    def temperature(self) -> float:
        return self.predictor.temperature

    @property
    def conformal(self) -> None:
        """Files give probabilities or values, no sets or intervals."""

    def answers(self, inputs: dict[str, npt.NDArray[Any]]) -> npt.NDArray[Any]:
        """What the file says: probabilities ``(B, n_classes)``, or values ``(B,)`` in the target's units."""
        (answers,) = self.session.run(None, inputs)
        found: npt.NDArray[Any] = answers
        return found

    def outputs(self, features: Features) -> Tensor:
        """float32 ``(N, n_outputs)`` of raw rows: a calibrated logit a class, or one standardised value.

        Raises:
            InputError: a sequence is longer than the file has room for.
            PackageError: an answer is not finite.
        """
        starts = range(0, len(features), BATCH_ROWS)
        parts = [take(features, np.arange(at, min(at + BATCH_ROWS, len(features)))) for at in starts]
        answers = torch.cat([torch.from_numpy(self.answers(standalone_inputs(self.predictor, p))) for p in parts])
        if not answers.isfinite().all():
            raise PackageError(f"{self.path.name}: gives answers that are not finite; please report it")
        if self.spec.task == "regression":
            return ((answers.double() - self.spec.target_mean) / self.spec.target_scale).float()[:, None]
        return answers.clamp(min=torch.finfo(torch.float32).tiny).log()  # as logits they give the same probabilities


def open_onnx(predictor: Predictor, path: Path) -> OnnxModel:
    """The file that was exported from a predictor, or a variant of it.

    Raises:
        InputError: ONNX Runtime is not installed.
    """
    return OnnxModel(path, predictor, open_session(path))
