"""51 to 62: images and sequences, in the formats that are read: folders of images, idx, npz, ts, jsonl."""

from __future__ import annotations

import io
import pickle
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from tests.bad_input.cases import Case, User, elsewhere, source, table

IMAGES = np.random.default_rng(0).integers(0, 255, (60, 6, 6), dtype=np.uint8)
LABELS = np.arange(60, dtype=np.uint8) % 2
STEPS = np.random.default_rng(0).normal(size=(60, 5, 2)).astype(np.float32)
SERIES = "@problemName bad\n@timestamps false\n@classLabel true a b\n@data\n"
CASE = "1,2,3:4,5,6:a\n1,2,4:4,5,9:b\n"


def idx(values: np.ndarray[Any, np.dtype[np.uint8]], claim: tuple[int, ...] | None = None) -> bytes:
    """An idx file, which may claim another shape than it has."""
    shape = claim or values.shape
    return struct.pack(f">HBB{len(shape)}I", 0, 8, len(shape), *shape) + values.tobytes()


def on_idx(images: bytes, labels: bytes | None = None) -> dict[str, Any]:
    return source("t-images-idx3-ubyte", images) | {"t-labels-idx1-ubyte": idx(LABELS) if labels is None else labels}


def on_npz(**arrays: Any) -> dict[str, Any]:
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return source("a.npz", buffer.getvalue())


def claimed(shape: tuple[int, ...]) -> Callable[[Path], None]:
    """An npz archive whose x says that it is larger than it is."""

    def write(path: Path) -> None:
        header = f"{{'descr': '|u1', 'fortran_order': False, 'shape': {shape}, }}".encode().ljust(117) + b"\n"
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("x.npy", b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + b"\0" * 100)
            buffer = io.BytesIO()
            np.save(buffer, LABELS)
            archive.writestr("y.npy", buffer.getvalue())

    return write


def zeros(path: Path) -> None:
    """300 megabytes of zeros in 300 kilobytes."""
    with (
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open("x.npy", "w", force_zip64=True) as file,
    ):
        np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": (60, 5_000_000)})
        for _ in range(60):
            file.write(b"\0" * 5_000_000)


def on_ts(text: str) -> dict[str, Any]:
    return source("s.ts", text)


def picture(mode: str = "RGB", size: tuple[int, int] = (8, 8), kind: str = "PNG", **more: Any) -> bytes:
    """An image file of one mode, with noise in it."""
    noise = np.random.default_rng(0).integers(0, 255, (size[1], size[0], 3), dtype=np.uint8)
    buffer = io.BytesIO()
    image = Image.fromarray(noise)
    image = image.convert("I").convert(mode) if mode == "I;16" else image.convert(mode)
    image.save(buffer, kind, **more)
    return buffer.getvalue()


def large_png(side: int) -> bytes:
    """A PNG whose header says that it has so many pixels a side."""
    header = struct.pack(">II", side, side)
    body = b"IHDR" + header + PNG[24:29]
    return PNG[:12] + body + struct.pack(">I", zlib.crc32(body)) + PNG[33:]


def rotated() -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6
    return picture(size=(8, 4), kind="JPEG", exif=exif)


PNG = picture()
MODES: dict[str, Any] = {
    "a/m1.png": picture("1"), "a/m2.png": picture("P"), "a/m3.png": picture("RGBA"), "a/m4.png": picture("LA"),
    "a/m5.jpg": picture("CMYK", kind="JPEG"), "a/m6.png": picture("I;16"),
    "a/m7.gif": picture("P", kind="GIF", save_all=True, append_images=[Image.new("P", (8, 8))]), "a/m8.jpg": rotated(),
}  # fmt: skip
ON_PICTURES = "name: bad\ndata: {source: p}\n"


def pictures(content: bytes = PNG, extra: dict[str, Any] | None = None) -> dict[str, Any]:
    """An experiment on a folder of two class folders with 30 images each, and more files in it."""
    files = {f"{label}/{i:02d}.png": content for label in "ab" for i in range(30)}
    return {"bad.yaml": ON_PICTURES, **{f"p/{name}": bytes_ for name, bytes_ in (files | (extra or {})).items()}}


CASES = (
    Case(51, "a PNG of 30,000 by 30,000", "900000000 pixels", pictures(extra={"a/9.png": large_png(30_000)}), "warned"),
    Case(52, "a PNG of 12,000 by 12,000", "12000 x 12000 pixels", pictures(extra={"a/9.png": large_png(12_000)}), "warned"),
    Case(53, "an image file cut off", "a/9.png (", pictures(extra={"a/9.png": PNG[: len(PNG) // 2]}), "warned"),
    Case(54, "HTML named .png", "a/9.png (no image)", pictures(extra={"a/9.png": b"<html></html>"}), "warned"),
    Case(54, "nothing but HTML", "60 of 60 files are no readable images", pictures(b"<html></html>")),
    Case(55, "16-bit, CMYK, animated, transparent and rotated images", "image (3, 8, 8)", pictures(extra=MODES), "accepted"),
    Case(56, "images of different sizes", "1 images become 8 x 8 pixels", pictures(extra={"a/9.png": picture(size=(30, 2))}), "accepted"),
    Case(57, "an image file of 0 bytes", "a/9.png (no image)", pictures(extra={"a/9.png": b""}), "warned"),
    Case(58, "a link out of the folder", "a link leads out of the folder", {**pictures(), "p/a/9.png": lambda p: p.symlink_to("/etc/passwd")}),
    Case(59, "a class folder without images", "there is no such class", {**pictures(), "p/c/.keep": b""}, "warned"),
    Case(59, "folders in class folders", "rows: 49 train", pictures(extra={"a/deep/er/9.png": PNG}), "accepted"),
    Case(59, "class folders that differ in case only", "look like one", pictures(extra={f"A/{i}.png": PNG for i in range(20)}), "warned"),
    Case(59, "images beside the class folders", "1 images lie outside of class folders", pictures(extra={"9.png": PNG}), "warned"),
    Case(59, "images in no class folders", "the images lie in no class folders", {"bad.yaml": ON_PICTURES, "p/1.png": PNG}),
    Case(59, "one class folder", "must have 2 or more distinct values", {"bad.yaml": ON_PICTURES, **{f"p/a/{i}.png": PNG for i in range(20)}}),
    Case(51, "a folder for a source", "must be a regular file", {**source("pictures", Path.mkdir)}),
    Case(51, "an idx header of terabytes", "the header says shape (60000, 60000, 6000)", on_idx(idx(IMAGES, (60000, 60000, 6000)))),
    Case(51, "an npz header of terabytes", "a.npz: ", source("a.npz", claimed((60, 100_000, 1_000_000)))),
    Case(51, "an npz header of less than it says", "a.npz: ", source("a.npz", claimed((60, 20)))),
    Case(51, "an npz header below zero", "a.npz: ", source("a.npz", claimed((60, -20)))),
    Case(52, "300 megabytes of zeros in an npz", "a.npz: ", source("a.npz", zeros)),
    Case(53, "an idx file cut off", "but the file has", on_idx(idx(IMAGES)[:-100])),
    Case(53, "an idx file with bytes behind it", "but the file has", on_idx(idx(IMAGES) + b"\0")),
    Case(53, "an npz archive cut off", "not an npz archive", source("a.npz", b"PK\x03\x04" + b"\0" * 50)),
    Case(53, "no labels beside the images", "no labels file", source("t-images-idx3-ubyte", idx(IMAGES))),
    Case(54, "text named idx", "does not start like an idx file", on_idx(b"<svg/>")),
    Case(54, "text named npz", "not an npz archive", source("a.npz", b"<html></html>")),
    Case(54, "a PNG", "the type '.png' is not read", source("a.png", b"\x89PNG")),
    Case(56, "fewer labels than images", "one label an image, but got 60 images and 59 labels", on_idx(idx(IMAGES), idx(LABELS[:-1]))),
    Case(56, "fewer labels than arrays", "one label a row", on_npz(x=STEPS, y=LABELS[:-1])),
    Case(56, "labels in two columns", "one label a row", on_npz(x=STEPS, y=STEPS[:, :2, 0])),
    Case(57, "an idx file of 0 bytes", "does not start like an idx file", on_idx(b"")),
    Case(57, "an npz archive of 0 bytes", "not an npz archive", source("a.npz", b"")),
    Case(57, "images without a pixel", "a.npz: ", on_npz(x=np.zeros((60, 0, 6), np.uint8), y=LABELS)),
    Case(58, "a link to a file", "mlp", {**source("a.csv", lambda p: p.symlink_to("train.csv"), target="y")}, "accepted"),
    Case(58, "a link to itself", "no such file", {**source("a.csv", lambda p: p.symlink_to(p), target="y")}),
    Case(60, "a sequence without steps", "s.ts:5: ", on_ts(SERIES + ":a\n")),
    Case(60, "no sequences", "there are no cases", on_ts(SERIES)),
    Case(60, "dimensions of different lengths", "s.ts:6: the dimensions of a case must be equally long", on_ts(SERIES + "1,2:3,4:a\n1,2:3:b\n")),
    Case(60, "another number of dimensions", "s.ts:6: every case must have 2 dimensions", on_ts(SERIES + "1,2:3,4:a\n1,2:b\n")),
    Case(60, "a word among the values", "s.ts:5: a value is no number", on_ts(SERIES + "1,x:3,4:a\n")),
    Case(60, "time stamps", "series with time stamps are not read", on_ts(SERIES.replace("timestamps false", "timestamps true") + CASE)),
    Case(60, "a case without a label", "s.ts:5: a case must end with :label", on_ts(SERIES + "1,2:3,4:\n")),
    Case(60, "values missing and infinite", "mlp", on_ts(SERIES + "".join(f"1,?,{i % 5}:4,1e400,{i % 3}:{'ab'[i % 2]}\n" for i in range(60))), "accepted"),
    Case(60, "arrays that are missing altogether", "a.npz: ", on_npz(x=np.full((60, 5, 2), np.nan, np.float32), y=LABELS)),
    Case(60, "a header that never ends", "there is no @data line", on_ts("@a b\n" * 1000)),
    Case(61, "arrays of objects", "it holds pickled objects", on_npz(x=np.array([{}] * 60, dtype=object), y=LABELS)),
    Case(61, "arrays of texts", "arrays must hold numbers", on_npz(x=np.array([["a"]] * 60), y=LABELS)),
    Case(61, "a .npy file", "files of type .npy are not read", source("a.npy", b"\x93NUMPY")),
    Case(62, "a pickle", "files of type .pkl are not read", source("a.pkl", pickle.dumps({}))),
    Case(62, "a compressed pickle", "are not read", source("a.pkl.gz", pickle.dumps({}))),
    Case(62, "a pickle named csv", "a.csv:1: ", source("a.csv", pickle.dumps({"x": [1]}), target="y")),
    Case(62, "a pickle named parquet", "not readable parquet", source("a.parquet", pickle.dumps({}), target="y")),
    Case(62, "a pickle named npz", "not an npz archive", source("a.npz", pickle.dumps({}))),
    elsewhere(53, "real files with such faults", "tests/data/test_malformed.py::test_arrays_of_the_wrong_length"),
)  # fmt: skip


@table(CASES)
def test_arrays(user: User, case: Case) -> None:
    user.meets(case)
