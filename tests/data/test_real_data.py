"""The well-known data sets come out as their documentation describes them, in seconds."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
import torch

from pipeline.data.config import DataConfig
from pipeline.data.prepare import prepare


def test_adult(real_data: Path, tmp_path: Path) -> None:
    config = DataConfig(source="adult/train.csv", target="class", test="adult/test.csv")
    prepared = prepare(config, real_data, tmp_path)
    spec = prepared.spec
    assert (spec.task, spec.labels) == ("binary", ("<=50K", ">50K"))
    assert (spec.n_train + spec.n_validation, len(prepared.sealed)) == (32_561, 16_281)
    types = list(prepared.schema.values())
    assert (types.count("numeric"), types.count("categorical")) == (6, 8)
    train = prepared.development().train
    assert float(train.target.float().mean()) == pytest.approx(0.241, abs=0.001)
    assert train.inputs.categories is not None
    # `?` in workclass, occupation and native-country is missing, which is code 0
    missing = (train.inputs.categories == 0).any(0).tolist()
    categorical = [name for name, kind in prepared.schema.items() if kind == "categorical"]
    assert {name for name, has in zip(categorical, missing, strict=True) if has} == {
        "workclass", "occupation", "native-country",
    }  # fmt: skip


def test_california_housing(real_data: Path, tmp_path: Path) -> None:
    config = DataConfig(source="california_housing/housing.csv", target="median_house_value")
    prepared = prepare(config, real_data, tmp_path)
    spec = prepared.spec
    assert (spec.task, prepared.n_rows) == ("regression", 20_640)
    assert spec.n_numeric == 8 + 1  # total_bedrooms has holes
    assert spec.cardinalities == (6,)
    assert spec.target_mean == pytest.approx(206_856, rel=0.01)
    x = prepared.development().train.inputs.x
    assert float(x[:, :8].mean().abs()) < 0.05
    assert float(x.abs().max()) < 5.3


def test_mnist(real_data: Path, tmp_path: Path) -> None:
    config = DataConfig(source="mnist/train-images-idx3-ubyte.gz", test="mnist/t10k-images-idx3-ubyte.gz")
    start = time.perf_counter()
    prepared = prepare(config, real_data, tmp_path)
    first = time.perf_counter() - start
    start = time.perf_counter()
    development = prepare(config, real_data, tmp_path).development()
    second = time.perf_counter() - start
    assert second < first < 30  # 1.7 s and 0.1 s on a quiet core; the bound allows for a loaded one
    spec = prepared.spec
    assert (spec.channels, spec.height, spec.width, len(spec.labels)) == (1, 28, 28, 10)
    assert (spec.n_train, spec.n_validation, len(prepared.sealed)) == (48_000, 12_000, 10_000)
    assert float(development.train.inputs.x[::50].mean()) == pytest.approx(0, abs=0.05)
    counts = torch.bincount(development.train.target, minlength=10)
    assert counts.sum() == 48_000
    assert int(counts.min()) == round(5421 * 0.8)  # fives, the rarest of the 60,000


def test_japanese_vowels(real_data: Path, tmp_path: Path) -> None:
    config = DataConfig(source="japanese_vowels/JapaneseVowels_TRAIN.ts", test="japanese_vowels/JapaneseVowels_TEST.ts")
    prepared = prepare(config, real_data, tmp_path)
    spec = prepared.spec
    assert (spec.kind, spec.labels, spec.n_features) == ("sequence", tuple(range(1, 10)), 12)
    assert (spec.n_train, spec.n_folds, len(prepared.sealed)) == (270, 5, 370)
    train = prepared.development().train
    assert train.inputs.lengths is not None
    assert 7 <= int(train.inputs.lengths.min()) < int(train.inputs.lengths.max()) == spec.n_steps <= 29
    assert torch.bincount(train.target).tolist() == [30] * 9


def test_italy_power_demand(real_data: Path, tmp_path: Path) -> None:
    config = DataConfig(
        source="italy_power_demand/ItalyPowerDemand_TRAIN.ts", test="italy_power_demand/ItalyPowerDemand_TEST.ts"
    )
    prepared = prepare(config, real_data, tmp_path)
    assert (prepared.spec.n_steps, prepared.spec.n_features, prepared.n_rows) == (24, 1, 67 + 1029)
