"""Writing packages: once a search what its trials share, then a few milliseconds a trial."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from dataclasses import dataclass
from functools import cache, lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import Final

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from pipeline.data.prepare import Prepared, load_prepared
from pipeline.data.preprocess import Preprocessor
from pipeline.data.spec import DataSpec
from pipeline.data.tensors import Inputs
from pipeline.errors import PackageError
from pipeline.files import link_or_copy, write_atomic
from pipeline.models.base import Model
from pipeline.packaging.conformal import Conformal
from pipeline.packaging.contents import (
    DATA,
    MANIFEST,
    MAX_PROBE_ROWS,
    MODEL,
    PROBE,
    WEIGHTS,
    DataDescription,
    FileEntry,
    Manifest,
    ModelDescription,
    Provenance,
)
from pipeline.packaging.module import build
from pipeline.records import WEIGHTS as RECORDED_WEIGHTS
from pipeline.records import TrialRecord
from pipeline.training.config import TrialConfig
from pipeline.training.threads import one_thread

SHARED: Final = "package"
"""Folder in a search's directory for what all its packages link to."""
PROBE_ROWS: Final = 8

LIBRARIES: Final = ("numpy", "pandas", "pydantic", "safetensors", "scikit-learn", "torch")


@dataclass(frozen=True, slots=True)
class Packager:
    """Writes the packages of one search.

    Args:
        spec: of the data that all trials saw.
        data: ``data.json`` on disk; packages link to it.
        probe: prepared rows whose outputs each package keeps, 1 to 64 of them.
    """

    spec: DataSpec
    data: Path
    data_entry: FileEntry
    probe: Inputs

    def write(
        self,
        directory: Path,
        *,
        config: TrialConfig,
        weights: Path,
        provenance: Provenance,
        weights_sha256: str | None = None,
        temperature: float = 1.0,
        conformal: Conformal | None = None,
    ) -> Path:
        """Write the package of one trial, replacing what is at `directory`; it appears whole or not at all.

        Nothing is fsynced: a package that a power cut tore does not verify, and is written again from the trial's
        weights and record, which are.

        Args:
            weights: the trial's safetensors file. It is linked where the file system can: nobody may write to it again.
            weights_sha256: what the weights' hash was when they were saved, where it is known.

        Returns:
            `directory`.

        Raises:
            PackageError: the weights are damaged, do not fit the config, or give outputs that are not finite.
        """
        content = weights.read_bytes()
        entry = _entry(content)
        if weights_sha256 not in (None, entry.sha256):
            raise PackageError(f"{weights}: the weights are not those that training saved; their sha256 differs")
        model = ModelDescription(config=config, provenance=provenance, temperature=temperature, conformal=conformal)
        description = model.model_dump_json(indent=1).encode()
        probe = save(_tensors(self.probe) | {"outputs": self._outputs(config, content, weights)})
        manifest = Manifest(
            files={WEIGHTS: entry, MODEL: _entry(description), DATA: self.data_entry, PROBE: _entry(probe)}
        )
        directory.parent.mkdir(parents=True, exist_ok=True)
        staging = Path(tempfile.mkdtemp(prefix=f".{directory.name}-", dir=directory.parent))
        try:
            link_or_copy(weights, staging / WEIGHTS)
            link_or_copy(self.data, staging / DATA)
            (staging / MODEL).write_bytes(description)
            (staging / PROBE).write_bytes(probe)
            (staging / MANIFEST).write_bytes(manifest.model_dump_json(indent=1).encode())
            shutil.rmtree(directory, ignore_errors=True)
            staging.rename(directory)
        except BaseException:
            shutil.rmtree(staging, ignore_errors=True)
            raise
        return directory

    @one_thread()  # copying weights of a hundred KB takes a second one too
    @torch.inference_mode()
    def _outputs(self, config: TrialConfig, weights: bytes, path: Path) -> Tensor:
        module: Model = build(config, self.spec)
        try:
            module.load_state_dict(load(weights))
        except (SafetensorError, RuntimeError) as error:
            reason = " ".join(str(error).split())[:300]
            raise PackageError(f"{path}: the weights do not fit their config: {reason}") from error
        outputs: Tensor = module.eval()(self.probe).float()
        if not outputs.isfinite().all():
            raise PackageError(f"{path}: the model's outputs for its own validation rows are not finite")
        return outputs.contiguous()


def make_packager(shared: Path, spec: DataSpec, preprocessor: Preprocessor, probe: Inputs) -> Packager:
    """A packager for the trials of one search.

    Args:
        shared: folder on the packages' file system for what they share; made where it is missing.
        probe: prepared rows, 1 to 64.
    """
    assert 1 <= len(probe.x) <= MAX_PROBE_ROWS, "a probe has 1 to 64 rows"
    content = DataDescription(spec=spec, preprocessor=preprocessor).model_dump_json().encode()
    path = shared / DATA
    write_atomic(path, content)
    return Packager(spec, path, _entry(content), probe.to(torch.device("cpu")))


def write_trial_package(
    directory: Path,
    record: TrialRecord,
    trial: Path,
    prepared: Prepared,
    temperature: float = 1.0,
    conformal: Conformal | None = None,
) -> Path:
    """The package of a completed trial, written unless it is there already.

    Args:
        trial: the trial's folder, with its weights.
        prepared: the data that the search trained on; the probe's rows are the first of its validation part.

    Raises:
        PackageError: the weights are damaged or do not fit the record.
    """
    if (directory / MANIFEST).exists():
        return directory
    provenance = Provenance(
        search=record.search,
        trial=record.number,
        data_fingerprint=prepared.fingerprint,
        metric=record.metric,
        objective=record.objective,
        created=record.finished,
        versions=library_versions(),
    )
    packager = _packager(trial.absolute().parents[1] / SHARED, prepared.directory.absolute())
    return packager.write(
        directory,
        config=record.config,
        weights=trial / RECORDED_WEIGHTS,
        provenance=provenance,
        weights_sha256=record.weights_sha256,
        temperature=temperature,
        conformal=conformal,
    )


@lru_cache(maxsize=2)
def _packager(shared: Path, directory: Path) -> Packager:
    """The packager of a search. A directory of prepared data never changes: its name is its content."""
    prepared = load_prepared(directory)
    probe = prepared.development().validation.inputs.take(slice(0, PROBE_ROWS))
    return make_packager(shared, prepared.spec, prepared.preprocessor, probe)


def package_digest(directory: Path) -> str:
    """The package's name by content: sha256 of its manifest, which holds the sha256 of every other file."""
    return hashlib.sha256((directory / MANIFEST).read_bytes()).hexdigest()


@cache
def library_versions() -> dict[str, str]:
    """Versions of the libraries that decide a model's outputs, for `Provenance`; one dict that nobody changes."""
    return {name: version(name) for name in LIBRARIES}


def _entry(content: bytes) -> FileEntry:
    return FileEntry(sha256=hashlib.sha256(content).hexdigest(), size=len(content))


def _tensors(inputs: Inputs) -> dict[str, Tensor]:
    return {name: part.contiguous() for name, part in inputs._asdict().items() if part is not None}
