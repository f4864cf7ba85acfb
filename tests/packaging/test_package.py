"""A package gives back the model that went in: same outputs for the same raw rows, in the target's own terms."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file, save_file

from pipeline.data.spec import Kind
from pipeline.errors import DataError, InputError, PackageError
from pipeline.packaging import load_package, package, package_digest
from pipeline.packaging.conformal import Conformal
from pipeline.packaging.contents import MAX_BYTES
from pipeline.packaging.onnx_export import standalone_inputs
from tests.packaging.cases import PROVENANCE, Case, make_case

KINDS_AND_FAMILIES: tuple[tuple[Kind, str], ...] = (
    ("tabular", "mlp"),
    ("image", "mlp"),
    ("image", "cnn"),
    ("sequence", "mlp"),
    ("sequence", "cnn"),
    ("sequence", "lstm"),
    ("forecast", "mlp"),
    ("text", "mlp"),
    ("text", "cnn"),
    ("text", "lstm"),
)


@pytest.mark.parametrize(("kind", "family"), KINDS_AND_FAMILIES)
def test_a_loaded_package_gives_the_outputs_of_the_module_that_was_packaged(
    tmp_path: Path, kind: Kind, family: str
) -> None:
    case = make_case(tmp_path / "trial", kind, family, "forecast" if kind == "forecast" else "multiclass")
    predictor = load_package(case.write(tmp_path / "package"))
    with torch.inference_mode():
        expected = case.module(case.preprocessor.transform(case.features))
    torch.testing.assert_close(predictor.outputs(case.features), expected, rtol=1e-5, atol=1e-5)
    assert predictor.config == case.config
    assert predictor.spec == case.spec
    assert predictor.provenance == PROVENANCE
    assert not predictor.module.training


def test_a_package_has_the_known_files_and_no_others(tabular: Case, tmp_path: Path) -> None:
    package = tabular.write(tmp_path / "package")
    assert {file.name for file in package.iterdir()} == set(MAX_BYTES)
    assert [path for path in tmp_path.iterdir() if path.name.startswith("package-")] == [], "staging is gone"


def test_weights_and_data_description_are_links_and_cost_no_space(tabular: Case, tmp_path: Path) -> None:
    package = tabular.write(tmp_path / "package")
    assert (package / "weights.safetensors").samefile(tabular.weights)
    assert (package / "data.json").samefile(tabular.packager.data)


def test_the_same_trial_packages_to_the_same_digest(tabular: Case, tmp_path: Path) -> None:
    assert package_digest(tabular.write(tmp_path / "a")) == package_digest(tabular.write(tmp_path / "b"))


@pytest.mark.parametrize("labels", [("low", "mid", "high"), (1, 2, 3), (0.5, 1.5, 2.5)])
def test_predictions_are_the_labels_in_their_own_type(tmp_path: Path, labels: tuple[str | int | float, ...]) -> None:
    case = make_case(tmp_path / "trial", "tabular", "mlp", labels=labels)
    predictions = load_package(case.write(tmp_path / "package")).predict(case.features)
    probabilities = predictions[[f"probability_{label}" for label in labels]].to_numpy()
    assert list(predictions.columns) == ["prediction", *(f"probability_{label}" for label in labels)]
    assert predictions["prediction"].tolist() == [labels[i] for i in probabilities.argmax(axis=1)]
    assert predictions["prediction"].map(type).isin([type(labels[0])]).all()
    np.testing.assert_allclose(probabilities.sum(axis=1), 1.0, rtol=1e-12)


def test_a_boolean_target_comes_back_as_booleans(tmp_path: Path) -> None:
    case = make_case(tmp_path / "trial", "tabular", "mlp", task="binary", labels=(False, True))
    predictions = load_package(case.write(tmp_path / "package")).predict(case.features)
    assert predictions["prediction"].dtype == bool


def test_regression_is_in_units_of_the_target(tmp_path: Path) -> None:
    case = make_case(tmp_path / "trial", "tabular", "mlp", task="regression")
    predictor = load_package(case.write(tmp_path / "package"))
    expected = predictor.outputs(case.features)[:, 0].double() * 10.0 + 50.0
    predictions = predictor.predict(case.features)
    assert list(predictions.columns) == ["prediction"]
    np.testing.assert_allclose(predictions["prediction"], expected, rtol=1e-12)


def test_a_package_that_was_fitted_for_it_gives_an_interval_a_row(tmp_path: Path) -> None:
    case = make_case(tmp_path / "trial", "tabular", "mlp", task="regression")
    conformal = Conformal(level=0.9, threshold=0.25, n_rows=100)
    predictor = load_package(case.write(tmp_path / "package", conformal))
    assert predictor.conformal == conformal
    predictions = predictor.predict(case.features)
    assert list(predictions.columns) == ["prediction", "lower", "upper"]
    np.testing.assert_allclose(predictions["prediction"] - predictions["lower"], 2.5, rtol=1e-9)
    np.testing.assert_allclose(predictions["upper"] - predictions["prediction"], 2.5, rtol=1e-9)


def test_a_package_that_was_fitted_for_it_gives_a_set_of_labels_a_row_the_most_probable_first(tmp_path: Path) -> None:
    case = make_case(tmp_path / "trial", "tabular", "mlp", labels=("low", "mid", "high"))
    conformal = Conformal(level=0.9, threshold=0.7, n_rows=100)
    predictions = load_package(case.write(tmp_path / "package", conformal)).predict(case.features)
    for _, row in predictions.iterrows():
        ranked = sorted(("low", "mid", "high"), key=lambda label: -row[f"probability_{label}"])
        expected = [label for label in ranked if row[f"probability_{label}"] >= 0.3]
        assert row["set"] == (expected or [row["prediction"]])
    assert {len(held) for held in predictions["set"]} >= {1, 2}, "the case has sure and unsure rows"


def test_rows_keep_their_order_and_index_across_batches(tabular: Case, tmp_path: Path) -> None:
    predictor = load_package(tabular.write(tmp_path / "package"))
    assert isinstance(tabular.features, pd.DataFrame)
    many = pd.concat([tabular.features] * 60)  # 2,400 rows: three batches
    many.index = pd.RangeIndex(len(many))[::-1]
    predictions = predictor.predict(many)
    assert predictions.index.equals(many.index)
    alone = predictor.predict(many.iloc[[1234]])
    pd.testing.assert_frame_equal(predictions.iloc[[1234]], alone, rtol=1e-5)


def test_columns_are_found_by_name_and_a_missing_one_is_named(tabular: Case, tmp_path: Path) -> None:
    predictor = load_package(tabular.write(tmp_path / "package"))
    assert isinstance(tabular.features, pd.DataFrame)
    shuffled = tabular.features[["town", "wage", "age"]].assign(target="ignored")
    pd.testing.assert_frame_equal(predictor.predict(shuffled), predictor.predict(tabular.features))
    with pytest.raises(DataError, match="'wage'"):
        predictor.predict(tabular.features.drop(columns="wage"))


def test_no_rows_in_no_rows_out(tabular: Case, tmp_path: Path) -> None:
    assert isinstance(tabular.features, pd.DataFrame)
    predictions = load_package(tabular.write(tmp_path / "package")).predict(tabular.features.head(0))
    assert len(predictions) == 0
    assert "probability_0" in predictions.columns


def test_packaging_leaves_torchs_random_state_alone(tabular: Case, tmp_path: Path) -> None:
    before = torch.get_rng_state()
    load_package(tabular.write(tmp_path / "package"))
    assert torch.equal(torch.get_rng_state(), before)


def test_packaging_builds_fills_and_asks_the_module_with_one_thread(
    tabular: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads: list[int] = []
    for name in ("build", "load"):
        real = getattr(package, name)
        monkeypatch.setattr(package, name, lambda *a, real=real: (threads.append(torch.get_num_threads()), real(*a))[1])
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        tabular.write(tmp_path / "package")
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
    assert threads == [1, 1]


def test_weights_that_are_not_those_of_the_record_are_refused_before_anything_is_written(
    tabular: Case, tmp_path: Path
) -> None:
    with pytest.raises(PackageError, match="sha256 differs"):
        tabular.packager.write(
            tmp_path / "package", config=tabular.config, weights=tabular.weights, provenance=PROVENANCE,
            weights_sha256="0" * 64,
        )  # fmt: skip
    assert not (tmp_path / "package").exists()


@pytest.mark.parametrize("damage", ["torn", "other names", "not finite"])
def test_damaged_weights_are_refused_before_anything_is_written(tabular: Case, tmp_path: Path, damage: str) -> None:
    tensors = load_file(tabular.weights)
    match damage:
        case "torn":
            tabular.weights.write_bytes(tabular.weights.read_bytes()[:-10])
        case "other names":
            save_file({f"x.{name}": tensor for name, tensor in tensors.items()}, tabular.weights)
        case _:
            save_file({name: tensor * float("nan") for name, tensor in tensors.items()}, tabular.weights)
    with pytest.raises(PackageError, match=r"weights\.safetensors"):
        tabular.write(tmp_path / "package")
    assert not (tmp_path / "package").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["trial"]


def test_writing_again_replaces_the_package(tabular: Case, tmp_path: Path) -> None:
    package = tabular.write(tmp_path / "package")
    (package / "stray").touch()
    assert load_package(tabular.write(package)).config == tabular.config


def test_a_temperature_divides_the_logits_and_changes_no_prediction(tmp_path: Path) -> None:
    case = make_case(tmp_path / "case", "image", "cnn")
    plain = load_package(case.write(tmp_path / "plain"))
    calibrated = load_package(
        case.packager.write(
            tmp_path / "calibrated", config=case.config, weights=case.weights, provenance=PROVENANCE, temperature=2.0
        )
    )
    torch.testing.assert_close(calibrated.outputs(case.features), plain.outputs(case.features) / 2)
    before, after = plain.predict(case.features), calibrated.predict(case.features)
    assert before["prediction"].equals(after["prediction"])
    assert after.filter(like="probability_").max().max() < before.filter(like="probability_").max().max()


def test_a_model_of_texts_is_not_exported_as_a_file_of_numbers(tmp_path: Path) -> None:
    predictor = load_package(make_case(tmp_path / "trial", "text", "mlp").write(tmp_path / "package"))
    with pytest.raises(InputError, match="models of texts are not exported"):
        standalone_inputs(predictor, ["a good film"])  # type: ignore[arg-type]
