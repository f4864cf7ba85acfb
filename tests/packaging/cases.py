"""Untrained models of every kind of data, packaged: what they predict does not matter, that it stays the same does."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from safetensors.torch import save_file

from pipeline.data.config import ForecastConfig
from pipeline.data.dataset import Features
from pipeline.data.forecast.layout import find_layout
from pipeline.data.forecast.series import read_pieces
from pipeline.data.forecast.windows import cut_windows
from pipeline.data.preprocess import Preprocessor
from pipeline.data.preprocess.forecast import ForecastPreprocessor, fit_forecast
from pipeline.data.preprocess.image import fit_image
from pipeline.data.preprocess.sequence import fit_sequence
from pipeline.data.preprocess.tabular import bins_of, fit_tabular
from pipeline.data.preprocess.tokens import fit_tokens
from pipeline.data.spec import DataSpec, Kind, Label, Task
from pipeline.models import FAMILIES
from pipeline.models.base import Model
from pipeline.packaging.conformal import Conformal
from pipeline.packaging.contents import Provenance
from pipeline.packaging.package import Packager, library_versions, make_packager
from pipeline.training.config import OptimisationConfig, TrialConfig

N_ROWS = 40
PROVENANCE = Provenance(
    search="digits-1", trial=7, data_fingerprint="f" * 64, metric="accuracy", objective=0.5, created=1.7e9,
    versions=library_versions(),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Case:
    """A model with its raw rows, and what packages it."""

    features: Features
    spec: DataSpec
    preprocessor: Preprocessor
    config: TrialConfig
    module: Model
    weights: Path
    packager: Packager

    def write(self, directory: Path, conformal: Conformal | None = None) -> Path:
        return self.packager.write(
            directory, config=self.config, weights=self.weights, provenance=PROVENANCE, conformal=conformal
        )


def raw_rows(kind: Kind) -> Features:
    rng = np.random.default_rng(0)
    if kind == "image":
        return rng.integers(0, 256, (N_ROWS, 1, 8, 8), dtype=np.uint8)
    if kind == "sequence":
        return [rng.normal(size=(length, 3)).astype(np.float32) for length in rng.integers(2, 9, N_ROWS)]
    if kind == "forecast":
        days = pd.date_range("2024-01-01", periods=N_ROWS // 2).strftime("%Y-%m-%d").tolist()
        sites = np.repeat(["a", "b"], N_ROWS // 2)
        return pd.DataFrame({"day": days * 2, "site": sites, "load": rng.normal(size=N_ROWS), "wind": range(N_ROWS)})
    if kind == "text":
        words = np.array(["good", "bad", "not", "film", "very", "!"])
        return pd.DataFrame({"said": [" ".join(rng.choice(words, n)) for n in rng.integers(1, 9, N_ROWS)]})
    return pd.DataFrame(
        {"age": rng.integers(17, 90, N_ROWS), "wage": rng.normal(size=N_ROWS), "town": rng.choice(["A", "B"], N_ROWS)}
    )


def make_case(
    directory: Path, kind: Kind, family: str, task: Task = "multiclass", labels: tuple[Label, ...] = (0, 1, 2)
) -> Case:
    directory.mkdir(parents=True, exist_ok=True)
    features = raw_rows(kind)
    shared = {"kind": kind, "task": task, "labels": labels, "n_train": N_ROWS, "n_validation": N_ROWS}
    preprocessor: Preprocessor
    if kind == "tabular":
        assert isinstance(features, pd.DataFrame)
        preprocessor = fit_tabular(features, {"age": "numeric", "wage": "numeric", "town": "categorical"})
        shared |= {"n_numeric": preprocessor.n_numeric, "cardinalities": preprocessor.cardinalities}
        shared |= {"bins": bins_of(preprocessor.transform(features).x.numpy())}
    elif kind == "image":
        assert isinstance(features, np.ndarray)
        preprocessor = fit_image(features)
        shared |= {"channels": 1, "height": 8, "width": 8}
    elif kind == "forecast":
        assert isinstance(features, pd.DataFrame)
        preprocessor = _fit_forecast(features)
        shared |= {"labels": (), "n_steps": 7, "n_features": preprocessor.n_features, "horizon": 3, "season": 7}
    elif kind == "text":
        assert isinstance(features, pd.DataFrame)
        preprocessor = fit_tokens("said", features["said"])
        shared |= {"n_steps": preprocessor.n_steps, "n_tokens": preprocessor.n_tokens}
    else:
        assert isinstance(features, list)
        preprocessor = fit_sequence(features)
        shared |= {"n_steps": preprocessor.n_steps, "n_features": 3}
    if task == "regression":
        shared |= {"labels": (), "target_mean": 50.0, "target_scale": 10.0}
    spec = DataSpec.model_validate(shared)
    config = TrialConfig(family=family, model=FAMILIES[family].default(spec), optimisation=OptimisationConfig(), seed=3)
    torch.manual_seed(0)
    module = FAMILIES[family].build(config.model, spec).eval()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter += 0.1 * torch.randn_like(parameter)  # families start with a head of zeros
    weights = directory / "weights.safetensors"
    save_file(module.state_dict(), weights)
    few = features if kind == "forecast" else features[:8]
    packager = make_packager(directory / "package", spec, preprocessor, preprocessor.transform(few))
    return Case(features, spec, preprocessor, config, module, weights, packager)


def _fit_forecast(frame: pd.DataFrame) -> ForecastPreprocessor:
    layout, _ = find_layout(ForecastConfig(series="site"), frame, "load")
    pieces, _ = read_pieces(frame, layout, 0)
    windows = cut_windows(pieces, layout.clock, ("week",), context=7, horizon=3)
    return fit_forecast(layout, pieces, windows.inputs, horizon=3, season=7, fill=0, cycles=("week",))
