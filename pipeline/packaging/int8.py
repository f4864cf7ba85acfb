"""An exported file with its weights in eight bits. Preprocessing stays as it is, in floating point.

Two ways, both of ONNX Runtime, and which is better depends on the layers (measured on one core of an AMD EPYC with
AVX512-VNNI, onnxruntime 1.31.1, one row a time and in batches of 1024, against the file in float32):

==============================  ======================  ======================
net                             dynamic                 static
==============================  ======================  ======================
CNN 28x28, 5 layers (MNIST)     as fast, x0.8 in batch  x2.1, x3.3 in batch
CNN 8x8, 3 layers (digits)      x0.5, x0.2 in batch     x0.7, x0.7 in batch
LSTM, 29 steps, 64 wide         x1.3, x1.1 in batch     not possible
MLP, 256 wide (adult)           x1.0, error 0.0023      x1.0, error 0.0038
==============================  ======================  ======================

A convolution is fast only where the range of its input is known before: static, calibrated on training rows. Recurrent
layers exist dynamically only. Dense layers are as fast either way, and closer to the model with the range of each
batch than with one that is fixed; nor are raw training rows of a table kept to fix it by.

Weights have seven bits where they meet eight-bit activations of another sign: processors without VNNI add such products
in 16 bits, which overflow, and a file that passed here would answer otherwise there.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt
import torch

from pipeline.data.preprocess.image import ImagePreprocessor
from pipeline.data.preprocess.sequence import SequencePreprocessor
from pipeline.data.tensors import Inputs
from pipeline.packaging.onnx_export import not_installed
from pipeline.packaging.predictor import Predictor

Method = Literal["dynamic", "static"]
STATIC: Final = frozenset({"cnn"})
"""Families whose activations get their ranges from training rows; all others get them batch by batch."""
N_CALIBRATION: Final = 512
"""Training rows that say what an activation's range is."""
BATCH: Final = 64
LAYERS: Final = ["Conv", "Gemm", "LSTM", "MatMul"]
"""What is quantised. No step of the preprocessing, nor a bin of an encoder, is one of these."""


@dataclass(frozen=True, slots=True)
class Quantised:
    """What became of a file."""

    method: Method
    n_calibration: int
    """Training rows that were looked at; 0 for dynamic."""
    share: float
    """Of the model's parameters, those that have eight bits or fewer now: embeddings, biases and GRUs have not."""


def quantise(predictor: Predictor, source: Path, target: Path, training: Inputs) -> Quantised:
    """Write `source`, the predictor's exported file, again as `target`, with weights in eight bits.

    Args:
        training: prepared rows of the training part; no others may be given.

    Raises:
        InputError: ONNX Runtime is not installed.
    """
    try:
        import onnx
        from onnxruntime.quantization import QuantType, quantize_dynamic, quantize_static
        from onnxruntime.quantization.shape_inference import quant_pre_process
    except ImportError as error:
        raise not_installed(error) from error
    with tempfile.TemporaryDirectory(prefix="automl-int8-") as scratch:
        folded = Path(scratch) / "folded.onnx"
        quant_pre_process(str(source), str(folded), skip_symbolic_shape=True)
        model = onnx.load(folded)
        del model.graph.value_info[:]  # of weights too, whose shapes change when a Gemm becomes a MatMul
        method: Method = "static" if predictor.config.family in STATIC else "dynamic"
        rows = _sample(training) if method == "static" else None
        if rows is None:
            quantize_dynamic(model, str(target), op_types_to_quantize=LAYERS, weight_type=QuantType.QUInt8)
        else:
            quantize_static(
                model,
                str(target),
                _Batches(raw_inputs(predictor, rows)),
                op_types_to_quantize=LAYERS,
                per_channel=True,
                reduce_range=True,
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
            )
    small = {onnx.TensorProto.INT8, onnx.TensorProto.UINT8}
    weights = [t for t in onnx.load(target).graph.initializer if t.data_type in small and len(t.dims) > 1]
    n_params = sum(parameter.numel() for parameter in predictor.module.parameters())
    share = sum(int(np.prod(weight.dims)) for weight in weights) / n_params
    return Quantised(method, 0 if rows is None else len(rows.x), share)


def raw_inputs(predictor: Predictor, inputs: Inputs) -> dict[str, npt.NDArray[Any]]:
    """Prepared images or sequences as the exported file's inputs: scaled back, up to rounding."""
    fitted = predictor.preprocessor
    assert isinstance(fitted, ImagePreprocessor | SequencePreprocessor), "tables are quantised dynamically"
    shape = (-1, 1, 1) if isinstance(fitted, ImagePreprocessor) else (-1,)
    mean, std = (torch.tensor(values, dtype=torch.float64).view(shape) for values in (fitted.mean, fitted.std))
    raw = (inputs.x.double() * std + mean).float().numpy()
    if isinstance(fitted, ImagePreprocessor):
        return {"image": raw}
    assert inputs.lengths is not None
    return {"sequence": raw, "lengths": inputs.lengths.numpy()}


def _sample(training: Inputs) -> Inputs:
    """The same rows every time, from all over the training part: files are often sorted by class."""
    order = torch.randperm(len(training.x), generator=torch.Generator().manual_seed(0))
    return training.take(order[:N_CALIBRATION])


class _Batches:
    """What ONNX Runtime reads calibration rows from."""

    def __init__(self, inputs: dict[str, npt.NDArray[Any]]) -> None:
        n = len(next(iter(inputs.values())))
        self._left = iter([{k: v[at : at + BATCH] for k, v in inputs.items()} for at in range(0, n, BATCH)])

    def get_next(self) -> dict[str, npt.NDArray[Any]] | None:
        return next(self._left, None)
