"""EDGE mlflow: what `mlflow.pyfunc.load_model` finds in our model folders.

MLmodel names this module as its loader, so MLflow imports it from the installed package: no code comes from the model.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

from pipeline.packaging.predictor import Predictor
from pipeline.packaging.raw import as_features
from pipeline.packaging.verify import load_package


class PyfuncModel:
    """A verified package as MLflow's ``python_function``."""

    def __init__(self, predictor: Predictor) -> None:
        self.predictor = predictor

    def predict(self, model_input: Any, params: dict[str, Any] | None = None) -> pd.DataFrame:
        """Predictions for raw rows, as `Predictor.predict` gives them. There are no params.

        Raises:
            DataError: the rows are not of the kind the model was trained on.
        """
        return self.predictor.predict(as_features(model_input, self.predictor.spec.kind))


def _load_pyfunc(path: str) -> PyfuncModel:
    """MLflow's entry point; `path` is the package inside the model folder.

    Raises:
        PackageError: the package does not verify.
    """
    return PyfuncModel(load_package(Path(path)))
