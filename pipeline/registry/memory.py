"""A model registry in memory, over the packages of an `InMemoryTracker`'s runs."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from pipeline.errors import ChampionMovedError, GateError, StoreError
from pipeline.registry.base import CHAMPION, PREVIOUS, ModelVersion
from pipeline.tracking.memory import InMemoryTracker


class InMemoryRegistry:
    """Implements `ModelRegistry`."""

    def __init__(self, tracker: InMemoryTracker, clock: Callable[[], float] = time.time) -> None:
        self._tracker, self._clock = tracker, clock
        self._versions: dict[str, list[ModelVersion]] = {}
        self._keys: dict[tuple[str, str], int] = {}
        self._aliases: dict[str, dict[str, int]] = {}

    def register(self, name: str, run_id: str, key: str, tags: Mapping[str, str]) -> ModelVersion:
        if (name, key) not in self._keys:
            self._package(run_id)
            versions = self._versions.setdefault(name, [])
            version = len(versions) + 1
            versions.append(
                ModelVersion(
                    name=name,
                    version=version,
                    run_id=run_id,
                    created=self._clock(),
                    tags={**tags, "automl.key": key},
                    aliases=(),
                )
            )
            self._keys[name, key] = version
        return self._version(name, self._keys[name, key])

    def versions(self, name: str) -> tuple[ModelVersion, ...]:
        found = self._versions.get(name, [])
        return tuple(self._version(name, stored.version) for stored in reversed(found))

    def champion(self, name: str) -> ModelVersion | None:
        version = self._aliases.get(name, {}).get(CHAMPION)
        return None if version is None else self._version(name, version)

    def move_champion(self, name: str, to: int, expected: int | None) -> None:
        aliases = self._aliases.setdefault(name, {})
        current = aliases.get(CHAMPION)
        if current == to != expected:
            return
        if current != expected:
            raise ChampionMovedError(name, current, expected)
        if not 1 <= to <= len(self._versions.get(name, [])):
            raise GateError(f"{name} has no version {to}; see `automl models {name}`")
        if current is not None and current != to:
            aliases[PREVIOUS] = current
        aliases[CHAMPION] = to

    def tag(self, name: str, version: int, tags: Mapping[str, str]) -> None:
        stored = self._version(name, version)
        self._versions[name][version - 1] = stored.model_copy(update={"tags": {**stored.tags, **tags}, "aliases": ()})

    def download(self, name: str, version: int, directory: Path) -> Path:
        package = self._package(self._version(name, version).run_id)
        target = directory / "package"
        shutil.rmtree(target, ignore_errors=True)
        return Path(shutil.copytree(package, target, symlinks=True))

    def names(self) -> tuple[str, ...]:
        return tuple(sorted(self._versions))

    def _version(self, name: str, version: int) -> ModelVersion:
        try:
            stored = self._versions[name][version - 1]
        except (KeyError, IndexError):
            raise StoreError(f"{name} has no version {version}") from None
        aliases = tuple(sorted(alias for alias, held in self._aliases.get(name, {}).items() if held == version))
        return stored.model_copy(update={"aliases": aliases})

    def _package(self, run_id: str) -> Path:
        package = next((run.model for run in self._tracker.runs.values() if run.id == run_id), None)
        if package is None:
            raise StoreError(f"run {run_id} has logged no model, so there is nothing to register")
        return package
