"""Malformed files: each is prepared with findings, or refused in one line that names the file. Never a traceback."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from pipeline.data.config import DataConfig
from pipeline.data.prepare import prepare
from pipeline.errors import DataError

RUNS = {
    # file: part of a finding that must be there ("" for files that need none)
    "mixed_types.csv": "no finite numbers",
    "target_some_nan.csv": "150 of 600 rows have no target",
    "singleton_class.csv": "single row",
    "collinear_columns.csv": "",
    "constant_columns.csv": "is always '7'",
    "infinities.csv": "no finite numbers",
    "utf8_bom.csv": "",
    "latin1_encoding.csv": "read as Windows-1252",
    "utf16_bom.csv": "read as UTF-16",
    "wrong_delimiter_semicolon.csv": "delimiter",
    "wrong_delimiter_pipe.csv": "delimiter",
    "decimal_comma.csv": "decimal commas",
    "leaked_target_copy.csv": "leak",
    "dates.csv": "",
    "huge_cardinality_ids.csv": "counts the rows",
    "extreme_scales.csv": "",
    "label_whitespace.csv": "blanks around",
    "bool_target.csv": "truth values",
    "not_gzip.csv.gz": "",
}
REFUSED = {
    "missing_target_column.csv": "no target column 'class'",
    "target_all_nan.csv": "has no values",
    "single_class_target.csv": "2 or more distinct values",
    "duplicated_columns.csv": "'age', 'fnlwgt', 'hours-per-week' occurs more than once",
    "only_constant_features.csv": "no column is left",
    "only_target.csv": "only the target column",
    "empty.csv": "is empty",
    "header_only.csv": "no rows",
    "one_row.csv": ">= 10 rows",
    "three_rows.csv": ">= 10 rows",
    "ragged_rows.csv": "15 fields like the header, but has 17 (4 more such rows)",
    "nul_bytes.csv": "NUL byte",
    "all_unique_string_target.csv": "600 classes in 600 rows",
    "empty_rows.parquet": "no rows",
    "truncated.parquet": "not readable parquet",
    "not_really.parquet": "not readable parquet",
    "truncated.csv.gz": "gzip file is damaged",
    "corrupted.csv.gz": "gzip file is damaged",
}


@pytest.mark.parametrize("name", RUNS)
def test_it_is_prepared_with_findings(real_data: Path, tmp_path: Path, name: str) -> None:
    prepared = prepare(DataConfig(source=name, target="class"), real_data / "malformed", tmp_path)
    development = prepared.development()
    for part in (development.train, development.validation):
        assert torch.isfinite(part.inputs.x).all()
    assert RUNS[name] in "; ".join(map(str, prepared.findings))


@pytest.mark.parametrize("name", REFUSED)
def test_it_is_refused_in_one_line(real_data: Path, tmp_path: Path, name: str) -> None:
    with pytest.raises(DataError) as caught:
        prepare(DataConfig(source=name, target="class"), real_data / "malformed", tmp_path / "store")
    message = str(caught.value)
    assert name in message
    assert REFUSED[name] in message
    assert "\n" not in message
    assert not (tmp_path / "store").exists() or list((tmp_path / "store").iterdir()) == []


def test_names_in_any_script(real_data: Path, tmp_path: Path) -> None:
    config = DataConfig(source="unicode_headers.csv", target="целевая_переменная")
    assert prepare(config, real_data / "malformed", tmp_path).spec.task == "binary"


def test_an_id_with_200_000_levels_is_left_out(real_data: Path, tmp_path: Path) -> None:
    config = DataConfig(source="huge_cardinality_200k.parquet", target="y")
    prepared = prepare(config, real_data / "malformed", tmp_path)
    assert prepared.schema == {"x": "numeric"}
    assert "identifies rows" in "; ".join(map(str, prepared.findings))


def test_text_is_a_category(real_data: Path, tmp_path: Path) -> None:
    prepared = prepare(DataConfig(source="text_bad.csv", target="label"), real_data / "malformed", tmp_path)
    assert prepared.schema == {"text": "categorical"}
    assert prepared.spec.n_numeric == 0
    assert prepared.development().train.inputs.x.shape == (prepared.spec.n_train, 0)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("idx_short-images-idx3-ubyte.gz", "the header says shape"),
        ("npz_length_mismatch.npz", "one label a row"),
    ],
)
def test_arrays_of_the_wrong_length(real_data: Path, tmp_path: Path, source: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        prepare(DataConfig(source=source), real_data / "malformed", tmp_path)


def test_a_test_file_without_the_columns_names_them(real_data: Path, tmp_path: Path) -> None:
    config = DataConfig(source="mismatch_train.csv", target="class", test="mismatch_test.csv")
    with pytest.raises(DataError, match="lacks the columns 'age', 'fnlwgt'"):
        prepare(config, real_data / "malformed", tmp_path)


def test_unseen_categories_are_no_fault(real_data: Path, tmp_path: Path) -> None:
    config = DataConfig(source="mismatch_train.csv", target="class", test="unseen_category_test.csv")
    assert len(prepare(config, real_data / "malformed", tmp_path).sealed) == 150


IMAGES = {
    # folder: shape of an image, and parts of findings that must be there
    "images_unequal_sizes": ((3, 32, 32), ["their proportions kept"]),
    "images_mixed_modes": ((3, 32, 32), ["grey images get three channels"]),
    "images_broken": ((3, 32, 32), ["no readable images and are left out", "empty_class: the class folder has no"]),
}


@pytest.mark.parametrize("name", IMAGES)
def test_images_of_all_sorts_are_brought_together(real_data: Path, tmp_path: Path, name: str) -> None:
    prepared = prepare(DataConfig(source=name), real_data / "malformed", tmp_path)
    shape, expected = IMAGES[name]
    assert prepared.development().train.inputs.x.shape[1:] == shape
    said = "; ".join(map(str, prepared.findings))
    assert [part for part in expected if part not in said] == []


def test_six_images_of_one_class_are_refused(real_data: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=">= 10 rows"):
        prepare(DataConfig(source="images_single_class"), real_data / "malformed", tmp_path)


def test_sequences_with_bad_lines_are_refused_with_the_line(real_data: Path, tmp_path: Path) -> None:
    config = DataConfig(source="sequences_bad.jsonl", target="label")
    with pytest.raises(DataError, match=r"sequences_bad.jsonl:\d+: the line is not JSON"):
        prepare(config, real_data / "malformed", tmp_path)
