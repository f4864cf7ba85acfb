"""EDGE mlflow: model versions and the champion alias. MLflow's alias is last-writer-wins; ours moves under a lock, only
from the version it was compared with, and is read back."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from mlflow import MlflowClient
from mlflow.artifacts import download_artifacts
from mlflow.entities.model_registry import ModelVersion as StoredVersion
from mlflow.exceptions import MlflowException

from pipeline.errors import ChampionMovedError, GateError, PackageError
from pipeline.files import exclusive_lock
from pipeline.registry.base import CHAMPION, PREVIOUS, ModelVersion
from pipeline.tracking.artifacts import local_folder
from pipeline.tracking.base import StoreRefusedError
from pipeline.tracking.model_folder import PACKAGE_PATH
from pipeline.tracking.projection import KEY, MODEL_PATH, PACKAGE
from pipeline.tracking.store import PATIENCE_S, open_store, patient, store_errors

PAGE: Final = 200


class MLflowRegistry:
    """Implements `ModelRegistry`.

    Args:
        uri: absolute tracking URI.
        state: folder for lock files, shared by all processes of this machine that move aliases.
        patience_s: how long an operation is repeated while the store is out of order.

    Raises:
        StoreError: the store cannot be opened.
    """

    def __init__(self, uri: str, state: Path, patience_s: float = PATIENCE_S) -> None:
        self._uri, self._state, self.patience_s = uri, state, patience_s
        self._client: MlflowClient = open_store(uri)

    @patient
    def register(self, name: str, run_id: str, key: str, tags: Mapping[str, str]) -> ModelVersion:
        with self._alone(name), store_errors(f"register {name}"):
            found = next((v for v in self._stored(name) if v.tags.get(KEY) == key), None)
            if found is not None:
                return self._version(name, int(found.version))
            run = self._client.get_run(run_id)
            package = run.data.tags.get(PACKAGE)
            if package is None:
                # MLflow takes any source for READY, one that does not exist too.
                raise StoreRefusedError(f"run {run_id} has logged no model, so there is nothing to register")
            self._ensure_model(name)
            created = self._client.create_model_version(
                name,
                source=f"{run.info.artifact_uri.rstrip('/')}/{MODEL_PATH}",
                run_id=run_id,
                tags={PACKAGE: package, **tags, KEY: key},
            )
            return self._version(name, int(created.version))

    @patient
    def versions(self, name: str) -> tuple[ModelVersion, ...]:
        with store_errors(f"read the versions of {name}"):
            if not self._exists(name):
                return ()
            aliases = self._aliases(name)
            found = sorted(self._stored(name), key=lambda stored: int(stored.version), reverse=True)
            return tuple(_ours(stored, aliases) for stored in found)

    @patient
    def champion(self, name: str) -> ModelVersion | None:
        with store_errors(f"read the champion of {name}"):
            if not self._exists(name):
                return None
            version = self._aliases(name).get(CHAMPION)
            return None if version is None else self._version(name, version)

    @patient
    def move_champion(self, name: str, to: int, expected: int | None) -> None:
        with self._alone(name), store_errors(f"move the champion of {name}"):
            aliases = self._aliases(name) if self._exists(name) else {}
            current = aliases.get(CHAMPION)
            if current == to != expected:
                return  # it was moved before, and the answer got lost
            if current != expected:
                raise ChampionMovedError(name, current, expected)
            if not any(int(stored.version) == to for stored in self._stored(name)):
                raise GateError(f"{name} has no version {to}; see `automl models {name}`")
            # `previous` first: a kill in between leaves the old champion serving, named twice.
            if current is not None and current != to:
                self._client.set_registered_model_alias(name, PREVIOUS, str(current))
            self._client.set_registered_model_alias(name, CHAMPION, str(to))
            seen = self._aliases(name).get(CHAMPION)
            if seen != to:
                raise StoreRefusedError(
                    f"the champion of {name} was set to version {to} but reads as {seen}; try again"
                )

    @patient
    def tag(self, name: str, version: int, tags: Mapping[str, str]) -> None:
        with store_errors(f"tag {name} version {version}"):
            for key, value in tags.items():
                self._client.set_model_version_tag(name, str(version), key, value)

    @patient
    def download(self, name: str, version: int, directory: Path) -> Path:
        with store_errors(f"download {name} version {version}"):
            source = f"{self._client.get_model_version_download_uri(name, str(version))}/{PACKAGE_PATH}"
            target = directory / "package"
            shutil.rmtree(target, ignore_errors=True)
            directory.mkdir(parents=True, exist_ok=True)
            local = local_folder(source)
            if local is not None:
                _refuse_links(local)
                # Links stay links, so that loading sees and refuses them.
                return Path(shutil.copytree(local, target, symlinks=True))
            with tempfile.TemporaryDirectory(dir=directory) as scratch:
                fetched = download_artifacts(artifact_uri=source, dst_path=scratch, tracking_uri=self._uri)
                return Path(shutil.move(fetched, target))

    @patient
    def names(self) -> tuple[str, ...]:
        with store_errors("list the registered models"):
            return tuple(sorted(model.name for model in self._client.search_registered_models()))

    @contextmanager
    def _alone(self, name: str) -> Iterator[None]:
        """No other process of this machine registers or promotes `name` meanwhile."""
        with exclusive_lock(self._state / "locks" / f"{name}.lock", f"registering {name}", wait=True):
            yield

    def _ensure_model(self, name: str) -> None:
        if not self._exists(name):
            try:
                self._client.create_registered_model(name)
            except MlflowException:
                if not self._exists(name):  # else another machine was faster
                    raise

    def _exists(self, name: str) -> bool:
        return bool(self._client.search_registered_models(f"name = '{name}'", max_results=1))

    def _aliases(self, name: str) -> dict[str, int]:
        return {alias: int(version) for alias, version in self._client.get_registered_model(name).aliases.items()}

    def _stored(self, name: str) -> Iterator[StoredVersion]:
        token = None
        while True:
            page = self._client.search_model_versions(f"name = '{name}'", max_results=PAGE, page_token=token)
            yield from page
            token = page.token
            if not token:
                return

    def _version(self, name: str, version: int) -> ModelVersion:
        return _ours(self._client.get_model_version(name, str(version)), self._aliases(name))


def _refuse_links(package: Path) -> None:
    """Raises PackageError where the way from the model's folder to its package leads elsewhere."""
    for folder in (package, *package.parents[: len(Path(PACKAGE_PATH).parts)]):
        if folder.is_symlink():
            raise PackageError(f"{folder}: must be a folder, not a link")


def _ours(stored: StoredVersion, aliases: Mapping[str, int]) -> ModelVersion:
    version = int(stored.version)
    return ModelVersion(
        name=stored.name,
        version=version,
        run_id=stored.run_id or "",
        created=stored.creation_timestamp / 1000,
        tags=dict(stored.tags),
        aliases=tuple(sorted(alias for alias, held in aliases.items() if held == version)),
    )
