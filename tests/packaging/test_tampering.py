"""Whatever is wrong with a package, it is refused in one line, and nothing in it is ever run."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from pipeline.errors import PackageError
from pipeline.packaging import load_package, package_digest
from pipeline.packaging.contents import MAX_BYTES
from tests.packaging.cases import Case, make_case

FILES = sorted(MAX_BYTES)


@pytest.fixture
def package(tabular: Case, tmp_path: Path) -> Path:
    """A package whose files are its own, so that damage stays in it."""
    written = tabular.write(tmp_path / "package")
    for file in written.iterdir():
        content = file.read_bytes()
        file.unlink()
        file.write_bytes(content)
    load_package(written)
    return written


def refused(package: Path, reason: str, digest: str | None = None) -> None:
    with pytest.raises(PackageError, match=reason) as error:
        load_package(package, digest)
    assert "\n" not in str(error.value)


def forge(package: Path) -> None:
    """Make the manifest agree with the files, as somebody would who changes a package on purpose."""
    names = [file.name for file in package.iterdir() if file.name != "manifest.json"]
    contents = {name: (package / name).read_bytes() for name in names}
    files = {name: {"sha256": hashlib.sha256(c).hexdigest(), "size": len(c)} for name, c in contents.items()}
    (package / "manifest.json").write_text(json.dumps({"format": 1, "files": files}))


def edit_json(path: Path, edit: Callable[[Any], None]) -> None:
    content = json.loads(path.read_text())
    edit(content)
    path.write_text(json.dumps(content))


@pytest.mark.parametrize("name", [name for name in FILES if name != "manifest.json"])
@pytest.mark.parametrize("position", [0.0, 0.5, 1.0])
def test_one_flipped_bit_anywhere_is_seen(package: Path, name: str, position: float) -> None:
    content = bytearray((package / name).read_bytes())
    content[int(position * (len(content) - 1))] ^= 0x10
    (package / name).write_bytes(content)
    refused(package, f"{name}: does not match its hash")


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_is_named(package: Path, name: str) -> None:
    (package / name).unlink()
    refused(package, f"{name}: missing")


@pytest.mark.parametrize("name", ["code.py", "model.pkl", "__init__.py", ".hidden", "MLmodel"])
def test_a_file_that_does_not_belong_there_is_refused(package: Path, name: str) -> None:
    (package / name).touch()
    refused(package, "nothing else")


@pytest.mark.parametrize("name", FILES)
def test_a_link_is_refused_even_to_the_right_content(package: Path, tmp_path: Path, name: str) -> None:
    (package / name).rename(tmp_path / "elsewhere")
    (package / name).symlink_to(tmp_path / "elsewhere")
    refused(package, "plain file")


def test_a_folder_and_a_pipe_are_refused(package: Path) -> None:
    (package / "probe.safetensors").unlink()
    os.mkfifo(package / "probe.safetensors")
    refused(package, "plain file")


def test_no_package_is_refused(tmp_path: Path) -> None:
    refused(tmp_path / "nothing", "cannot be read")


def test_a_file_beyond_its_bound_is_not_read(package: Path) -> None:
    with (package / "model.json").open("r+b") as file:
        file.truncate(MAX_BYTES["model.json"] + 1)
    refused(package, "at most")


def test_a_package_that_was_exchanged_as_a_whole_is_seen_by_its_digest(package: Path) -> None:
    stored = package_digest(package)
    load_package(package, stored)
    edit_json(package / "model.json", lambda model: model["provenance"].update(trial=8))
    forge(package)
    load_package(package)
    refused(package, "another package", stored)


def test_a_manifest_that_is_silent_on_a_file_is_refused(package: Path) -> None:
    edit_json(package / "manifest.json", lambda manifest: manifest["files"].pop("weights.safetensors"))
    refused(package, r"says nothing of weights\.safetensors")


@pytest.mark.parametrize(
    ("edit", "reason"),
    [
        (lambda m: m.update(format=2), "format"),
        (lambda m: m.update(loader_module="evil"), "loader_module"),
        (lambda m: m["config"].update(family="transformer"), "family"),
        (lambda m: m["config"]["model"].update(width=10**9), "width"),
        (lambda m: m["config"]["model"].update(extra=1), "extra"),
        (lambda m: m["config"]["model"].update(width=4096, n_layers=16), r"weights\.safetensors"),
        (lambda m: m["provenance"].update(search="x" * 10_000), "search"),
    ],
    ids=["format", "unknown field", "family", "huge width", "unknown choice", "huge module", "long text"],
)
def test_a_description_out_of_bounds_is_refused(package: Path, edit: Callable[[Any], None], reason: str) -> None:
    edit_json(package / "model.json", edit)
    forge(package)
    refused(package, reason)


@pytest.mark.parametrize(
    ("edit", "reason"),
    [
        (lambda d: d["spec"].update(kind="image", channels=1, height=8, width=8), "does not fit"),
        (lambda d: d["spec"].update(labels=[0, 1, 2, 3]), "head"),
        (lambda d: d["spec"].update(cardinalities=[10_000_000]), r"weights\.safetensors"),
        (lambda d: d["preprocessor"].update(kind="sound"), "kind"),
    ],
    ids=["other kind", "one label more", "ten million levels", "unknown preprocessing"],
)
def test_data_that_the_model_was_not_made_for_is_refused(
    package: Path, edit: Callable[[Any], None], reason: str
) -> None:
    edit_json(package / "data.json", edit)
    forge(package)
    refused(package, reason)


@pytest.mark.parametrize(
    ("edit", "reason"),
    [
        (lambda d: d["preprocessor"]["words"].append("more"), "9 words do not fit a model of 8"),
        (lambda d: d["spec"].update(n_tokens=9), "8 words do not fit a model of 9"),
        (lambda d: d["preprocessor"].update(n_steps=10**6), "n_steps"),
    ],
    ids=["one word more", "a larger table", "endless texts"],
)
def test_words_that_the_model_has_no_vectors_for_are_refused(
    tmp_path: Path, edit: Callable[[Any], None], reason: str
) -> None:
    package = make_case(tmp_path / "trial", "text", "mlp").write(tmp_path / "package")
    edit_json(package / "data.json", edit)
    forge(package)
    refused(package, reason)


@pytest.mark.parametrize("text", ["", "{", "null", "[" * 100_000, '{"format": 1e400}', "\udcff"])
def test_what_is_no_json_of_ours_is_refused(package: Path, text: str) -> None:
    (package / "model.json").write_bytes(text.encode("utf-8", "surrogateescape"))
    forge(package)
    refused(package, r"model\.json")


def test_a_huge_module_is_refused_without_its_memory(package: Path) -> None:
    """The largest MLP of all has 16 layers of 4,096: 1.1 GB. Refusing it must not allocate it."""
    edit_json(package / "model.json", lambda model: model["config"]["model"].update(width=4096, n_layers=16))
    forge(package)
    before = _peak_mib()
    refused(package, r"weights\.safetensors")
    assert _peak_mib() - before < 200


def _peak_mib() -> float:
    text = Path("/proc/self/status").read_text()
    return int(text.split("VmHWM:")[1].split()[0]) / 1024


def _first(tensors: dict[str, torch.Tensor]) -> str:
    return min(name for name, tensor in tensors.items() if tensor.is_floating_point())


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda t: t * float("nan"), "not finite"),
        (lambda t: t + float("inf"), "not finite"),
        (lambda t: t.double(), "float64"),
        (lambda t: t.half(), "float16"),
        (lambda t: t.reshape(*t.shape, 1).contiguous(), "must be"),
        (lambda t: t[..., :1].contiguous() if t.ndim else t, "must be"),
        (lambda t: t + 1.0, "does not reproduce"),
    ],
    ids=["nan", "inf", "double", "half", "axis more", "narrower", "other values"],
)
def test_weights_that_are_not_the_models_are_refused(
    package: Path, change: Callable[[torch.Tensor], torch.Tensor], reason: str
) -> None:
    tensors = load_file(package / "weights.safetensors")
    name = next(name for name in tensors if name.endswith("head.weight"))
    tensors[name] = change(tensors[name])
    save_file(tensors, package / "weights.safetensors")
    forge(package)
    refused(package, reason)


def test_a_tensor_more_or_less_is_refused(package: Path) -> None:
    tensors = load_file(package / "weights.safetensors")
    save_file(tensors | {"extra": torch.zeros(1)}, package / "weights.safetensors")
    forge(package)
    refused(package, "'extra' is unknown")
    name = _first(tensors)
    del tensors[name]
    save_file(tensors, package / "weights.safetensors")
    forge(package)
    refused(package, "is missing")


@pytest.mark.parametrize(
    "change",
    [
        lambda t: t | {"outputs": t["outputs"] + 0.01},
        lambda t: t | {"outputs": t["outputs"][:, :1].contiguous()},
        lambda t: {name: tensor[:0] for name, tensor in t.items()},
        lambda t: {name: tensor.repeat(20, *[1] * (tensor.ndim - 1)) for name, tensor in t.items()},
        lambda t: {"outputs": t["outputs"]},
        lambda t: {"outputs": t["outputs"], "x": t["x"]},
        lambda t: t | {"x": t["x"][:, :1].contiguous()},
        lambda t: t | {"categories": t["categories"] + 1000},
        lambda t: t | {"categories": -t["categories"] - 1},
        lambda t: t | {"more": t["x"].clone()},
    ],
    ids=["other outputs", "narrow outputs", "no rows", "160 rows", "no inputs", "no categories", "narrow inputs",
         "unknown codes", "negative codes", "more tensors"],
)  # fmt: skip
def test_stored_rows_that_do_not_fit_are_refused(
    package: Path, change: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]
) -> None:
    probe = package / "probe.safetensors"
    save_file(change(load_file(probe)), probe)
    forge(package)
    refused(package, r"probe\.safetensors")


class Marker:
    """Unpickling this creates a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[[str], object], tuple[str]]:
        return Path.touch, (self.path,)  # type: ignore[return-value]


@pytest.mark.parametrize("name", ["weights.safetensors", "probe.safetensors", "model.json", "data.json"])
def test_a_pickle_in_place_of_a_file_is_never_opened_as_one(package: Path, tmp_path: Path, name: str) -> None:
    marker = tmp_path / "it ran"
    payload = pickle.dumps(Marker(marker))
    pickle.loads(payload)
    assert marker.exists(), "the payload works where pickles are opened"
    marker.unlink()
    (package / name).write_bytes(payload)
    forge(package)
    refused(package, name)
    assert not marker.exists()
