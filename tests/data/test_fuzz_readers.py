"""Readers given anything: a data set or one line of error, never another exception."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from PIL import Image

from pipeline.data.readers.pictures import Picture, decode
from pipeline.data.source import read_source
from pipeline.errors import DataError

anything = settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def image(kind: str) -> bytes:
    buffer = io.BytesIO()
    Image.radial_gradient("L").resize((16, 16)).convert("RGB").save(buffer, kind)
    return buffer.getvalue()


IMAGES = {kind: image(kind) for kind in ("PNG", "JPEG", "GIF", "TIFF", "WEBP", "BMP", "PPM")}


def reads_or_refuses(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    try:
        said = "" if len(read_source(name, tmp_path, "y")) else "no rows"
    except DataError as error:
        said = str(error)
    assert "\n" not in said
    assert said != "no rows"


@given(st.binary(max_size=200))
@anything
@pytest.mark.parametrize("start", [b"", b"x,y\n1,a\n", b"\xff\xfe", b'"x";y\n'])
def test_delimited_text(tmp_path: Path, start: bytes, content: bytes) -> None:
    reads_or_refuses(tmp_path, "a.csv", start + content)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)


records = st.lists(st.dictionaries(st.sampled_from(["y", "a", "b"]), json_values, max_size=3), max_size=6)


@given(records, st.binary(max_size=9))
@example([{"y": 1}, {"y": []}], b"")
@example([{"y": [3.5e38]}], b"")
@example([{"y": [10**400]}], b"")
@anything
def test_json_lines(tmp_path: Path, records: list[object], end: bytes) -> None:
    lines = "".join(json.dumps(record) + "\n" for record in records)
    reads_or_refuses(tmp_path, "a.jsonl", lines.encode() + end)


@given(st.data())
@anything
@pytest.mark.parametrize("kind", IMAGES)
def test_images_with_bytes_changed_or_cut_off(kind: str, data: st.DataObject) -> None:
    """What still decodes has the shape that it claims; the good one beside it is always kept."""
    content = bytearray(IMAGES[kind])
    for at in data.draw(st.lists(st.integers(0, len(content) - 1), max_size=4)):
        content[at] = data.draw(st.integers(0, 255))
    damaged = bytes(content[: data.draw(st.integers(0, len(content)))])
    result = decode([Picture("good", IMAGES["PNG"]), Picture("bad", damaged)], Path("x"), shape=(3, 16, 16))
    assert result.kept[0] == 0
    assert result.images.shape[1:] == (3, 16, 16)
