"""A model as one ONNX file, its preprocessing inside wherever ONNX has a word for it.

Inside: imputing, the quantile transform, missing indicators, scaling, padding's masks, the temperature, labels' order,
the target's units. Outside: what is text. A categorical level becomes its code before the file is asked, by the table
in its metadata, and numbers are numbers. `standalone_inputs` does both for raw rows. Axes: B rows, F numeric columns,
Q quantiles.
"""

from __future__ import annotations

import json
import logging
import warnings
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from torch import Tensor, nn

from pipeline.data.dataset import Features
from pipeline.data.preprocess.forecast import ForecastPreprocessor
from pipeline.data.preprocess.image import ImagePreprocessor
from pipeline.data.preprocess.sequence import SequencePreprocessor
from pipeline.data.preprocess.tabular import TabularPreprocessor
from pipeline.data.preprocess.tokens import TextPreprocessor
from pipeline.data.tensors import Inputs
from pipeline.data.values import numbers
from pipeline.errors import InputError, PackageError
from pipeline.packaging.predictor import Predictor

TAIL: Final = 1e-7
"""As in `pipeline.data.preprocess.tabular`: where the normal quantiles end."""
PARITY: Final = 1e-4
"""Largest difference of a probability, or of a value in standard deviations of the target, that is a faithful copy."""
QUIET: Final = 3
"""ONNX Runtime's level that logs errors only."""
Array = npt.NDArray[Any]

# Coefficients of Acklam's rational approximation to the normal quantile function, relative error below 1.2e-9
# (P. J. Acklam, An algorithm for computing the inverse normal cumulative distribution function, 2003).
_A: Final = (-39.69683028665376, 220.9460984245205, -275.9285104469687, 138.357751867269, -30.66479806614716,
             2.506628277459239)  # fmt: skip
_B: Final = (-54.47609879822406, 161.5858368580409, -155.6989798598866, 66.80131188771972, -13.28068155288572, 1.0)
_C: Final = (-0.007784894002430293, -0.3223964580411365, -2.400758277161838, -2.549732539343734, 4.374664141464968,
             2.938163982698783)  # fmt: skip
_D: Final = (0.007784695709041462, 0.3224671290700398, 2.445134137142996, 3.754408661907416, 1.0)
_EDGE: Final = 0.02425


class Standalone(nn.Module):
    """Raw tensors to what a user reads: ``(B, n_classes)`` probabilities, or ``(B,)`` values in the target's units."""

    def __init__(self, predictor: Predictor, names: tuple[str, ...]) -> None:
        super().__init__()
        self.module, self.names, self.spec = predictor.module, names, predictor.spec
        self.temperature = predictor.temperature
        fitted = predictor.preprocessor
        self.numeric = Quantiles(fitted) if isinstance(fitted, TabularPreprocessor) and fitted.numeric else None
        if isinstance(fitted, ImagePreprocessor | SequencePreprocessor):
            shape = (-1, 1, 1) if isinstance(fitted, ImagePreprocessor) else (-1,)
            self.mean: Tensor
            self.std: Tensor
            self.register_buffer("mean", torch.tensor(fitted.mean, dtype=torch.float32).view(shape))
            self.register_buffer("std", torch.tensor(fitted.std, dtype=torch.float32).view(shape))

    def forward(self, *tensors: Tensor) -> Tensor:
        outputs: Tensor = self.module(self._prepared(dict(zip(self.names, tensors, strict=True)))) / self.temperature
        if self.spec.task == "regression":
            return outputs[:, 0].double() * _exact(self.spec.target_scale) + _exact(self.spec.target_mean)
        return torch.softmax(outputs, dim=1)

    def _prepared(self, raw: dict[str, Tensor]) -> Inputs:
        if self.spec.kind == "image":
            return Inputs((raw["image"] - self.mean) / self.std)
        if self.spec.kind == "sequence":
            lengths = raw["lengths"]
            scaled = ((raw["sequence"] - self.mean) / self.std).nan_to_num(0.0, 0.0, 0.0)
            valid_BT = torch.arange(scaled.shape[1]) < lengths[:, None]
            return Inputs(scaled * valid_BT[:, :, None], lengths=lengths)
        if self.numeric is None:
            codes = raw["categories"]
            return Inputs(codes.float()[:, :0], codes)
        return Inputs(self.numeric(raw["numeric"]), raw.get("categories"))


class Quantiles(nn.Module):
    """`TabularPreprocessor`'s numeric part in words that ONNX has: float64 ``(B, F)`` with NaN for missing in, float32
    with the indicators behind out."""

    def __init__(self, fitted: TabularPreprocessor) -> None:
        super().__init__()
        columns = fitted.numeric
        self.n = max(len(c.quantiles) for c in columns)
        edges = torch.full((len(columns), self.n), torch.inf, dtype=torch.float64)
        ranks = torch.ones(len(columns), self.n, dtype=torch.float64)
        for f, column in enumerate(columns):
            edges[f, : len(column.quantiles)] = torch.tensor(column.quantiles, dtype=torch.float64)
            ranks[f, : len(column.quantiles)] = torch.linspace(0, 1, len(column.quantiles), dtype=torch.float64)
        self.edges_FQ: Tensor
        self.ranks_FQ: Tensor
        self.register_buffer("edges_FQ", edges)
        self.register_buffer("ranks_FQ", ranks)
        self.median_F: Tensor
        self.low_F: Tensor
        self.high_F: Tensor
        self.start_F: Tensor
        self.indicated: Tensor
        self.register_buffer("median_F", torch.tensor([c.median for c in columns], dtype=torch.float64))
        self.register_buffer("low_F", edges[:, 0].clone())
        self.register_buffer("high_F", torch.tensor([c.quantiles[-1] for c in columns], dtype=torch.float64))
        self.register_buffer("start_F", torch.arange(len(columns)) * self.n)
        self.register_buffer("indicated", torch.tensor([f for f, c in enumerate(columns) if c.indicator]).long())

    def forward(self, values_BF: Tensor) -> Tensor:
        missing_BF = values_BF.isnan()
        values_BF = torch.where(missing_BF, self.median_F, values_BF)
        inside_BF = torch.minimum(torch.maximum(values_BF, self.low_F), self.high_F)
        # A value between two different edges is on one line from either side; one that fills several ranks is not.
        after_BF = (self.edges_FQ <= inside_BF[:, :, None]).sum(2)  # edges up to and with the value
        before_BF = (self.edges_FQ < inside_BF[:, :, None]).sum(2)
        ahead_BF = self._between(inside_BF, after_BF - 1, after_BF)
        rank_BF = _exact(0.5) * (ahead_BF + self._between(inside_BF, before_BF - 1, before_BF))
        rank_BF = torch.where(values_BF >= self.high_F, _exact(1.0), rank_BF)
        rank_BF = torch.where(values_BF <= self.low_F, _exact(0.0), rank_BF)
        normal_BF = _normal_quantile(torch.minimum(torch.maximum(rank_BF, _exact(TAIL)), _exact(1 - TAIL)))
        parts = [normal_BF, missing_BF[:, self.indicated].double()] if len(self.indicated) else [normal_BF]
        return torch.cat(parts, 1).float()

    def _between(self, values_BF: Tensor, left_BF: Tensor, right_BF: Tensor) -> Tensor:
        """The rank on the line from one edge to the next."""
        left_BF, right_BF = (self.start_F + i.clamp(0, self.n - 1) for i in (left_BF, right_BF))
        edges, ranks = self.edges_FQ.flatten(), self.ranks_FQ.flatten()
        width_BF = edges[right_BF] - edges[left_BF]
        share_BF = torch.where(width_BF > 0, (values_BF - edges[left_BF]) / width_BF, torch.zeros_like(values_BF))
        return ranks[left_BF] + share_BF * (ranks[right_BF] - ranks[left_BF])


def standalone_inputs(predictor: Predictor, features: Features) -> dict[str, Array]:
    """Raw rows as the file's inputs.

    Raises:
        DataError: the rows are not of the kind the model was trained on.
        InputError: the model is of a kind that is not exported, or a sequence is longer than the longest of training,
            which the file has no room for.
    """
    fitted = predictor.preprocessor
    if isinstance(fitted, ForecastPreprocessor):
        raise InputError("forecasts are not exported", "serve the package with MLflow")
    if isinstance(fitted, TabularPreprocessor):
        outside = [column.name for column in fitted.datetime] + [column.name for column in fitted.text]
        if outside:
            raise InputError(
                f"column {outside[0]!r} is dates or free text, and such columns are not exported",
                "load the model with MLflow, which reads them",
            )
        prepared = fitted.transform(features)
        assert isinstance(features, pd.DataFrame)
        inputs: dict[str, Array] = {}
        if fitted.numeric:
            inputs["numeric"] = np.stack([numbers(features[c.name]) for c in fitted.numeric], axis=1)
        if prepared.categories is not None:
            inputs["categories"] = prepared.categories.numpy()
        return inputs
    if isinstance(fitted, ImagePreprocessor):
        plain = fitted.model_copy(update={"mean": (0.0,) * fitted.channels, "std": (1.0,) * fitted.channels})
        return {"image": plain.transform(features).x.numpy()}
    if isinstance(fitted, TextPreprocessor):
        raise InputError("models of texts are not exported", "load the model with MLflow, which reads raw texts")
    plain_steps = fitted.model_copy(update={"mean": (0.0,) * fitted.n_features, "std": (1.0,) * fitted.n_features})
    raw = plain_steps.transform(features)
    if raw.x.shape[1] > fitted.n_steps:
        raise InputError(
            f"an exported model reads at most {fitted.n_steps} steps, but got {raw.x.shape[1]}", "cut them"
        )
    assert raw.lengths is not None
    return {"sequence": raw.x.numpy(), "lengths": raw.lengths.numpy()}


def export_onnx(predictor: Predictor, example: Features, path: Path) -> dict[str, str]:
    """Write the file; returns its metadata, which says what is outside of it.

    Args:
        example: two raw rows or more, whose values do not matter.

    Raises:
        InputError: the ONNX libraries are not installed.
    """
    try:
        import onnx
        import onnxscript  # noqa: F401 (torch's exporter needs it, and would say so in a page)
    except ImportError as error:
        raise not_installed(error) from error
    inputs = standalone_inputs(predictor, example)
    names = tuple(inputs)
    rows = {0: torch.export.Dim.DYNAMIC}
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            Standalone(predictor, names).eval(),
            tuple(torch.from_numpy(np.ascontiguousarray(array)) for array in inputs.values()),
            dynamo=True,
            input_names=names,
            output_names=("prediction" if predictor.spec.task == "regression" else "probabilities",),
            dynamic_shapes={"tensors": tuple(rows for _ in names)},
            verbose=False,
        )
    assert program is not None
    metadata = describe(predictor)
    model = program.model_proto
    for part in (*model.graph.node, *model.graph.input, *model.graph.output, *model.graph.value_info, model.graph):
        del part.metadata_props[:]  # stack traces of the export: this machine's paths, and up to half of a small file
    onnx.helper.set_model_props(model, metadata)
    onnx.save_model(model, str(path))
    return metadata


def not_installed(error: ImportError) -> InputError:
    """What a user is told who has no ONNX libraries."""
    return InputError(f"{error.name} is not installed", "pip install 'automl-pipeline[onnx]'")


def open_session(path: Path) -> Any:
    """A file in ONNX Runtime, on one thread of the CPU.

    Raises:
        InputError: ONNX Runtime is not installed.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise not_installed(error) from error
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = QUIET
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def check_parity(predictor: Predictor, features: Features, path: Path) -> float:
    """Largest difference between the file's answers and the model's on the given rows, in probabilities or in standard
    deviations of the target.

    Raises:
        InputError: ONNX Runtime is not installed.
        PackageError: the difference is more than `PARITY`.
    """
    (answers,) = open_session(path).run(None, standalone_inputs(predictor, features))
    table = predictor.predict(features)
    if predictor.spec.task == "regression":
        difference = np.abs(answers - table["prediction"].to_numpy()) / predictor.spec.target_scale
    else:
        probabilities = table[[f"probability_{label}" for label in predictor.spec.labels]]
        difference = np.abs(answers - probabilities.to_numpy())
    worst = float(difference.max(initial=0.0))
    if not worst <= PARITY:
        raise PackageError(f"{path}: the exported model differs by {worst:.2g}, more than {PARITY:g}; please report it")
    return worst


def describe(predictor: Predictor) -> dict[str, str]:
    """What a reader of the file has to know, as JSON texts by name."""
    fitted, spec = predictor.preprocessor, predictor.spec
    said: dict[str, object] = {"labels": list(spec.labels), "kind": spec.kind, "task": spec.task}
    if isinstance(fitted, TabularPreprocessor):
        said["numeric"] = [column.name for column in fitted.numeric]
        said["categories"] = {
            column.name: {
                "codes": {level: code for code, level in enumerate(column.levels, 1)},
                "missing": 0,
                "unknown": column.cardinality - 1 if column.rare else 0,
            }
            for column in fitted.categorical
        }
        said["outside"] = "text to numbers; levels to codes" if fitted.categorical else "text to numbers"
    elif not isinstance(fitted, TextPreprocessor):
        shape = "float32 (B, C, H, W), raw pixels" if isinstance(fitted, ImagePreprocessor) else (
            f"float32 (B, {fitted.n_steps}, {fitted.n_features}), raw values, padded at the end; lengths int64 (B,)"
        )  # fmt: skip
        said |= {"shape": shape, "outside": "padding" if isinstance(fitted, SequencePreprocessor) else "nothing"}
    if predictor.conformal is not None:
        left = said["outside"]
        said["outside"] = "intervals or sets" if left == "nothing" else f"{left}; intervals or sets"
    return {f"automl.{name}": value if isinstance(value, str) else json.dumps(value) for name, value in said.items()}


def _normal_quantile(p: Tensor) -> Tensor:
    """The normal distribution's inverse, float64."""
    edge, half, one, two = _exact(_EDGE), _exact(0.5), _exact(1.0), _exact(2.0)
    middle = p - half
    squared = middle * middle
    centre = middle * _polynomial(squared, _A) / _polynomial(squared, _B)
    left = torch.sqrt(-two * torch.log(torch.minimum(p, edge)))
    right = torch.sqrt(-two * torch.log(torch.minimum(one - p, edge)))
    below = _polynomial(left, _C) / _polynomial(left, _D)
    above = -_polynomial(right, _C) / _polynomial(right, _D)
    return torch.where(p < edge, below, torch.where(p > one - edge, above, centre))


def _polynomial(x: Tensor, coefficients: tuple[float, ...]) -> Tensor:
    """The highest power first."""
    value = torch.zeros_like(x)
    for coefficient in coefficients:
        value = value * x + _exact(coefficient)
    return value


def _exact(value: float) -> Tensor:
    """A float64 constant: plain numbers are float32 in the file."""
    return torch.tensor(value, dtype=torch.float64)
