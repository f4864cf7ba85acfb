"""Reading: every format gives the rows that are in it, or one line that says where and why not."""

from __future__ import annotations

import gzip
import pickle
import struct
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.data.dataset import Dataset
from pipeline.data.readers import request as request_module
from pipeline.data.source import read_features, read_source
from pipeline.errors import DataError


def read(path: Path, target: str | None = "y", **options: object) -> Dataset:
    return read_source(path.name, path.parent, target, **options)  # type: ignore[arg-type]


def write(path: Path, text: str | bytes) -> Path:
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def idx(array: np.ndarray) -> bytes:
    return struct.pack(">BBBB", 0, 0, 8, array.ndim) + struct.pack(f">{array.ndim}i", *array.shape) + array.tobytes()


# ---- csv and tsv -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["a.csv", "a.csv.gz", "a.tsv", "a.tsv.gz", "A.CSV"])
def test_delimited_text_by_extension(tmp_path: Path, name: str) -> None:
    text = "x,y\n1,a\n2,b\n".replace(",", "\t" if "tsv" in name else ",").encode()
    data = read(write(tmp_path / name, gzip.compress(text) if name.endswith("gz") else text))
    assert data.kind == "tabular"
    assert isinstance(data.features, pd.DataFrame)
    assert data.features["x"].tolist() == ["1", "2"]
    assert data.target is not None
    assert data.target.tolist() == ["a", "b"]


def test_a_byte_order_mark_is_no_part_of_the_first_name(tmp_path: Path) -> None:
    data = read(write(tmp_path / "a.csv", b"\xef\xbb\xbfy,x\na,1\nb,2\n"))
    assert list(data.features.columns) == ["x"]  # type: ignore[union-attr]


def test_cells_keep_their_text_until_training_rows_decide(tmp_path: Path) -> None:
    data = read(write(tmp_path / "a.csv", 'code,y\n007,a\n"1,5",b\n?,a\n,b\n'))
    assert isinstance(data.features, pd.DataFrame)
    assert data.features["code"].isna().tolist() == [False, False, True, True]
    assert data.features["code"].tolist()[:2] == ["007", "1,5"]


def test_line_breaks_in_quotes_are_part_of_the_cell(tmp_path: Path) -> None:
    data = read(write(tmp_path / "a.csv", '"a\nb",y\n"1\n2",p\n3,q\n'))
    assert data.features.iloc[0, 0] == "1\n2"  # type: ignore[union-attr]
    assert list(data.features.columns) == ["a\nb"]  # type: ignore[union-attr]


def test_an_inch_sign_in_plain_text_is_no_quote(tmp_path: Path) -> None:
    data = read(write(tmp_path / "a.csv", 'x,y\n3.5" disk,a\n5" disk,b\n8" disk,a\n'))
    assert data.features["x"].tolist() == ['3.5" disk', '5" disk', '8" disk']  # type: ignore[union-attr]


@pytest.mark.parametrize("delimiter", [";", "|", "\t"])
def test_another_delimiter_in_a_csv_is_found_and_said(tmp_path: Path, delimiter: str) -> None:
    data = read(write(tmp_path / "a.csv", "x,y\n1,a\n2,b\n".replace(",", delimiter)))
    assert len(data) == 2
    assert "delimiter" in data.findings[0].message


def test_decimal_commas_become_points_only_in_columns_of_numbers(tmp_path: Path) -> None:
    data = read(write(tmp_path / "a.csv", "x;t;y\n1,5;a,b;p\n2;c;q\n"))
    assert data.features.values.tolist() == [["1.5", "a,b"], ["2", "c"]]  # type: ignore[union-attr]


def test_rows_without_target_are_left_out_and_counted(tmp_path: Path) -> None:
    data = read(write(tmp_path / "a.csv", "x,y\n1,a\n2,\n3,?\n4,b\n5,NA\n"))
    assert data.features["x"].tolist() == ["1", "4"]  # type: ignore[union-attr]
    assert "3 of 5 rows have no target" in data.findings[-1].message


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "a.csv: the file is empty"),
        (b"\n\n", "a.csv: the file is empty"),
        (b"x,y\n", "a.csv: the table has no rows"),
        (b"x,x,y\n1,2,a\n", "a.csv:1: column names must be different, but 'x'"),
        (b"x,y\n1,a\n1,2,b\n3\n", "a.csv:3: a row must have 2 fields like the header, but has 3 (1 more such rows)"),
        (b"x,y\n1,a\n\n2\n", "a.csv:4: a row must have 2 fields like the header, but has 1"),
        (b"x,y\n1,a\n2\0,b\n", "a.csv:3: the text has a NUL byte"),
        (b"x,y\nM\x81nchen,a\n", "a.csv:2: the file must be UTF-8, but has the byte 0x81"),
        ("x,y\n1,a\n".encode("utf-16")[:-1], "a.csv: the UTF-16 text is damaged"),
        (b"x,outcome\n1,a\n", "a.csv: there is no target column 'y'; columns: x, outcome"),
        (b"x,y\n1,\n2,\n", "a.csv: the target 'y' has no values"),
        (b"y\na\n", "a.csv: the file has only the target column 'y'"),
        (b'x,y\n1,a\n1,"a\n2,b\n3,c\n', "a.csv:3: a quoted field is not closed"),
        (b'"x,y\n1,a\n', "a.csv:1: a quoted field is not closed"),
    ],
)
def test_damaged_csv_is_one_line(tmp_path: Path, content: bytes, message: str) -> None:
    with pytest.raises(DataError) as caught:
        read(write(tmp_path / "a.csv", content))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("encoding", "said"), [("cp1252", "Windows-1252"), ("latin-1", "Windows-1252"), ("utf-16", "UTF-16")]
)
def test_another_encoding_is_read_and_said(tmp_path: Path, encoding: str, said: str) -> None:
    data = read(write(tmp_path / "a.csv", "town,y\nMünchen,a\nSão Paulo,b\n".encode(encoding)))
    assert isinstance(data.features, pd.DataFrame)
    assert data.features["town"].tolist() == ["München", "São Paulo"]
    assert f"read as {said}" in str(data.findings[0])


def test_the_nearest_column_is_proposed(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="did you mean 'income'"):
        read(write(tmp_path / "a.csv", "age,income\n1,2\n"), "incom")


@pytest.mark.parametrize("damage", [lambda b: b[:-12], lambda b: b[:20] + b"\xff" * 8 + b[28:]])
def test_damaged_gzip_is_one_line(tmp_path: Path, damage: object) -> None:
    content = damage(gzip.compress(b"x,y\n" + b"1,a\n2,b\n" * 500))  # type: ignore[operator]
    with pytest.raises(DataError, match="gzip file is damaged"):
        read(write(tmp_path / "a.csv.gz", content))


def test_a_file_that_unpacks_to_too_much_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(request_module, "MAX_BYTES", 1000)
    with pytest.raises(DataError, match="uncompressed"):
        read(write(tmp_path / "a.csv.gz", gzip.compress(b"x,y\n" + b"1,a\n" * 10_000)))


# ---- parquet -----------------------------------------------------------------------------------------------------


def test_parquet_columns_become_numbers_and_text(tmp_path: Path) -> None:
    table = pa.table(
        {
            "n": pa.array([1, None, 3]),
            "d": pa.array(["a", "b", "a"]).dictionary_encode(),
            "day": pa.array([0, 1, 2], pa.date32()),
            "list": pa.array([[1], [2], [3]]),
            "y": pa.array([True, False, True]),
        }
    )
    pq.write_table(table, tmp_path / "a.parquet")
    data = read(tmp_path / "a.parquet")
    assert isinstance(data.features, pd.DataFrame)
    assert list(data.features.columns) == ["n", "d", "day"]
    assert data.features["day"].tolist() == ["1970-01-01", "1970-01-02", "1970-01-03"]
    assert [finding.subject for finding in data.findings] == ["list"]


def test_a_parquet_bomb_is_refused_by_its_metadata(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pq.write_table(pa.table({"x": np.zeros(5000), "y": np.zeros(5000)}), tmp_path / "a.parquet")
    monkeypatch.setattr(request_module, "MAX_CELLS", 9999)
    monkeypatch.setattr(pq.ParquetFile, "read", lambda *_: pytest.fail("the rows were read"))
    with pytest.raises(DataError, match="<= 9,999 values, but has 10,000"):
        read(tmp_path / "a.parquet")


def test_repeated_parquet_columns_are_refused(tmp_path: Path) -> None:
    pq.write_table(pa.table([pa.array([1]), pa.array([2])], names=["x", "x"]), tmp_path / "a.parquet")
    with pytest.raises(DataError, match="'x' occurs more than once"):
        read(tmp_path / "a.parquet")


# ---- npz and idx -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shape", "dtype", "kind", "result"),
    [
        ((12, 5), "float32", "tabular", (12, 5)),
        ((12, 6, 7), "uint8", "image", (12, 1, 6, 7)),
        ((12, 6, 7, 3), "uint8", "image", (12, 3, 6, 7)),
        ((12, 3, 6, 7), "uint8", "image", (12, 3, 6, 7)),
        ((12, 6, 2), "float32", "sequence", (6, 2)),
    ],
)
def test_npz_kinds_follow_shape_and_type(
    tmp_path: Path, shape: tuple[int, ...], dtype: str, kind: str, result: tuple[int, ...]
) -> None:
    x = np.arange(np.prod(shape)).reshape(shape).astype(dtype)
    np.savez(tmp_path / "a.npz", x=x, y=np.arange(12) % 2)
    data = read(tmp_path / "a.npz", None)
    assert data.kind == kind
    assert (data.features[0] if kind == "sequence" else data.features).shape == result  # type: ignore[union-attr]
    if kind == "image":
        assert data.features.dtype == dtype  # type: ignore[union-attr]


def test_the_kind_that_is_asked_for_decides(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", images=np.zeros((12, 6, 7), "float32"), labels=np.arange(12) % 2)
    assert read(tmp_path / "a.npz", None, kind="image").kind == "image"
    with pytest.raises(DataError, match="tabular data cannot have the shape"):
        read(tmp_path / "a.npz", None, kind="tabular")


def test_npz_faults_are_one_line(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    np.savez(path, x=np.zeros((5, 2)), y=np.zeros(4))
    with pytest.raises(DataError, match="one label a row"):
        read(path, None)
    np.savez(path, a=np.zeros((5, 2)), b=np.zeros(5))
    with pytest.raises(DataError, match="the archive has the arrays a, b"):
        read(path, None)
    assert len(read(path, "b")) == 5
    np.savez(path, x=np.array([{}, {}], dtype=object), y=np.zeros(2))
    with pytest.raises(DataError, match="pickled objects"):
        read(path, None)
    with pytest.raises(DataError, match="not an npz archive"):
        read(write(path, b"not a zip"), None)


def test_idx_images_find_their_labels(tmp_path: Path) -> None:
    images = np.arange(3 * 4 * 5, dtype=np.uint8).reshape(3, 4, 5)
    write(tmp_path / "t10k-images-idx3-ubyte.gz", gzip.compress(idx(images)))
    write(tmp_path / "t10k-labels-idx1-ubyte.gz", gzip.compress(idx(np.array([7, 8, 9], dtype=np.uint8))))
    data = read(tmp_path / "t10k-images-idx3-ubyte.gz", None)
    assert isinstance(data.features, np.ndarray)
    assert np.array_equal(data.features[:, 0], images)
    assert data.target is not None
    assert data.target.tolist() == [7, 8, 9]


def test_idx_faults_are_one_line(tmp_path: Path) -> None:
    images = tmp_path / "train-images-idx3-ubyte"
    write(images, idx(np.zeros((3, 4, 5), np.uint8)))
    with pytest.raises(DataError, match="no labels file train-labels-idx1-ubyte"):
        read(images, None)
    write(tmp_path / "train-labels-idx1-ubyte", idx(np.zeros(2, np.uint8)))
    with pytest.raises(DataError, match="3 images and 2 labels"):
        read(images, None)
    write(images, idx(np.zeros((3, 4, 5), np.uint8))[:-1])
    with pytest.raises(DataError, match="which is 76 bytes, but the file has 75"):
        read(images, None)
    with pytest.raises(DataError, match="does not start like an idx file"):
        read(write(images, b"<html>"), None)


# ---- ts ----------------------------------------------------------------------------------------------------------

TS = "#comment\n@problemName p\n@timeStamps false\n@classLabel true a b\n@data\n"


def test_ts_series_of_unequal_length(tmp_path: Path) -> None:
    data = read(write(tmp_path / "a.ts", TS + "1,2,3:4,5,6:a\n7,?:9,10:b\n"), None)
    assert data.kind == "sequence"
    first, second = data.features
    assert first.tolist() == [[1, 4], [2, 5], [3, 6]]
    assert second.shape == (2, 2)
    assert np.isnan(second[1, 0])
    assert data.target is not None
    assert data.target.tolist() == ["a", "b"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1,2\n", "no @data line"),
        (TS, "no cases after @data"),
        (TS + "1,2:3:a\n", "a.ts:6: the dimensions of a case must be equally long, but have 2, 1 steps"),
        (TS + "1,2:a\n1:2:b\n", "a.ts:7: every case must have 1 dimensions, but this one has 2"),
        (TS + "1,x:a\n", "a.ts:6: a value is no number"),
        (TS + "1,2:\n", "a.ts:6: a case must end with :label"),
        (TS.replace("@timeStamps false", "@timeStamps true") + "1:a\n", "time stamps are not read"),
        (TS.replace("@classLabel true a b", "@classLabel false") + "1,2\n", "cases have no label"),
    ],
)
def test_ts_faults_are_one_line(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(DataError) as caught:
        read(write(tmp_path / "a.ts", text), None)
    assert message in str(caught.value)


# ---- bundled, and sources as such ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "kind", "shape"),
    [
        ("digits", "image", (1797, 1, 8, 8)),
        ("iris", "tabular", (150, 4)),
        ("wine", "tabular", (178, 13)),
        ("breast_cancer", "tabular", (569, 30)),
        ("diabetes", "tabular", (442, 10)),
    ],
)
def test_bundled_data_sets(name: str, kind: str, shape: tuple[int, ...]) -> None:
    data = read_source(f"sklearn:{name}", Path())
    assert (data.kind, data.features.shape) == (kind, shape)  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("sklearn:boston", "no bundled data set sklearn:boston; use one of breast_cancer"),
        ("adlut.csv", "no such file; did you mean adult.csv"),
        ("nowhere/a.csv", "no such file; check the path"),
        ("folder.csv", "must be a regular file"),
        ("model.pkl", "files of type .pkl are not read"),
        ("notes.txt", "the type '.txt' is not read; use .csv"),
    ],
)
def test_sources_that_cannot_be_read(tmp_path: Path, source: str, message: str) -> None:
    write(tmp_path / "adult.csv", "x,y\n1,2\n")
    write(tmp_path / "notes.txt", "x")
    write(tmp_path / "model.pkl", pickle.dumps({}))
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(DataError, match=message):
        read_source(source, tmp_path)


# ---- prediction --------------------------------------------------------------------------------------------------


def test_rows_to_predict_need_no_target_and_keep_their_order(tmp_path: Path) -> None:
    write(tmp_path / "with.csv", "y,x\n,3\nb,1\n")
    write(tmp_path / "without.csv", "x\n3\n1\n")
    for name in ("with.csv", "without.csv"):
        features = read_features(name, "tabular", "y", tmp_path)
        assert isinstance(features, pd.DataFrame)
        assert features["x"].tolist() == ["3", "1"]


def test_arrays_and_series_to_predict_need_no_labels(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x=np.zeros((2, 4, 5), "float32"))
    assert read_features("a.npz", "image", None, tmp_path).shape == (2, 1, 4, 5)  # type: ignore[union-attr]
    write(tmp_path / "train-images-idx3-ubyte", idx(np.zeros((3, 4, 5), np.uint8)))
    assert len(read_features("train-images-idx3-ubyte", "image", None, tmp_path)) == 3
    write(tmp_path / "a.ts", TS + "1,2,3:a\n")
    assert read_features("a.ts", "sequence", None, tmp_path)[0].shape == (3, 1)  # type: ignore[index]


def test_a_file_of_another_kind_than_the_model_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "a.csv", "x\n1\n")
    with pytest.raises(DataError, match=r"holds tabular data, but data\.kind is image"):
        read_features("a.csv", "image", None, tmp_path)
