"""A loaded model: raw rows in, predictions in the target's own labels or units out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from pipeline.data.dataset import Features, take
from pipeline.data.preprocess import ForecastPreprocessor, Preprocessor
from pipeline.data.spec import DataSpec, Label
from pipeline.data.tensors import Inputs
from pipeline.errors import DataError
from pipeline.models.base import Model
from pipeline.packaging.conformal import Conformal
from pipeline.packaging.contents import Provenance
from pipeline.training.config import TrialConfig

BATCH_ROWS: Final = 1024


@dataclass(frozen=True, slots=True)
class Predictor:
    """A trained model with its preprocessing and labels. `module` is in evaluation mode, on the CPU."""

    spec: DataSpec
    preprocessor: Preprocessor
    config: TrialConfig
    provenance: Provenance
    module: Model
    temperature: float = 1.0
    conformal: Conformal | None = None

    def predict(self, features: Features) -> pd.DataFrame:
        """One row out for each row in, in their order, under the index of a DataFrame that came in.

        Forecasts read a table of the past and have a row for each series and step ahead: ``series`` where there are
        several, ``step``, ``time``, ``prediction``.

        Column ``prediction`` is the most probable label, in its original type, or the value in the target's units;
        classes have ``probability_<label>`` as well, in the order of the spec's labels. A model that was fitted for it
        adds ``lower`` and ``upper``, or ``set``, a list of labels, the most probable first.

        Raises:
            DataError: the rows are not of the kind the model was trained on.
        """
        if isinstance(self.preprocessor, ForecastPreprocessor):
            return self._forecasts(self.preprocessor, features)
        outputs = self.outputs(features)
        index = features.index if isinstance(features, pd.DataFrame) else pd.RangeIndex(len(features))
        if self.spec.task == "regression":
            values = outputs[:, 0].double() * self.spec.target_scale + self.spec.target_mean
            table = pd.DataFrame({"prediction": values.numpy()}, index=index)
            if self.conformal is not None:
                lower, upper = self.conformal.interval(outputs, self.spec)
                table = table.assign(lower=lower.numpy(), upper=upper.numpy())
            return table
        probabilities = torch.softmax(outputs.double(), dim=1)
        columns: dict[str, object] = {"prediction": pd.Index(self.spec.labels).take(outputs.argmax(dim=1).numpy())}
        for column, label in enumerate(self.spec.labels):
            columns[f"probability_{label}"] = probabilities[:, column].numpy()
        if self.conformal is not None:
            columns["set"] = self._labels_held(outputs, self.conformal)
        return pd.DataFrame(columns, index=index)

    def _forecasts(self, fitted: ForecastPreprocessor, features: Features) -> pd.DataFrame:
        """What comes after the last row of each series."""
        if not isinstance(features, pd.DataFrame):
            raise DataError(f"the model needs a table of series, but got {type(features).__name__}", "pass a DataFrame")
        histories = fitted.histories(features)
        differences = self.outputs(histories.inputs).double() * self.spec.target_scale + self.spec.target_mean
        values = fitted.naive(histories.inputs) + differences.numpy()
        n_series, horizon = values.shape
        series = {} if fitted.layout.series is None else {"series": np.repeat(histories.names, horizon)}
        columns = {
            **series,
            "step": np.tile(np.arange(1, horizon + 1), n_series),
            "time": fitted.times_after(histories.origins).ravel(),
            "prediction": values.ravel(),
        }
        return pd.DataFrame(columns)

    def _labels_held(self, outputs: Tensor, conformal: Conformal) -> list[list[Label]]:
        held = conformal.sets(outputs).numpy()
        ordered = outputs.argsort(dim=1, descending=True, stable=True).numpy()
        return [[self.spec.labels[c] for c in row if held[n, c]] for n, row in enumerate(ordered)]

    def outputs(self, features: Features) -> Tensor:
        """float32 ``(N, n_outputs)`` of raw rows: a calibrated logit a class, one standardised value, or one a step
        ahead of a window (or of every series of a table).

        Raises:
            DataError: the rows are not of the kind the model was trained on.
        """
        if isinstance(self.preprocessor, ForecastPreprocessor) and isinstance(features, pd.DataFrame):
            features = self.preprocessor.histories(features).inputs
        if not len(features) and isinstance(features, pd.DataFrame):
            # What is left of rows that had none of the columns: MLflow drops all others, and then there are no rows.
            self.preprocessor.transform(features)
        parts = [self.logits(self.preprocessor.transform(take(features, rows))) for rows in _batches(len(features))]
        return torch.cat(parts) / self.temperature if parts else torch.empty(0, self.spec.n_outputs)

    def logits(self, inputs: Inputs) -> Tensor:
        """float32 ``(B, n_outputs)`` of prepared rows, as the module gives them: not calibrated."""
        with torch.inference_mode():
            parts = [self.module(inputs.take(slice(at, at + BATCH_ROWS))) for at in range(0, len(inputs.x), BATCH_ROWS)]
        return torch.cat(parts).float()


def _batches(n_rows: int) -> list[np.ndarray[tuple[int], np.dtype[np.int64]]]:
    return [np.arange(at, min(at + BATCH_ROWS, n_rows)) for at in range(0, n_rows, BATCH_ROWS)]
