"""Files into a run's artifact folder: by link or copy where the folder is on this machine, else through MLflow."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from urllib.parse import unquote, urlparse

from mlflow import MlflowClient


def local_folder(artifact_uri: str) -> Path | None:
    """The folder behind an artifact URI, or None where it is not on a file system."""
    parts = urlparse(artifact_uri)
    if parts.scheme == "file" and parts.netloc in {"", "localhost"}:
        return Path(unquote(parts.path))
    return Path(artifact_uri) if parts.scheme == "" else None


def put_file(client: MlflowClient, run_id: str, artifact_uri: str, source: Path, to: str) -> None:
    """Store one file under the artifact path `to`, replacing what is there."""
    folder = local_folder(artifact_uri)
    path = PurePosixPath(to)
    if folder is not None:
        _replace_file(source, folder / path)
        return
    with tempfile.TemporaryDirectory() as staging:
        renamed = Path(shutil.copyfile(source, Path(staging) / path.name))
        client.log_artifact(run_id, str(renamed), str(path.parent) if path.parent.parts else None)


def put_text(client: MlflowClient, run_id: str, artifact_uri: str, text: str, to: str) -> None:
    """Store text as a file under the artifact path `to`."""
    with tempfile.TemporaryDirectory() as staging:
        source = Path(staging) / PurePosixPath(to).name
        source.write_text(text, encoding="utf-8")
        put_file(client, run_id, artifact_uri, source, to)


def put_folder(client: MlflowClient, run_id: str, artifact_uri: str, to: str, fill: Callable[[Path], None]) -> None:
    """Store the folder that `fill` fills as the artifact path `to`; on this machine it appears whole or not at all."""
    folder = local_folder(artifact_uri)
    if folder is None:
        with tempfile.TemporaryDirectory() as staging:
            fill(Path(staging))
            client.log_artifacts(run_id, staging, to)
        return
    folder.mkdir(parents=True, exist_ok=True)
    staged = Path(tempfile.mkdtemp(prefix=".staging-", dir=folder))
    try:
        fill(staged)
        shutil.rmtree(folder / to, ignore_errors=True)
        staged.rename(folder / to)
    except BaseException:
        shutil.rmtree(staged, ignore_errors=True)
        raise


def _replace_file(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
    os.close(handle)
    try:
        shutil.copyfile(source, name)
        os.replace(name, target)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
