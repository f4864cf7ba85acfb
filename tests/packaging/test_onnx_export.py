"""An exported model answers as the model does: preprocessing, temperature, labels and units are inside."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from pipeline.data.config import ColumnType
from pipeline.data.dataset import Features
from pipeline.data.preprocess.tabular import fit_tabular
from pipeline.data.spec import Kind, Label, Task
from pipeline.errors import InputError, PackageError
from pipeline.packaging import Predictor, load_package
from pipeline.packaging.conformal import Conformal
from pipeline.packaging.onnx_export import (
    PARITY,
    Quantiles,
    Standalone,
    check_parity,
    describe,
    export_onnx,
    standalone_inputs,
)
from tests.packaging.cases import PROVENANCE, make_case

CASES: list[tuple[Kind, str, Task, tuple[Label, ...]]] = [
    ("tabular", "mlp", "multiclass", (0, 1, 2)),
    ("tabular", "mlp", "regression", ()),
    ("image", "cnn", "multiclass", (0, 1, 2)),
    ("image", "lstm", "multiclass", (0, 1, 2)),
    ("sequence", "cnn", "regression", ()),
    ("sequence", "lstm", "binary", ("no", "yes")),
    ("sequence", "mlp", "multiclass", (0, 1, 2)),
]
IDS = [f"{kind}-{family}-{task}" for kind, family, task, _ in CASES]


def model(folder: Path, case: tuple[Kind, str, Task, tuple[Label, ...]]) -> tuple[Predictor, Features]:
    """A model with a temperature where it has classes, and raw rows, some of them odd."""
    made = make_case(folder / "case", *case)
    package = made.packager.write(
        folder / "package", config=made.config, weights=made.weights, provenance=PROVENANCE,
        temperature=1.0 if case[2] == "regression" else 1.7,
    )  # fmt: skip
    features = made.features
    if isinstance(features, pd.DataFrame):
        features = features.astype({"age": float})
        features.loc[0, "age"], features.loc[1, "age"], features.loc[2, "wage"] = None, 1e9, -1e9
        features.loc[3, "town"], features.loc[4, "town"] = None, "a town that training never saw"
    return load_package(package), features


@pytest.mark.parametrize("case", CASES, ids=IDS)
def test_the_standalone_module_answers_as_the_predictor_does(
    case: tuple[Kind, str, Task, tuple[Label, ...]], tmp_path: Path
) -> None:
    predictor, features = model(tmp_path, case)
    inputs = standalone_inputs(predictor, features)
    module = Standalone(predictor, tuple(inputs)).eval()
    with torch.inference_mode():
        answers = module(*(torch.from_numpy(array) for array in inputs.values())).numpy()
    table = predictor.predict(features)
    expected = table["prediction"] if case[2] == "regression" else table.drop(columns="prediction")
    np.testing.assert_allclose(answers, expected.to_numpy(), rtol=1e-5, atol=1e-5)


def test_quantiles_with_ties_gaps_and_constants_are_those_of_the_preprocessor() -> None:
    generator = np.random.default_rng(0)
    table = pd.DataFrame(
        {
            "mostly zero": np.where(generator.random(300) < 0.8, 0.0, generator.lognormal(size=300)),
            "tiny": generator.normal(size=300) * 1e-12,
            "few": generator.integers(0, 3, 300).astype(float),
            "constant": np.full(300, 5.0),
        }
    )
    table.loc[::17, "few"] = np.nan
    fitted = fit_tabular(table, dict.fromkeys(table, "numeric"))
    asked = pd.concat([table, table.head(50) * 1.01 + 1e-13, table.head(2) * 1e6, table.head(2) * -1e6])
    with torch.inference_mode():
        answers = Quantiles(fitted)(torch.tensor(asked.to_numpy()))
    torch.testing.assert_close(answers, fitted.transform(asked).x, rtol=0, atol=1e-6)


def test_the_metadata_says_what_is_left_to_the_caller(tmp_path: Path) -> None:
    predictor, _ = model(tmp_path, CASES[0])
    said = describe(predictor)
    assert said["automl.outside"] == "text to numbers; levels to codes"
    assert json.loads(said["automl.numeric"]) == ["age", "wage"]
    codes = json.loads(said["automl.categories"])["town"]
    assert sorted(codes["codes"]) == ["A", "B"]
    assert sorted(codes["codes"].values()) == [1, 2]
    assert (codes["missing"], codes["unknown"]) == (0, 0)


def test_a_sequence_longer_than_the_file_has_room_for_is_refused(tmp_path: Path) -> None:
    predictor, _ = model(tmp_path, CASES[5])
    with pytest.raises(InputError, match="at most 8 steps, but got 9"):
        standalone_inputs(predictor, [np.zeros((9, 3), dtype=np.float32)])


@pytest.mark.parametrize("kind", ["datetime", "text"])
def test_a_table_with_dates_or_free_text_is_refused_in_a_line(kind: ColumnType, tmp_path: Path) -> None:
    predictor, features = model(tmp_path, CASES[0])
    assert isinstance(features, pd.DataFrame)
    table = features.assign(said=[f"2024-01-{day % 28 + 1:02d}" for day in range(len(features))])
    fitted = fit_tabular(table, {"age": "numeric", "said": kind})
    with pytest.raises(InputError, match="'said' is dates or free text"):
        standalone_inputs(replace(predictor, preprocessor=fitted), table)


def test_a_model_of_sets_is_exported_without_them_and_the_metadata_says_so(tmp_path: Path) -> None:
    predictor, _ = model(tmp_path, CASES[2])
    assert describe(predictor)["automl.outside"] == "nothing"
    sets = replace(predictor, conformal=Conformal(level=0.9, threshold=0.5, n_rows=20))
    assert describe(sets)["automl.outside"] == "intervals or sets"


@pytest.mark.chaos
@pytest.mark.parametrize("case", CASES, ids=IDS)
def test_the_file_answers_as_the_model_does(case: tuple[Kind, str, Task, tuple[Label, ...]], tmp_path: Path) -> None:
    pytest.importorskip("onnxscript", reason="pip install 'automl-pipeline[onnx]'")
    predictor, features = model(tmp_path, case)
    export_onnx(predictor, features[:4], tmp_path / "model.onnx")
    assert check_parity(predictor, features, tmp_path / "model.onnx") < PARITY
    other = make_case(tmp_path / "other", *case)
    with torch.no_grad():
        for parameter in other.module.parameters():
            parameter.mul_(1.5)
    changed, _ = model(tmp_path / "again", case)
    changed.module.load_state_dict(other.module.state_dict())
    with pytest.raises(PackageError, match="differs by"):
        check_parity(changed, features, tmp_path / "model.onnx")
