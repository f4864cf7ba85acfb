"""Sources that are no files: tables of OpenML, and what the user's own function returns."""

from __future__ import annotations

import gzip
import hashlib
import json
import textwrap
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pipeline.data.config import DataConfig
from pipeline.data.prepare import Prepared, prepare
from pipeline.data.source import read_features, read_source
from pipeline.errors import DataError

ARFF = """@RELATION weather
@ATTRIBUTE temperature NUMERIC
@ATTRIBUTE sky {sunny, grey}
@ATTRIBUTE play {yes, no}
@DATA
""" + "".join(f"{20 + i / 10},{'grey' if i % 3 else '?'},{'yes' if i % 2 else 'no'}\n" for i in range(40))


@pytest.fixture
def openml(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """scikit-learn's cache as a download of data set 4711 leaves it; every connection is refused."""
    cache = tmp_path / "cache"
    monkeypatch.setenv("SCIKIT_LEARN_DATA", str(cache))
    for scheme in ("http_proxy", "https_proxy"):
        monkeypatch.setenv(scheme, "http://127.0.0.1:9")
    monkeypatch.setenv("no_proxy", "")
    monkeypatch.setattr("urllib.request._opener", None)  # it keeps the proxies that it first saw
    monkeypatch.setattr("time.sleep", lambda _: None)  # scikit-learn waits a second between its attempts
    url = "https://www.openml.org/data/v1/download/99/weather.arff"
    features = [
        {"index": str(i), "name": name, "data_type": kind, "is_target": str(name == "play").lower(),
         "is_ignore": "false", "is_row_identifier": "false", "number_of_missing_values": "0",
         **({"nominal_value": levels} if levels else {})}
        for i, (name, kind, levels) in enumerate(
            [("temperature", "numeric", ()), ("sky", "nominal", ["sunny", "grey"]), ("play", "nominal", ["yes", "no"])]
        )
    ]  # fmt: skip
    description = {
        "id": "4711", "name": "weather", "version": "1", "format": "ARFF", "status": "deactivated", "file_id": "99",
        "url": url, "md5_checksum": hashlib.md5(ARFF.encode()).hexdigest(), "default_target_attribute": "play",
        "description": "Whether to play.",
    }  # fmt: skip
    answers = {
        "api/v1/json/data/4711": json.dumps({"data_set_description": description}),
        "api/v1/json/data/features/4711": json.dumps({"data_features": {"feature": features}}),
        "api/v1/json/data/qualities/4711": json.dumps(
            {"data_qualities": {"quality": [{"name": "NumberOfInstances", "value": "40"}]}}
        ),
        "data/v1/download/99/weather.arff": ARFF,
    }
    for path, text in answers.items():
        file = cache / "openml" / "openml.org" / f"{path}.gz"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(gzip.compress(text.encode()))
    return cache


def test_an_openml_table_comes_with_its_default_target(openml: Path) -> None:
    data = read_source("openml:4711", Path())
    assert isinstance(data.features, pd.DataFrame)
    assert data.target is not None
    assert list(data.features.columns) == ["temperature", "sky"]
    assert data.features["temperature"].tolist()[:2] == [20.0, 20.1]
    assert data.features["sky"].isna().sum() == 14
    assert data.target.tolist()[:2] == ["no", "yes"]
    assert ["is inactive" in finding.message for finding in data.findings] == [True]


def test_another_column_may_be_the_target_and_rows_to_predict_need_none(openml: Path) -> None:
    data = read_source("openml:4711", Path(), "temperature")
    assert isinstance(data.features, pd.DataFrame)
    assert list(data.features.columns) == ["sky", "play"]
    features = read_features("openml:4711", "tabular", "play")
    assert isinstance(features, pd.DataFrame)
    assert list(features.columns) == ["temperature", "sky"]


def test_without_a_network_it_is_said_in_one_line_and_nothing_is_left(openml: Path, tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match=r"^openml:12: OpenML cannot be reached \(.*\); check the network, or name a file"
    ):
        prepare(DataConfig(source="openml:12"), Path(), tmp_path / "store")
    assert list(openml.rglob("*12*")) == []
    assert list((tmp_path / "store").iterdir()) == []


@pytest.mark.parametrize("name", ["adult", "", "-3", "1590/../x"])
def test_an_openml_source_is_a_number(openml: Path, name: str) -> None:
    with pytest.raises(DataError, match="an OpenML source is named by a number; write openml:1590"):
        read_source(f"openml:{name}", Path())


Write = Callable[[str], Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Write a module of the user's; every test has one of its own name."""

    def into_a_module(body: str) -> Path:
        name = f"mine_{hashlib.md5(str(tmp_path).encode()).hexdigest()[:8]}"
        path = tmp_path / f"{name}.py"
        path.write_text("import numpy as np\nimport pandas as pd\n" + textwrap.dedent(body))
        return path

    return into_a_module


def prepared(module: Path, **data: object) -> Prepared:
    config = DataConfig.model_validate({"source": f"python:{module.stem}:load", **data})
    return prepare(config, module.parent, module.parent / "store")


TABLE = """
def load():
    print("reading")
    return pd.DataFrame({"a": np.arange(60.0) % 7, "b": list("xyz") * 20, "y": [0, 1] * 30})
"""
SERIES = {"sequence": "sequence (T <= 4, 2)"}
PAIR = "def load():\n    return {x}, np.arange(60) % 2\n"


@pytest.mark.parametrize(
    ("body", "data", "kind", "schema"),
    [
        (TABLE, {"target": "y"}, "tabular", {"a": "numeric", "b": "categorical"}),
        (PAIR.format(x="pd.DataFrame({'a': np.arange(60) % 7})"), {}, "tabular", {"a": "numeric"}),
        (
            PAIR.format(x="pd.DataFrame({'said': ['so it is', 'it is not'] * 30})"),
            {"kind": "text"},
            "text",
            {"said": "text"},
        ),
        (PAIR.format(x="np.arange(120.0).reshape(60, 2) % 7"), {}, "tabular", {"x0": "numeric", "x1": "numeric"}),
        (PAIR.format(x="np.zeros((60, 8, 8), np.uint8)"), {}, "image", {"image": "image (1, 8, 8)"}),
        (
            PAIR.format(x="[np.ones((3 + i % 2, 2)) for i in range(60)]"),
            {},
            "sequence",
            {"sequence": "sequence (T <= 4, 2)"},
        ),
    ],
    ids=["frame", "frame and target", "texts", "matrix", "images", "sequences"],
)
def test_a_function_returns_data_of_any_kind(
    write: Write, capsys: pytest.CaptureFixture[str], body: str, data: dict[str, str], kind: str, schema: dict[str, str]
) -> None:
    done = prepared(write(body), **data)
    assert (done.spec.kind, done.schema, done.n_rows) == (kind, schema, 60)
    assert capsys.readouterr().out == ""  # what the function prints is no part of our answer


def test_data_of_a_function_is_prepared_anew_when_its_content_changes_and_only_then(write: Write) -> None:
    module = write(TABLE)
    first = prepared(module, target="y")
    write("# another comment" + TABLE)
    assert prepared(module, target="y").directory == first.directory
    write(TABLE.replace("% 7", "% 5"))
    changed = prepared(module, target="y")
    assert changed.fingerprint != first.fingerprint
    assert len(list(first.directory.parent.iterdir())) == 2


def test_rows_to_predict_need_no_target(write: Write) -> None:
    module = write("def load():\n    return np.ones((4, 2))")
    assert len(read_features(f"python:{module.stem}:load", "tabular", root=module.parent)) == 4


@pytest.mark.parametrize(
    ("body", "data", "message"),
    [
        ("def load():\n    return 1 / 0", {}, r"load failed \(ZeroDivisionError: division by zero\)"),
        ("import sys\ndef load():\n    sys.exit(0)", {}, r"load failed \(SystemExit: 0\)"),
        ("def save():\n    pass", {}, "has no function 'load'"),
        ("def load(", {}, r"cannot be imported \(SyntaxError"),
        ("def load():\n    return np.ones((60, 2))", {}, "returned a ndarray; return a DataFrame, or"),
        (PAIR.format(x="np.ones((59, 2))"), {}, "returned 60 targets for other rows"),
        (PAIR.format(x="np.ones((60, 2))"), {"target": "y"}, "returns its own target, but data.target is 'y'"),
        (PAIR.format(x="[{}] * 60"), {}, "returned X as a list"),
        ("def load():\n    return np.ones((60, 2)), np.ones((60, 2))", {}, r"returned y with the shape \(60, 2\)"),
        (TABLE.replace("np.arange(60.0) % 7", "[1, 'x'] * 30"), {"target": "y"}, "a column has mixed types"),
        (TABLE.replace("np.arange(60.0) % 7", "[[1]] * 60"), {"target": "y"}, "the column 'a' has the type list"),
        (TABLE, {}, "a table needs `data.target`"),
    ],
)
def test_what_a_function_does_wrong_is_said_in_one_line(
    write: Write, body: str, data: dict[str, str], message: str
) -> None:
    module = write(body)
    with pytest.raises(DataError, match=message) as error:
        prepared(module, **data)
    assert "\n" not in str(error.value)
    assert not (module.parent / "store").exists() or list((module.parent / "store").iterdir()) == []


@pytest.mark.parametrize(
    ("source", "message"),
    [("python:nowhere_at_all:load", r"cannot be imported \(ModuleNotFoundError"), ("python:json", "names no function")],
)
def test_a_function_must_be_there(source: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_source(source, Path())


def test_an_array_is_not_mistaken_for_a_pair(write: Write) -> None:
    body = "def load():\n    return np.arange(12.0).reshape(2, 6), np.array([0, 1])"
    data = read_source(f"python:{write(body).stem}:load", write(body).parent)
    assert data.target is not None
    np.testing.assert_array_equal(data.target, [0, 1])
