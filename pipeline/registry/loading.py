"""From a registered version to a model that predicts."""

from __future__ import annotations

from pathlib import Path

from pipeline.packaging.predictor import Predictor
from pipeline.packaging.verify import load_package
from pipeline.registry.base import ModelRegistry, ModelVersion
from pipeline.tracking.projection import PACKAGE


def load_version(registry: ModelRegistry, version: ModelVersion, directory: Path) -> Predictor:
    """Fetch a version's package into `directory` and load it: the very package that was registered, by its digest.

    Raises:
        PackageError: it does not verify, or another one is in its place.
        StoreError: it cannot be fetched.
    """
    return load_package(registry.download(version.name, version.version, directory), version.tags.get(PACKAGE))
