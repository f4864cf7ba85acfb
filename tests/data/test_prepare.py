"""Preparing: made once, kept by content, statistics of training rows only, the test sealed."""

from __future__ import annotations

import json
import multiprocessing
import pickle
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_type_hints

import numpy as np
import pandas as pd
import pytest
import torch

from pipeline.data import prepare as prepare_module
from pipeline.data.assemble import assemble
from pipeline.data.config import DataConfig, SplitConfig
from pipeline.data.dataset import Dataset
from pipeline.data.development import load_development
from pipeline.data.prepare import Prepared, load_prepared, prepare
from pipeline.data.preprocess import TabularPreprocessor, encode_target
from pipeline.data.sealed import SealedTest, unseal
from pipeline.data.source import read_source
from pipeline.data.tensors import Part
from pipeline.errors import DataError


def make_frame(n: int = 200) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    x = rng.normal(size=n)
    return pd.DataFrame(
        {
            "x": x,
            "holes": np.where(rng.random(n) < 0.2, np.nan, rng.lognormal(size=n)),
            "colour": rng.choice(["red", "green", "blue"], n),
            "y": np.where(x + 0.3 * rng.normal(size=n) > 0, "pos", "neg"),
        }
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    make_frame().to_csv(tmp_path / "a.csv", index=False)
    return tmp_path


CONFIG = DataConfig(source="a.csv", target="y", split=SplitConfig(by="stratified"))


def test_a_prepared_data_set_has_all_that_a_search_needs(folder: Path) -> None:
    prepared = prepare(CONFIG, folder, folder / "store")
    development = prepared.development()
    spec = prepared.spec
    assert (spec.kind, spec.task, spec.labels) == ("tabular", "binary", ("neg", "pos"))
    assert (len(development.train), len(development.validation), len(prepared.sealed)) == (120, 40, 40)
    assert development.train.inputs.x.shape == (120, spec.n_numeric) == (120, 3)
    assert len(spec.bins) == spec.n_numeric
    assert spec.cardinalities == (4,)
    assert development.train.inputs.categories is not None
    assert int(development.train.inputs.categories.max()) < 4
    assert development.train.target.dtype == torch.int64
    assert development.fingerprint == prepared.fingerprint
    assert prepared.schema == {"x": "numeric", "holes": "numeric", "colour": "categorical"}
    assert prepared.n_rows == 200


def test_what_is_prepared_is_found_again(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = prepare(CONFIG, folder, folder / "store")
    monkeypatch.setattr(prepare_module, "_make", lambda *_: pytest.fail("it was made again"))
    assert prepare(CONFIG, folder, folder / "store") == first
    assert load_prepared(first.directory) == first


def test_the_fingerprint_is_of_the_content(folder: Path) -> None:
    first = prepare(CONFIG, folder, folder / "store")
    (folder / "b.csv").write_bytes((folder / "a.csv").read_bytes())
    renamed = prepare(CONFIG.model_copy(update={"source": "b.csv"}), folder, folder / "store")
    assert renamed.fingerprint == first.fingerprint
    assert renamed.split_hash == first.split_hash
    reseeded = prepare(DataConfig.model_validate({**CONFIG.model_dump(), "split": {"seed": 1}}), folder, folder / "s")
    assert reseeded.fingerprint != first.fingerprint
    frame = make_frame()
    frame.loc[3, "x"] += 1e-9
    frame.to_csv(folder / "a.csv", index=False)
    assert prepare(CONFIG, folder, folder / "store").fingerprint != first.fingerprint


def test_equal_input_gives_equal_tensors(folder: Path) -> None:
    one, two = (prepare(CONFIG, folder, folder / store) for store in ("s1", "s2"))
    assert one.fingerprint == two.fingerprint
    assert (one.directory / "development.safetensors").read_bytes() == (
        two.directory / "development.safetensors"
    ).read_bytes()
    assert one.sealed.sha256 == two.sealed.sha256


def test_statistics_are_those_of_training_rows_only(folder: Path) -> None:
    frame = make_frame().assign(person=np.arange(200) // 2)  # groups: rows by chance move with what is in them
    frame.to_csv(folder / "a.csv", index=False)
    config = CONFIG.model_copy(update={"split": SplitConfig(by="group", column="person")})
    original = assemble(config, read_source("a.csv", folder, "y"), None)
    in_training = set(_training_rows(original.preprocessor, original.development.train, frame))
    others = [row for row in range(len(frame)) if row not in in_training]
    assert len(others) == 80
    frame.loc[others, ["x", "holes"]] = 1e6
    frame.loc[others, "colour"] = "infrared"
    frame.drop(columns="y").assign(y=frame["y"]).to_csv(folder / "a.csv", index=False)
    changed = assemble(config, read_source("a.csv", folder, "y"), None)
    assert changed.split_hash == original.split_hash
    assert changed.preprocessor == original.preprocessor
    assert changed.development.spec == original.development.spec
    assert torch.equal(changed.development.train.inputs.x, original.development.train.inputs.x)
    assert not torch.equal(changed.development.validation.inputs.x, original.development.validation.inputs.x)


def test_folds_share_the_training_rows_and_their_preparation(folder: Path) -> None:
    prepared = prepare(DataConfig(source="a.csv", target="y"), folder, folder / "store")
    development = prepared.development()
    assert (prepared.spec.n_train, prepared.spec.n_folds, len(prepared.sealed)) == (160, 5, 40)
    assert development.folds is not None
    assert torch.bincount(development.folds).tolist() == [32] * 5
    assert development.validation is development.train


def _training_rows(preprocessor: Any, train: Part, frame: pd.DataFrame) -> Iterator[int]:
    """Rows of the source whose prepared form is in the training part; `x` is distinct in every row."""
    assert isinstance(preprocessor, TabularPreprocessor)
    of_training = set(preprocessor.numeric[0].quantiles)
    yield from (row for row, x in enumerate(frame["x"]) if any(abs(x - q) < 1e-12 for q in of_training))
    assert len(of_training) == len(train)


def test_regression_is_standardised_by_training_rows(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    pd.DataFrame({"x": rng.normal(size=100), "y": rng.normal(500, 30, 100)}).to_csv(tmp_path / "a.csv", index=False)
    prepared = prepare(CONFIG.model_copy(update={"split": SplitConfig()}), tmp_path, tmp_path / "store")
    target = prepared.development().train.target
    assert prepared.spec.task == "regression"
    assert float(target.mean()) == pytest.approx(0, abs=1e-5)
    assert float(target.std(correction=0)) == pytest.approx(1, abs=1e-5)
    assert prepared.spec.target_mean == pytest.approx(500, abs=15)


def test_a_separate_test_file_is_the_whole_test(folder: Path) -> None:
    make_frame(300).tail(100).to_csv(folder / "t.csv", index=False)
    prepared = prepare(CONFIG.model_copy(update={"test": "t.csv"}), folder, folder / "store")
    assert len(prepared.sealed) == 100
    assert prepared.spec.n_train == 160
    assert prepared.n_rows == 300


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"y": "maybe"}, "the test part: the target value 'maybe'"),
        ({"x": None}, "the test part: the table lacks the column 'x'"),
    ],
)
def test_a_test_that_cannot_be_scored_is_known_before_the_search(
    folder: Path, change: dict[str, Any], message: str
) -> None:
    frame = make_frame(40).assign(**change)
    frame.drop(columns=[name for name, value in change.items() if value is None]).to_csv(folder / "t.csv", index=False)
    with pytest.raises(DataError, match=message):
        prepare(DataConfig(source="a.csv", target="y", test="t.csv"), folder, folder / "store")
    assert list((folder / "store").iterdir()) == []


def test_the_column_that_divides_is_no_feature(folder: Path) -> None:
    make_frame().assign(person=np.arange(200) % 17).to_csv(folder / "a.csv", index=False)
    config = {"source": "a.csv", "target": "y", "split": {"by": "group", "column": "person"}}
    prepared = prepare(DataConfig.model_validate(config), folder, folder / "store")
    assert "person" not in prepared.schema
    asked = prepare(DataConfig.model_validate({**config, "types": {"person": "categorical"}}), folder, folder / "s")
    assert asked.schema["person"] == "categorical"


def test_a_copy_of_the_target_is_suspected(folder: Path) -> None:
    frame = make_frame()
    frame.assign(copy=frame["y"].map({"pos": 4, "neg": 9})).to_csv(folder / "a.csv", index=False)
    findings = prepare(CONFIG, folder, folder / "store").findings
    assert [finding.subject for finding in findings if "leak" in finding.message] == ["copy"]


def test_image_data_from_the_bundled_digits(tmp_path: Path) -> None:
    prepared = prepare(DataConfig(source="sklearn:digits"), tmp_path, tmp_path / "store")
    spec = prepared.spec
    assert (spec.kind, spec.task, spec.channels, spec.height, spec.width) == ("image", "multiclass", 1, 8, 8)
    assert spec.labels == tuple(range(10))
    assert (spec.n_train, spec.n_validation, len(prepared.sealed)) == (1079, 359, 359)


def test_options_that_are_for_tables_are_refused_elsewhere(tmp_path: Path) -> None:
    for options, message in (
        ({"types": {"a": "drop"}}, "columns of a table"),
        ({"split": {"by": "group", "column": "a"}}, "needs a table"),
    ):
        with pytest.raises(DataError, match=message):
            prepare(DataConfig.model_validate({"source": "sklearn:digits", **options}), tmp_path, tmp_path / "store")


# ---- the folder --------------------------------------------------------------------------------------------------


def test_workers_share_pages_and_cannot_write_them_back(folder: Path) -> None:
    prepared = prepare(CONFIG, folder, folder / "store")
    development = prepared.development()
    development.train.inputs.x.zero_()
    assert float(load_development(prepared.directory).train.inputs.x.abs().max()) > 0
    maps = Path("/proc/self/maps")
    if maps.exists():
        assert str(prepared.directory / "development.safetensors") in maps.read_text()


def test_workers_load_without_pandas_and_scikit_learn(folder: Path) -> None:
    prepared = prepare(CONFIG, folder, folder / "store")
    code = (
        "import sys; from pathlib import Path; from pipeline.data.development import load_development\n"
        f"print(len(load_development(Path({str(prepared.directory)!r})).train))\n"
        "print(sorted({'pandas', 'sklearn', 'pyarrow', 'optuna', 'mlflow', 'prefect'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split("\n")[:2] == ["120", "[]"]


def test_damage_is_found(folder: Path) -> None:
    prepared = prepare(CONFIG, folder, folder / "store")
    path = prepared.directory / "development.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(DataError, match="do not match their hash; remove the folder"):
        prepare(CONFIG, folder, folder / "store")
    (prepared.directory / "prepared.json").write_text("{")
    with pytest.raises(DataError, match="incomplete or damaged"):
        load_prepared(prepared.directory)


def test_a_file_that_changes_while_it_is_read_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = prepare_module._make

    def grow(*arguments: Any) -> None:
        real(*arguments)
        with (folder / "a.csv").open("a") as file:
            file.write("1,2,red,pos\n")

    monkeypatch.setattr(prepare_module, "_make", grow)
    with pytest.raises(DataError, match="changed while it was read"):
        prepare(CONFIG, folder, folder / "store")
    assert list((folder / "store").iterdir()) == []


def _prepare_there(folder: str) -> str:
    return str(prepare(CONFIG, Path(folder), Path(folder) / "store").directory)


def test_several_makers_at_once_agree(folder: Path) -> None:
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        directories = pool.map(_prepare_there, [str(folder)] * 4, chunksize=1)
    assert len(set(directories)) == 1
    assert [path.name for path in (folder / "store").iterdir()] == [Path(directories[0]).name]


# ---- the sealed test ---------------------------------------------------------------------------------------------


@pytest.fixture
def prepared(folder: Path) -> Prepared:
    return prepare(CONFIG, folder, folder / "store")


def test_unsealing_is_on_the_ledger_and_gives_raw_rows(prepared: Prepared, folder: Path) -> None:
    ledger = folder / "state" / "readings.jsonl"
    for reason in ("finalists of s1", "again\nand again"):
        dataset, target = unseal(prepared.sealed, reason, ledger)
    entries = [json.loads(line) for line in ledger.read_text().splitlines()]
    assert [entry["reason"] for entry in entries] == ["finalists of s1", "again and again"]
    assert entries[0]["sha256"] == prepared.sealed.sha256
    assert isinstance(dataset, Dataset)
    assert isinstance(dataset.features, pd.DataFrame)
    source = pd.read_csv(folder / "a.csv", dtype=str)
    merged = dataset.features.merge(source, how="left")
    assert merged["y"].tolist() == target.tolist()
    assert len(encode_target(prepared.spec, target)) == 40
    assert prepared.preprocessor.transform(dataset.features).x.shape == (40, 3)


def test_the_ledger_is_written_before_a_row_is_read(
    prepared: Prepared, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("killed while reading")

    monkeypatch.setattr("pipeline.data.sealed._read_features", fail)
    with pytest.raises(RuntimeError, match="killed"):
        unseal(prepared.sealed, "a reading", folder / "ledger")
    assert len((folder / "ledger").read_text().splitlines()) == 1


def test_changed_rows_do_not_unseal(prepared: Prepared, folder: Path) -> None:
    rows = prepared.sealed.directory / "rows.parquet"
    rows.write_bytes(rows.read_bytes()[:-1] + b"x")
    with pytest.raises(DataError, match="do not match their hash"):
        unseal(prepared.sealed, "a reading", folder / "ledger")
    assert not (folder / "ledger").exists()


def test_a_sealed_test_has_no_rows_to_give(prepared: Prepared) -> None:
    sealed = prepared.sealed
    assert len(sealed) == 40
    with pytest.raises(TypeError):
        iter(sealed)  # type: ignore[call-overload]
    with pytest.raises(TypeError):
        sealed[0]  # type: ignore[index]
    assert not isinstance(sealed, Part)
    assert get_type_hints(SealedTest) == {"directory": Path, "sha256": str, "n_rows": int}
    assert len(pickle.dumps(sealed)) < 1000


@pytest.mark.parametrize("kind", ["image", "sequence"])
def test_other_kinds_come_back_as_they_were(tmp_path: Path, kind: str) -> None:
    rng = np.random.default_rng(0)
    y = np.arange(60) % 3
    if kind == "image":
        np.savez(tmp_path / "a.npz", x=rng.integers(0, 256, (60, 4, 5), dtype=np.uint8), y=y)
        source = "a.npz"
    else:
        cases = [f"{','.join(map(str, rng.integers(0, 9, 3 + i % 4)))}:{label}" for i, label in enumerate(y)]
        (tmp_path / "a.ts").write_text("@classLabel true 0 1 2\n@data\n" + "\n".join(cases))
        source = "a.ts"
    prepared = prepare(DataConfig(source=source), tmp_path, tmp_path / "store")
    dataset, target = unseal(prepared.sealed, "a reading", tmp_path / "ledger")
    data = read_source(source, tmp_path)
    raw = {np.asarray(row).tobytes() for row in data.features}
    assert (dataset.kind, len(target)) == (kind, 12)
    assert all(np.asarray(row).tobytes() in raw for row in dataset.features)
    assert prepared.preprocessor.transform(dataset.features).x.dtype == torch.float32
