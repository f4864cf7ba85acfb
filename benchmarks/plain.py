"""What a user writes without this project: ordinary modules, torch's default AdamW, a loop over preloaded tensors.

Also the workloads, each as an ordinary module and as the config of ours that is the same network.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipeline.data.spec import DataSpec
from pipeline.data.tensors import Inputs, Part
from pipeline.models.base import ModelConfig
from pipeline.models.cnn import CNNConfig
from pipeline.models.lstm import LSTMConfig
from pipeline.models.mlp import MLPConfig


@dataclass(frozen=True, slots=True)
class Workload:
    """One network on random data of one shape.

    Args:
        family, config: the network as ours; it drops nothing and normalises nothing.
        module: the same network as an ordinary module; takes the input tensor.
        shape: of one row.
        largest: the largest cohort that is measured.
        bar: by how much a cohort should beat the plain loop at batch 64, a core; None where nothing is asked.
    """

    name: str
    family: str
    config: ModelConfig
    module: Callable[[], nn.Module]
    shape: tuple[int, ...]
    n_rows: int
    n_classes: int
    largest: int = 64
    bar: float | None = None

    def spec(self) -> DataSpec:
        match self.family:
            case "mlp":
                shape = {"kind": "tabular", "n_numeric": self.shape[0]}
            case "cnn":
                shape = {"kind": "image", **dict(zip(("channels", "height", "width"), self.shape, strict=True))}
            case _:
                shape = {"kind": "sequence", **dict(zip(("n_steps", "n_features"), self.shape, strict=True))}
        task = "binary" if self.n_classes == 2 else "multiclass"
        rows = {"n_train": self.n_rows, "n_validation": 1}
        return DataSpec.model_validate({**shape, **rows, "task": task, "labels": tuple(range(self.n_classes))})

    def data(self) -> Part:
        """Random rows, the same at every call."""
        generator = torch.Generator().manual_seed(0)
        x = torch.randn(self.n_rows, *self.shape, generator=generator)
        lengths = torch.full((self.n_rows,), self.shape[0]) if self.family == "lstm" else None
        return Part(Inputs(x, None, lengths), torch.randint(self.n_classes, (self.n_rows,), generator=generator))


def dense(*widths: int) -> nn.Module:
    """Linear layers with ReLU between them."""
    layers: list[nn.Module] = []
    for d_in, d_out in pairwise(widths):
        layers += [nn.Linear(d_in, d_out), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def convolutional(side: int) -> nn.Module:
    """Two convolutions of 16 and 32 channels, each with pooling, and a dense layer of 64 units."""
    left = side // 4
    shrink = nn.AdaptiveAvgPool2d(4) if left > 4 else nn.Identity()
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        shrink, nn.Flatten(), dense(32 * min(left, 4) ** 2, 64, 10),
    )  # fmt: skip


class Recurrent(nn.Module):
    """One LSTM layer, read at its last step."""

    def __init__(self, d_in: int, d_hidden: int, n_classes: int) -> None:
        super().__init__()
        self.lstm = nn.LSTM(d_in, d_hidden, batch_first=True)
        self.head = nn.Linear(d_hidden, n_classes)

    def forward(self, x_BTD: Tensor) -> Tensor:
        logits: Tensor = self.head(self.lstm(x_BTD)[0][:, -1])
        return logits


def _mlp(n_layers: int, width: int) -> MLPConfig:
    return MLPConfig(n_layers=n_layers, width=width, dropout=0)


_CNN: Final = CNNConfig(n_stages=2, width=16, norm="none", head="flatten", d_head=64, dropout=0)
_LSTM: Final = LSTMConfig(d_hidden=32, bidirectional=False, dropout=0)

WORKLOADS: Final[tuple[Workload, ...]] = (
    Workload("MLP 30-32-2", "mlp", _mlp(1, 32), lambda: dense(30, 32, 2), (30,), 455, 2, bar=15),
    Workload("MLP 64-64-64-10", "mlp", _mlp(2, 64), lambda: dense(64, 64, 64, 10), (64,), 1_437, 10, bar=8),
    Workload("MLP 50-128-128-2", "mlp", _mlp(2, 128), lambda: dense(50, 128, 128, 2), (50,), 16_000, 2, bar=4),
    Workload("CNN 8x8", "cnn", _CNN, lambda: convolutional(8), (1, 8, 8), 1_437, 10),
    Workload("CNN 28x28", "cnn", _CNN, lambda: convolutional(28), (1, 28, 28), 1_024, 10, largest=16),
    Workload("LSTM 50 steps, 32", "lstm", _LSTM, lambda: Recurrent(8, 32, 10), (50, 8), 2_000, 10, largest=16),
)


class PlainLoop:
    """One trial trained by hand."""

    def __init__(self, workload: Workload, batch_size: int, **adamw: Any) -> None:
        torch.manual_seed(0)
        data = workload.data()
        self._x, self._y, self._batch_size = data.inputs.x, data.target, batch_size
        self.module = workload.module()
        self._optimizer = torch.optim.AdamW(self.module.parameters(), lr=1e-3, **adamw)

    def train_epoch(self) -> None:
        order = torch.randperm(len(self._x))
        for start in range(0, len(order), self._batch_size):
            rows = order[start : start + self._batch_size]
            self._optimizer.zero_grad()
            loss = F.cross_entropy(self.module(self._x[rows]), self._y[rows])
            loss.backward()  # type: ignore[no-untyped-call]
            self._optimizer.step()
