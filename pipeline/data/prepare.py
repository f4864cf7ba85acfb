"""Prepared data sets on disk: made once from an experiment's ``data:`` block, found again by content."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeVar
from zipfile import BadZipFile

import sklearn
from pydantic import BaseModel, ConfigDict

from pipeline.data.assemble import PREPARATION_VERSION, assemble, unused_blocks
from pipeline.data.config import DataConfig
from pipeline.data.dataset import Dataset
from pipeline.data.development import TENSORS, load_development, save_development
from pipeline.data.findings import Finding
from pipeline.data.fingerprint import fingerprint
from pipeline.data.forecast.assemble import assemble_forecast
from pipeline.data.identity import KnownRows
from pipeline.data.preprocess import Preprocessor
from pipeline.data.profile import Profile
from pipeline.data.sealed import SealedTest, seal
from pipeline.data.slicing import Slicing
from pipeline.data.source import Located, image_shape, locate, read_located
from pipeline.data.spec import DataSpec
from pipeline.data.tensors import Development
from pipeline.errors import DataError
from pipeline.files import sha256_file, sync_directory

_RESULT: Final = "prepared.json"
_SEALED: Final = "sealed"
_KNOWN: Final = "known-rows.npz"
_PROFILE: Final = "profile.json"
_SLICING: Final = "slicing.json"
_REMEDY: Final = "remove the folder and run again: it is made anew from the source"
M = TypeVar("M", bound=BaseModel)


class _Stored(BaseModel):
    """``prepared.json``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    spec: DataSpec
    preprocessor: Preprocessor
    findings: tuple[Finding, ...]
    fingerprint: str
    split_hash: str
    n_rows: int
    n_test: int
    sealed_sha256: str
    tensors_sha256: str


@dataclass(frozen=True, slots=True)
class Prepared:
    """A prepared data set on disk.

    Args:
        fingerprint: over the raw content and every choice of the preparation; the file's name is not part of it.
        split_hash: over the row numbers of the three parts.
        n_rows: rows with a target, those of a separate test file included.
    """

    directory: Path
    spec: DataSpec
    preprocessor: Preprocessor
    sealed: SealedTest
    findings: tuple[Finding, ...]
    fingerprint: str
    split_hash: str
    n_rows: int

    @property
    def schema(self) -> dict[str, str]:
        """Feature name to type, for the features that are used."""
        return self.preprocessor.schema_of_features

    def development(self) -> Development:
        """Training and validation part, mapped into memory."""
        return load_development(self.directory)

    def known_rows(self) -> KnownRows:
        """The rows that models of this data are trained and chosen on."""
        return load_known_rows(self.directory)

    def slicing(self) -> Slicing:
        """How rows are divided to ask where a model errs."""
        return load_slicing(self.directory)

    def profile(self) -> Profile:
        """How the values of these rows are distributed."""
        return load_profile(self.directory)


def prepare(config: DataConfig, root: Path, store: Path) -> Prepared:
    """Read, check, split and transform the data, or find it done.

    Args:
        root: folder that relative sources start from.
        store: folder of prepared data sets, one folder each. It may be used by several processes at once.

    Raises:
        DataError: the data is missing, damaged, or cannot be learned from; nothing is left in `store` then.
    """
    source = locate(config.source, root)
    test = None if config.test is None else locate(config.test, root)
    files = [*source.files, *(test.files if test is not None else ())]
    before = _stamps(files)
    names = [
        str(file.relative_to(part.path))
        for part in (source, test)
        if part is not None and part.path.is_dir()
        for file in part.files
    ]
    # What only reading tells is read first, and once.
    read = {part.source: _data(config, part) for part in (source, test) if part is not None and part.volatile}
    content = {name: fingerprint(data) for name, data in read.items()}
    directory = store.absolute() / _key(config, files, names, content)
    if not (directory / _RESULT).exists():
        directory.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=".making-", dir=directory.parent))
        try:
            _make(config, source, test, read, temporary)
            if _stamps(files) != before:
                raise DataError("the data changed while it was read", "run again when it is complete", file=files[0])
            _publish(temporary, directory)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    return load_prepared(directory)


def load_prepared(directory: Path) -> Prepared:
    """A prepared data set by its folder.

    Raises:
        DataError: it is incomplete, or its tensors do not match their hash.
    """
    try:
        stored = _Stored.model_validate_json((directory / _RESULT).read_bytes())
        intact = sha256_file(directory / TENSORS) == stored.tensors_sha256
    except (OSError, ValueError) as error:
        raise DataError("the prepared data is incomplete or damaged", _REMEDY, file=directory) from error
    if not intact:
        raise DataError("the prepared tensors do not match their hash", _REMEDY, file=directory)
    return Prepared(
        directory=directory,
        spec=stored.spec,
        preprocessor=stored.preprocessor,
        sealed=SealedTest(directory / _SEALED, stored.sealed_sha256, stored.n_test),
        findings=stored.findings,
        fingerprint=stored.fingerprint,
        split_hash=stored.split_hash,
        n_rows=stored.n_rows,
    )


def load_known_rows(directory: Path) -> KnownRows:
    """The rows that models of a prepared data set are trained and chosen on, by its folder.

    Raises:
        DataError: they are missing or damaged.
    """
    try:
        return KnownRows.load(directory / _KNOWN)
    except (OSError, ValueError, KeyError, BadZipFile) as error:
        raise DataError("the prepared data does not say what its rows were", _REMEDY, file=directory) from error


def load_profile(directory: Path) -> Profile:
    """How the values of a prepared data set are distributed, by its folder.

    Raises:
        DataError: it is missing or damaged.
    """
    return _beside(Profile, directory / _PROFILE, "has no profile")


def load_slicing(directory: Path) -> Slicing:
    """How the rows of a prepared data set are divided, by its folder.

    Raises:
        DataError: it is missing or damaged.
    """
    return _beside(Slicing, directory / _SLICING, "does not say how its rows are divided")


def _beside(stored: type[M], path: Path, lacks: str) -> M:
    """A file beside the tensors."""
    try:
        return stored.model_validate_json(path.read_bytes())
    except (OSError, ValueError) as error:
        raise DataError(f"the prepared data {lacks}", _REMEDY, file=path.parent) from error


def find_prepared(store: Path, fingerprint: str) -> Prepared | None:
    """The prepared data set with this fingerprint; None where there is none.

    Raises:
        DataError: it is there, and damaged.
    """
    for path in sorted(store.glob(f"*/{_RESULT}")):
        if f'"{fingerprint}"' in path.read_text(encoding="utf-8"):
            return load_prepared(path.parent)
    return None


def _key(config: DataConfig, files: list[Path], names: list[str], content: dict[str, str]) -> str:
    """What decides the result: the content of files and of what was read, the config, this code's version and
    scikit-learn's data sets; in folders of images the names too, which are the labels."""
    parts = {
        "files": [_hash(path) for path in files],
        "names": names,
        "config": config.model_dump(mode="json", exclude=unused_blocks(config)),
        "version": PREPARATION_VERSION,
        "sklearn": sklearn.__version__,
        **({"content": content} if content else {}),
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:32]


def _hash(path: Path) -> str:
    try:
        return sha256_file(path)
    except OSError as error:
        raise DataError(f"the file cannot be read ({error.strerror})", "check its permissions", file=path) from error


def _stamps(files: list[Path]) -> list[tuple[int, int]]:
    return [(status.st_size, status.st_mtime_ns) for status in map(os.stat, files)]


def _data(config: DataConfig, source: Located) -> Dataset:
    return read_located(source, config.target, None if config.kind == "auto" else config.kind)


def _make(
    config: DataConfig, source: Located, test: Located | None, read: Mapping[str, Dataset], directory: Path
) -> None:
    """Fill an empty directory, from what was `read` already where it was; errors about values get the source's name."""
    data = read[source.source] if source.volatile else _data(config, source)
    separate_test = None
    if test is not None:
        separate_test = (
            read[test.source] if test.volatile else read_located(test, config.target, data.kind, image_shape(data))
        )
    try:
        result = (assemble_forecast if config.kind == "forecast" else assemble)(config, data, separate_test)
    except DataError as error:
        raise DataError(error.what, error.remedy, file=source.path if source.files else source.source) from error
    save_development(directory, result.development)
    result.known.save(directory / _KNOWN)
    (directory / _PROFILE).write_text(result.profile.model_dump_json(), encoding="utf-8")
    (directory / _SLICING).write_text(result.slicing.model_dump_json(), encoding="utf-8")
    sealed = seal(result.test, directory / _SEALED)
    stored = _Stored(
        spec=result.development.spec,
        preprocessor=result.preprocessor,
        findings=result.findings,
        fingerprint=result.development.fingerprint,
        split_hash=result.split_hash,
        n_rows=result.n_rows,
        n_test=len(sealed),
        sealed_sha256=sealed.sha256,
        tensors_sha256=sha256_file(directory / TENSORS),
    )
    (directory / _RESULT).write_text(stored.model_dump_json(), encoding="utf-8")


def _publish(temporary: Path, directory: Path) -> None:
    """Give a complete directory its name. Whoever comes second uses what the first one made: it is the same."""
    for path in (*temporary.rglob("*"), temporary):
        if path.is_dir():
            sync_directory(path)
        else:
            with path.open("rb") as file:
                os.fsync(file.fileno())
    try:
        temporary.rename(directory)
    except OSError as error:
        if not (directory / _RESULT).exists():
            raise DataError(
                f"the prepared data cannot be put in its place ({error.strerror})", "remove the folder", file=directory
            ) from error
    sync_directory(directory.parent)
