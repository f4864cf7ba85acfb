"""What a package's files are called, may hold, and may weigh.

::

    weights.safetensors   the module's state
    model.json            `ModelDescription`: family, config, where it comes from
    data.json             `DataDescription`: shapes, labels, fitted preprocessing; one file for all trials of a search
    probe.safetensors     a few prepared rows and the outputs the model gave for them
    manifest.json         `Manifest`: sha256 and size of the four above; its own sha256 names the package
"""

from __future__ import annotations

from typing import Annotated, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from pipeline.data.preprocess import Preprocessor, TextPreprocessor
from pipeline.data.spec import DataSpec
from pipeline.packaging.conformal import Conformal
from pipeline.training.config import TrialConfig

WEIGHTS: Final = "weights.safetensors"
MODEL: Final = "model.json"
DATA: Final = "data.json"
PROBE: Final = "probe.safetensors"
MANIFEST: Final = "manifest.json"
Hashed = Literal["weights.safetensors", "model.json", "data.json", "probe.safetensors"]
HASHED: Final[tuple[Hashed, ...]] = (WEIGHTS, MODEL, DATA, PROBE)

MIB: Final = 1024 * 1024
MAX_BYTES: Final = {
    WEIGHTS: 8 * 1024 * MIB,
    MODEL: MIB,
    DATA: 256 * MIB,
    PROBE: 64 * MIB,
    MANIFEST: 64 * 1024,
}
"""Every file a package has, and what it may weigh: a package cannot make its reader read more than this."""

MAX_PROBE_ROWS: Final = 64

Text = Annotated[str, Field(max_length=500)]


class Provenance(BaseModel):
    """Where a model comes from."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    search: Text
    trial: Annotated[int, Field(ge=0)]
    data_fingerprint: Text
    metric: Text
    objective: float | None
    """Best validation value of the metric."""
    created: float
    """Unix seconds."""
    versions: Annotated[dict[Text, Text], Field(max_length=100)]
    """Library to version, of the process that trained."""


class ModelDescription(BaseModel):
    """``model.json``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal[1] = 1
    config: TrialConfig
    provenance: Provenance
    temperature: Annotated[float, Field(gt=0, le=1000)] = 1.0
    """The module's logits are divided by it before they are probabilities; 1 for regression."""
    conformal: Conformal | None = None
    """Fitted where intervals or sets were asked for."""


class DataDescription(BaseModel):
    """``data.json``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    spec: DataSpec
    preprocessor: Preprocessor

    @model_validator(mode="after")
    def _same_kind(self) -> DataDescription:
        if self.preprocessor.kind != self.spec.kind:
            raise ValueError(f"{self.preprocessor.kind} preprocessing does not fit {self.spec.kind} data")
        if isinstance(self.preprocessor, TextPreprocessor) and self.preprocessor.n_tokens != self.spec.n_tokens:
            raise ValueError(f"{self.preprocessor.n_tokens} words do not fit a model of {self.spec.n_tokens}")
        return self


class FileEntry(BaseModel):
    """Content of one file."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    size: Annotated[int, Field(ge=0)]


class Manifest(BaseModel):
    """``manifest.json``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal[1] = 1
    files: dict[Hashed, FileEntry]

    @model_validator(mode="after")
    def _whole(self) -> Manifest:
        missing = [name for name in HASHED if name not in self.files]
        if missing:
            raise ValueError(f"says nothing of {missing[0]}")
        return self
