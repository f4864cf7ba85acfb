"""The port to the model registry. `InMemoryRegistry` and `MLflowRegistry` implement it, under one contract suite."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from pydantic import BaseModel, ConfigDict

CHAMPION = "champion"
PREVIOUS = "previous"


class ModelVersion(BaseModel):
    """One version of a registered model."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    version: int
    run_id: str
    created: float
    """Unix seconds."""
    tags: dict[str, str]
    aliases: tuple[str, ...]


class ModelRegistry(Protocol):
    """Versions and aliases of registered models."""

    def register(self, name: str, run_id: str, key: str, tags: Mapping[str, str]) -> ModelVersion:
        """Make the model that `run_id` logged a version of `name`, creating the registered model where it is missing.
        `key` (search and trial) makes this idempotent: a version with the same key is returned, not doubled."""
        ...

    def versions(self, name: str) -> tuple[ModelVersion, ...]:
        """All versions, newest first; empty where the model is not registered."""
        ...

    def champion(self, name: str) -> ModelVersion | None:
        """The version behind the champion alias."""
        ...

    def move_champion(self, name: str, to: int, expected: int | None) -> None:
        """Set the champion alias to version `to`, and `previous` to the version it leaves. Nothing happens where it is
        `to` already: an answer that got lost is asked for again.

        Raises:
            ChampionMovedError: the champion is not `expected` any more (None: there is none).
            GateError: `to` does not exist.
        """
        ...

    def tag(self, name: str, version: int, tags: Mapping[str, str]) -> None:
        """Add tags to a version."""
        ...

    def download(self, name: str, version: int, directory: Path) -> Path:
        """The version's model package, as files under `directory`; returns the package's folder."""
        ...

    def names(self) -> tuple[str, ...]:
        """All registered models."""
        ...
