"""How fast data is prepared and how much memory it takes, against plain pandas and scikit-learn doing the same.

Each measurement is a process of its own. Plain: read, divide into three stratified parts, fit quantiles and levels on
the training part, transform all parts, write them. Ours does that, and infers types, checks the data, hashes it and
seals the test.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

TABLE, TARGET = "kddcup99/all_805k.parquet", "category"


def main(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks prepare", description=__doc__)
    parser.add_argument("--rows", type=int, nargs="+", default=[10_000, 100_000, 805_050])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("AUTOML_DATA", "data")))
    parser.add_argument("--one", nargs=3, metavar=("WHO", "WHAT", "TARGET"), help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.one:
        print(json.dumps(_one(*options.one)))
        return
    print("| data | who | rows a CPU second | CPU seconds | wall seconds | peak MiB |\n|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as scratch:
        for n_rows in options.rows:
            path = _sample(options.data / TABLE, n_rows, Path(scratch))
            _compare(f"table, {n_rows:,} rows of 41 columns", str(path), TARGET, options.repeats)
        _compare(
            "60,000 images of 28 x 28", str(options.data / "mnist/train-images-idx3-ubyte.gz"), "", options.repeats
        )
        _compare("1,500 PNG files", str(options.data / "cifar10_png_folder/train"), "", options.repeats)
        _compare(
            "270 sequences",
            str(options.data / "japanese_vowels/JapaneseVowels_TRAIN.ts"),
            "",
            options.repeats,
            ("ours",),
        )


def _sample(source: Path, n_rows: int, folder: Path) -> Path:
    import pandas as pd

    table = pd.read_parquet(source)
    path = folder / f"{n_rows}.parquet"
    table.sample(min(n_rows, len(table)), random_state=0).to_parquet(path, index=False)
    return path


def _compare(name: str, path: str, target: str, repeats: int, who: tuple[str, ...] = ("ours", "plain")) -> None:
    """Both in turn; the median and the extremes of the repeats."""
    measured: dict[str, list[dict[str, Any]]] = {one: [] for one in who}
    for _ in range(repeats):
        for one in who:
            command = [sys.executable, "-m", "benchmarks", "prepare", "--one", one, path, target]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            measured[one].append(json.loads(done.stdout))
    for one, results in measured.items():
        cpu = sorted(result["cpu"] for result in results)
        middle, wall = statistics.median(cpu), statistics.median(result["seconds"] for result in results)
        peak = max(result["peak_mib"] for result in results)
        spread = f"{middle:.2f} ({cpu[0]:.2f} to {cpu[-1]:.2f})"
        rate = results[0]["rows"] / middle
        print(f"| {name} | {one} | {rate:,.0f} | {spread} | {wall:.2f} | {peak:,.0f} |", flush=True)


def _one(who: str, path: str, target: str) -> dict[str, float]:
    """Imports are not counted, the memory that they take is."""
    work = _ours if who == "ours" else _plain_table if target else _plain_images
    if who == "ours":
        import pipeline.data.prepare  # noqa: F401
    else:
        import sklearn.compose
        import sklearn.impute
        import sklearn.model_selection
        import sklearn.pipeline
        import sklearn.preprocessing  # noqa: F401
    with tempfile.TemporaryDirectory() as folder:
        started, began = time.perf_counter(), time.process_time()
        rows = work(Path(path), target, Path(folder))
        seconds = time.perf_counter() - started
        cpu = time.process_time() - began
    # Not ru_maxrss: a process that was started by a large one inherits its.
    peak = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return {"rows": rows, "seconds": seconds, "cpu": cpu, "peak_mib": int(peak.split()[1]) / 1024}


def _ours(path: Path, target: str, folder: Path) -> int:
    from pipeline.data.config import DataConfig, SplitConfig
    from pipeline.data.prepare import prepare

    config = DataConfig(source=path.name, target=target or None, split=SplitConfig(by="stratified"))
    return prepare(config, path.parent, folder).n_rows


def _plain_table(path: Path, target: str, folder: Path) -> int:
    import numpy as np
    import pandas as pd
    from sklearn.compose import ColumnTransformer
    from sklearn.impute import SimpleImputer
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OrdinalEncoder, QuantileTransformer

    table = pd.read_parquet(path)
    labels = table.pop(target)
    numeric = table.select_dtypes("number").columns
    quantiles = QuantileTransformer(output_distribution="normal", subsample=None)
    codes = OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1)
    transformer = ColumnTransformer(
        [("n", make_pipeline(SimpleImputer(strategy="median"), quantiles), numeric),
         ("c", codes, table.columns.difference(numeric))]
    )  # fmt: skip
    train, validation, test = _divide(np.arange(len(table)), labels.to_numpy())
    transformer.fit(table.iloc[train])
    for name, rows in (("train", train), ("validation", validation), ("test", test)):
        np.save(folder / name, transformer.transform(table.iloc[rows]).astype(np.float32))
    return len(table)


def _plain_images(path: Path, _target: str, folder: Path) -> int:
    import gzip

    import numpy as np
    from PIL import Image

    if path.is_dir():
        files = sorted(path.rglob("*.png"))
        images = np.stack([np.asarray(Image.open(file)) for file in files])
        labels = np.array([file.parent.name for file in files])
    else:
        images = np.frombuffer(gzip.decompress(path.read_bytes()), np.uint8, offset=16).reshape(-1, 28, 28, 1)
        beside = path.with_name(path.name.replace("images-idx3", "labels-idx1"))
        labels = np.frombuffer(gzip.decompress(beside.read_bytes()), np.uint8, offset=8)
    train, validation, test = _divide(np.arange(len(images)), labels)
    pixels = images[train].astype(np.float32)
    mean, std = pixels.mean(axis=(0, 1, 2)), pixels.std(axis=(0, 1, 2))
    for name, rows in (("train", train), ("validation", validation), ("test", test)):
        np.save(folder / name, ((images[rows].astype(np.float32) - mean) / std).transpose(0, 3, 1, 2))
    return len(images)


def _divide(rows: Any, labels: Any) -> tuple[Any, Any, Any]:
    from sklearn.model_selection import train_test_split

    rest, test = train_test_split(rows, test_size=0.2, random_state=0, stratify=labels)
    train, validation = train_test_split(rest, test_size=0.25, random_state=0, stratify=labels[rest])
    return train, validation, test
