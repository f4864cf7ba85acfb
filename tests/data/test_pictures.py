"""Image files of any kind become the array that a person sees; folders, tables of images and JSON lines are read."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from pipeline.data.config import DataConfig
from pipeline.data.dataset import Dataset
from pipeline.data.prepare import prepare
from pipeline.data.readers.pictures import LARGEST_MADE, Decoded, Picture, decode
from pipeline.data.source import read_features, read_source
from pipeline.errors import DataError

HERE = Path("pictures")
RED, BLUE = (255, 0, 0), (0, 0, 255)


def saved(image: Image.Image, kind: str = "PNG", **more: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **more)
    return buffer.getvalue()


def plain(colour: tuple[int, ...] | int, mode: str = "RGB", size: tuple[int, int] = (4, 4)) -> Image.Image:
    return Image.new(mode, size, colour)


def decoded(*contents: bytes, **more: Any) -> Decoded:
    return decode([Picture(f"{i}.png", content) for i, content in enumerate(contents)], HERE, **more)


def test_grey_alone_has_one_channel_and_beside_colour_three() -> None:
    grey, red = saved(plain(7, "L")), saved(plain(RED))
    assert decoded(grey, grey).images.shape == (2, 1, 4, 4)
    both = decoded(grey, red)
    assert both.images[:, :, 0, 0].tolist() == [[7, 7, 7], [255, 0, 0]]
    assert "1 grey images get three channels" in str(both.findings[0])


def test_what_is_transparent_becomes_white() -> None:
    assert decoded(saved(plain((255, 0, 0, 0), "RGBA"))).images[0, :, 0, 0].tolist() == [255, 255, 255]
    palette = plain(RED).convert("P")
    assert decoded(saved(palette, transparency=palette.getpixel((0, 0)))).images[0, :, 0, 0].tolist() == [255, 255, 255]


def test_sixteen_bits_become_eight() -> None:
    wide = Image.fromarray(np.full((4, 4), 40_000, dtype=np.uint16))
    assert decoded(saved(wide)).images[0, 0, 0, 0] == 40_000 // 256


def test_the_orientation_of_a_camera_is_applied() -> None:
    """Orientation 6: the camera was held upright, and the stored rows are columns from the right."""
    stored = Image.new("RGB", (8, 4), BLUE)
    stored.paste(RED, (0, 0, 4, 4))
    exif = Image.Exif()
    exif[0x0112] = 6
    seen = decoded(saved(stored, exif=exif)).images[0]
    assert seen.shape == (3, 8, 4)
    assert (seen[:, 0, 0].tolist(), seen[:, -1, 0].tolist()) == (list(RED), list(BLUE))


def test_unequal_sizes_are_padded_to_the_median_and_large_ones_reduced() -> None:
    both = decoded(saved(plain(RED, size=(8, 8))), saved(plain(RED, size=(8, 8))), saved(plain(RED, size=(8, 2))))
    assert both.images.shape == (3, 3, 8, 8)
    assert both.images[2, 0, :, 4].tolist() == [0, 0, 0, 255, 255, 0, 0, 0]
    assert decoded(saved(plain(RED, size=(600, 300)))).images.shape == (1, 3, LARGEST_MADE // 2, LARGEST_MADE)


def test_a_settled_shape_is_kept() -> None:
    assert decoded(saved(plain(RED, size=(9, 9))), shape=(1, 4, 6)).images.shape == (1, 1, 4, 6)


def test_what_is_no_image_is_left_out_or_refused() -> None:
    good, bad = saved(plain(RED)), saved(plain(RED))[:40]
    result = decoded(bad, good, b"")
    assert result.kept == [1]
    assert "2 of 3 files are no readable images" in str(result.findings[0])
    with pytest.raises(DataError, match=r"no readable image"):
        decoded(bad, good, strict=True)
    with pytest.raises(DataError, match="2 of 2 files"):
        decoded(b"", b"x")


def folder(root: Path, n: int = 12) -> None:
    for label, colour in (("red", RED), ("blue", BLUE)):
        (root / label).mkdir(parents=True)
        for i in range(n):
            (root / label / f"{i:02d}.png").write_bytes(saved(plain(colour)))


def test_folders_are_labels_and_a_moved_file_is_other_data(tmp_path: Path) -> None:
    folder(tmp_path / "train")
    data = read_source("train", tmp_path)
    assert data.target is not None
    assert [data.target[0], data.target[-1]] == ["blue", "red"]
    config = DataConfig(source="train")
    first = prepare(config, tmp_path, tmp_path / "store")
    assert prepare(config, tmp_path, tmp_path / "store").directory == first.directory
    (tmp_path / "train" / "red" / "00.png").rename(tmp_path / "train" / "blue" / "99.png")
    assert prepare(config, tmp_path, tmp_path / "store").directory != first.directory


def test_a_test_folder_and_images_to_predict_get_the_training_shape(tmp_path: Path) -> None:
    folder(tmp_path / "train")
    for label in ("red", "blue"):
        (tmp_path / "test" / label).mkdir(parents=True)
        (tmp_path / "test" / label / "a.png").write_bytes(saved(plain(9, "L", (20, 10))))
    prepared = prepare(DataConfig(source="train", test="test"), tmp_path, tmp_path / "store")
    assert len(prepared.sealed) == 2
    features = read_features("test", "image", None, tmp_path, shape=(3, 4, 4))
    assert isinstance(features, np.ndarray)
    assert features.shape == (2, 3, 4, 4)


@pytest.mark.parametrize("nested", [True, False])
def test_a_table_of_image_files_is_images(tmp_path: Path, nested: bool) -> None:
    contents = [saved(plain(colour)) for colour in (RED, BLUE)] * 3
    column = pa.array([{"bytes": c, "path": None} for c in contents]) if nested else pa.array(contents)
    table = pa.table({"image": column, "label": [0, 1] * 3, "name": ["red", "blue"] * 3})
    pq.write_table(table, tmp_path / "a.parquet")
    data = read_source("a.parquet", tmp_path, "label")
    assert (data.kind, data.target.tolist()) == ("image", [0, 1] * 3)  # type: ignore[union-attr]
    assert data.features[0, :, 0, 0].tolist() == list(RED)  # type: ignore[call-overload]


def read_lines(tmp_path: Path, *records: object, target: str = "y") -> Dataset:
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    return read_source("a.jsonl", tmp_path, target)


def test_json_lines_of_plain_values_are_a_table(tmp_path: Path) -> None:
    data = read_lines(tmp_path, {"a": 1, "b": "x", "y": True}, {"b": None, "a": 2.5, "y": False})
    assert isinstance(data.features, pd.DataFrame)
    assert data.features["a"].tolist() == ["1", "2.5"]
    assert data.features["b"].isna().tolist() == [False, True]
    assert data.target.tolist() == ["true", "false"]  # type: ignore[union-attr]


def test_json_lines_with_a_list_are_sequences(tmp_path: Path) -> None:
    data = read_lines(tmp_path, {"s": [1, None, 3], "y": "u"}, {"s": [4], "y": "v"})
    assert data.kind == "sequence"
    assert [steps.shape for steps in data.features] == [(3, 1), (1, 1)]  # type: ignore[union-attr]
    pairs = read_lines(tmp_path, {"s": [[1, 2], [3, 4], [5, 6]], "y": 0})
    assert pairs.features[0].shape == (3, 2)  # type: ignore[call-overload]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no records"),
        ('{"y": 1}\n[1]\n', r"a.jsonl:2: a line must be a JSON object"),
        ('{"y": 1}\n{"y": \n', r"a.jsonl:2: the line is not JSON"),
        ('{"s": [1], "y": 1}\n{"s": "x", "y": 1}\n', "record 2: 's' must be a list"),
        ('{"s": [1], "y": 1}\n{"s": 7, "y": 1}\n', "record 2: 's' must be a list"),
        ('{"s": [[1], [2, 3]], "y": 1}\n', "record 1: 's' must be a list"),
        ('{"s": [], "y": 1}\n', "record 1: 's' must be a list"),
        ('{"s": [1], "t": [1], "y": 1}\n', "one name may have lists"),
        ('{"s": [[1]], "y": 1}\n{"s": [[1, 2]], "y": 1}\n', "as many values"),
        ('{"a": 1}\n', "no target column 'y'"),
    ],
)
def test_json_lines_that_cannot_be_read(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "a.jsonl").write_text(text)
    with pytest.raises(DataError, match=message):
        read_source("a.jsonl", tmp_path, "y")
