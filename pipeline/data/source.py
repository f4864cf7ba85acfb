"""From a source's name to a `Dataset`: the table of formats. A new format is a reader and one entry here."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import numpy as np

from pipeline.data.dataset import Dataset, Features
from pipeline.data.findings import Finding
from pipeline.data.readers.arrays import is_idx, labels_beside, read_idx, read_npz
from pipeline.data.readers.bundled import read_sklearn
from pipeline.data.readers.csv_table import read_csv
from pipeline.data.readers.image_folder import image_files, is_image_folder, read_image_folder
from pipeline.data.readers.json_lines import read_jsonl
from pipeline.data.readers.openml import read_openml
from pipeline.data.readers.parquet_table import read_parquet
from pipeline.data.readers.python_function import read_function
from pipeline.data.readers.request import Request
from pipeline.data.readers.time_series import read_ts
from pipeline.data.spec import Kind
from pipeline.data.values import texts
from pipeline.errors import DataError

Reader = Callable[[Request], Dataset]

SCHEMES: Final[dict[str, Reader]] = {
    "sklearn": read_sklearn,
    "openml": read_openml,
    "python": read_function,
}
"""``scheme:name`` sources, which are no files."""
VOLATILE: Final = frozenset({"python"})
"""Schemes whose content only reading tells."""
EXTENSIONS: Final[dict[str, Reader]] = {
    ".csv": read_csv,
    ".csv.gz": read_csv,
    ".tsv": read_csv,
    ".tsv.gz": read_csv,
    ".parquet": read_parquet,
    ".jsonl": read_jsonl,
    ".jsonl.gz": read_jsonl,
    ".npz": read_npz,
    ".ts": read_ts,
    "-ubyte": read_idx,
    "-ubyte.gz": read_idx,
}
"""Files, by how their names end in lower case."""
_PICKLES: Final = (".pkl", ".pickle", ".joblib", ".pt", ".pth", ".dill", ".npy")
"""Refused: loading them can run code (pickle), or they hold one array where two are needed (npy)."""


@dataclass(frozen=True, slots=True)
class Located:
    """A source with its reader and the files it consists of; no files where it is bundled, all images of a folder."""

    source: str
    path: Path
    reader: Reader
    files: tuple[Path, ...]
    volatile: bool = False
    """Its name and files do not say what it holds: it is read to know whether it was prepared before."""


def locate(source: str, root: Path) -> Located:
    """Find a source, relative to `root`, without reading it.

    Raises:
        DataError: no such file, not a regular file, or a format that is not read.
    """
    scheme, separator, name = source.partition(":")
    if separator and scheme in SCHEMES:
        path = root / name if scheme in VOLATILE else Path(name)
        return Located(source, path, SCHEMES[scheme], (), scheme in VOLATILE)
    try:
        path = root / Path(source).expanduser()
    except RuntimeError as error:
        raise DataError(f"the home folder in it is not known ({error})", "write the whole path", file=source) from error
    ending = path.name.lower()
    if ending.removesuffix(".gz").endswith(_PICKLES):
        raise DataError(f"files of type {path.suffix} are not read", "write csv, parquet or npz", file=source)
    reader = next((EXTENSIONS[end] for end in sorted(EXTENSIONS, key=len, reverse=True) if ending.endswith(end)), None)
    if not _exists(path):
        raise _missing(path, source)
    if is_image_folder(path):
        return Located(source, path, read_image_folder, tuple(image_files(path)))
    if not path.is_file():
        raise DataError(
            "a source must be a regular file, or a folder of class folders of images",
            f"name a file of type {_known()}",
            file=source,
        )
    if reader is None:
        raise DataError(f"the type {path.suffix or path.name!r} is not read", f"use {_known()}", file=source)
    beside = (labels_beside(path),) if is_idx(path) and labels_beside(path).is_file() else ()
    return Located(source, path, reader, (path, *beside))


def read_source(source: str, root: Path, target: str | None = None, kind: Kind | None = None) -> Dataset:
    """Read labelled data.

    Args:
        root: folder that relative paths start from.
        target: the target column or array, where the format needs one named.
        kind: what the data is; None leaves it to the format.

    Raises:
        DataError: the source is missing, damaged, or breaks a rule of its format.
    """
    return read_located(locate(source, root), target, kind)


def read_located(
    located: Located, target: str | None, kind: Kind | None, shape: tuple[int, ...] | None = None
) -> Dataset:
    """Read labelled data from where `locate` found it. Rows without a target are left out, which is a finding.

    Args:
        shape: of images, where another part has settled it.

    Raises:
        DataError: as `read_source`.
    """
    dataset = _read(located, Request(located.path, target, _raw(kind), shape=shape))
    assert dataset.target is not None, "readers give labelled requests a target"
    name = target or "target"
    present = texts(dataset.target).notna().to_numpy()
    n_missing = int((~present).sum())
    if n_missing == len(dataset):
        raise DataError(f"the target {name!r} has no values", "choose another target", file=located.path)
    if n_missing == 0:
        return dataset
    finding = Finding(
        severity="warning",
        subject=name,
        message=f"{n_missing} of {len(dataset)} rows have no target and are left out",
        remedy="fill them in if they can be known",
        check="labels",
    )
    kept = dataset.take(np.flatnonzero(present))
    return replace(kept, findings=(*kept.findings, finding))


def _read(located: Located, request: Request) -> Dataset:
    """Rows as the format has them. Texts stand in a column of a table, so that whatever holds tables holds texts."""
    dataset = located.reader(request)
    return replace(dataset, kind="text") if request.kind == "text" else dataset


def image_shape(dataset: Dataset) -> tuple[int, ...] | None:
    """``(C, H, W)`` of images, to which other parts are brought; None for other kinds."""
    return dataset.features.shape[1:] if isinstance(dataset.features, np.ndarray) else None


def read_features(
    source: str,
    kind: Kind,
    target: str | None = None,
    root: Path = Path(),
    shape: tuple[int, ...] | None = None,
) -> Features:
    """Read rows to predict, in their order (a folder's images in that of their paths): a target in them is left out,
    and need not be there.

    Args:
        shape: ``(C, H, W)`` of the images that the model takes.

    Raises:
        DataError: as `read_source`, or the source holds another kind than the model's.
    """
    located = locate(source, root)
    dataset = _read(located, Request(located.path, target, _raw(kind), labelled=False, shape=shape))
    if dataset.kind != _raw(kind):
        raise DataError(f"the model predicts {kind} data, but the file holds {dataset.kind} data", "", file=source)
    return dataset.features


def _raw(kind: Kind | None) -> Kind | None:
    """The kind of what is read: series that are to be forecast are rows of a table."""
    return "tabular" if kind == "forecast" else kind


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:  # a name that is too long, a folder that may not be entered
        return False


def _missing(path: Path, source: str) -> DataError:
    try:
        names = [entry.name for entry in path.parent.iterdir()]
    except (OSError, ValueError):
        names = []
    near = difflib.get_close_matches(path.name[:255], names, n=1)
    return DataError("no such file", f"did you mean {near[0]}?" if near else "check the path", file=source)


def _known() -> str:
    return ", ".join([*EXTENSIONS, *(f"{scheme}:NAME" for scheme in SCHEMES)])
