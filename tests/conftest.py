"""What all tests share: one torch thread, no telemetry, small data made here, and the folder of real data where it
exists."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import settings

from pipeline.data.spec import DataSpec
from pipeline.data.tensors import Development, Inputs, Part

torch.set_num_threads(1)
os.environ["OMP_NUM_THREADS"] = "1"  # of the processes that tests start

# Whether a change lands must not hang on a draw; `make chaos` draws anew, and what it finds becomes an example.
settings.register_profile("repeatable", derandomize=True)
settings.register_profile("anew")
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "repeatable"))

REPOSITORY = Path(__file__).parents[1]


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real data sets: ``AUTOML_DATA``, or ``shared/data`` beside the repository."""
    folder = Path(os.environ.get("AUTOML_DATA", REPOSITORY.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"the real data sets are not here ({folder}); set AUTOML_DATA to their folder")
    return folder


def make_development(task: str = "multiclass", n: int = 240, n_numeric: int = 6, seed: int = 0) -> Development:
    """A small tabular problem that a linear model nearly solves."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, n_numeric, generator=generator)
    labels: tuple[int, ...] = {"binary": (0, 1), "multiclass": (0, 1, 2), "regression": ()}[task]
    scores = x @ torch.randn(n_numeric, max(1, len(labels)), generator=generator)
    noise = 0.3 * torch.randn(scores.shape, generator=generator)
    target = scores[:, 0] + noise[:, 0] if task == "regression" else (scores + noise).argmax(1)
    if task == "regression":
        target = (target - target.mean()) / target.std()
    n_train = n * 3 // 4
    edges = tuple(np.linspace(-2, 2, 9).tolist())
    spec = DataSpec(
        kind="tabular", task=task, n_numeric=n_numeric, bins=(edges,) * n_numeric, labels=labels,
        n_train=n_train, n_validation=n - n_train,
    )  # fmt: skip
    part = Part(Inputs(x), target)
    return Development(spec, part.take(slice(0, n_train)), part.take(slice(n_train, n)), "made-here")


@pytest.fixture
def development() -> Development:
    return make_development()


@pytest.fixture
def float64() -> Iterator[None]:
    """Modules and tensors are made in float64: precise enough to tell equal from nearly equal."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)
