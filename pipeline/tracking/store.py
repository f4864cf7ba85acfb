"""The MLflow store behind tracker and registry: its address, its first migration, and its errors as ours."""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Final
from urllib.parse import urlparse

from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from pipeline.errors import InputError, StoreError
from pipeline.files import exclusive_lock
from pipeline.tracking.base import StoreRefusedError

SQLITE: Final = "sqlite:///"
RETRYABLE_4XX: Final = frozenset({408, 429})


def resolve_uri(uri: str, root: Path) -> str:
    """A tracking URI that means the same from every working directory.

    Args:
        root: what a relative SQLite path is relative to.

    Raises:
        InputError: a scheme that MLflow 3 has no safe store for.
    """
    if uri.startswith(SQLITE):
        path = Path(uri.removeprefix(SQLITE))
        return f"{SQLITE}{(root / path).absolute()}"
    scheme = urlparse(uri).scheme
    if scheme.split("+")[0] in {"http", "https", "postgresql", "mysql", "mssql"}:
        return uri
    raise InputError(
        f"`tracking.uri` must name a database or an MLflow server, but got {shown_uri(uri)!r}",
        "use sqlite:///mlruns/mlflow.db, postgresql://... or http://...",
    )


def shown_uri(uri: str) -> str:
    """The URI without user name and password: what may appear in messages."""
    parts = urlparse(uri)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl() if "@" in parts.netloc else uri


def is_server(uri: str) -> bool:
    """Whether an MLflow server owns the database and the artifacts."""
    return urlparse(uri).scheme in {"http", "https"}


def open_store(uri: str, state: Path) -> MlflowClient:
    """A client of a store whose schema is there.

    The first connection to a fresh database creates its tables, and two at once break it, so it is made under a file
    lock. SQLite is switched to write-ahead logging, which lets the UI read while a search writes.

    Args:
        uri: absolute, as `resolve_uri` returns it.
        state: folder for the lock file, shared by all processes of this machine that use the store.

    Raises:
        StoreError: the store cannot be reached, or has the schema of another MLflow.
    """
    logging.getLogger("alembic").setLevel(logging.WARNING)
    with store_errors(f"open {shown_uri(uri)}"):
        if is_server(uri):
            return MlflowClient(tracking_uri=uri, registry_uri=uri)
        with exclusive_lock(state / "mlflow.lock", "opening the MLflow database", wait=True):
            if uri.startswith(SQLITE):
                _write_ahead(Path(uri.removeprefix(SQLITE)))
            client = MlflowClient(tracking_uri=uri, registry_uri=uri)
            # Stores are built at their first use; these two build both.
            client.search_experiments(max_results=1)
            client.search_registered_models(max_results=1)
            return client


def _write_ahead(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with closing(sqlite3.connect(path, timeout=20)) as connection:
        connection.execute("PRAGMA journal_mode=WAL")


@contextmanager
def store_errors(doing: str) -> Iterator[None]:
    """MLflow's and the file system's errors as StoreError, in one line.

    Raises:
        StoreRefusedError: the store refused for good.
        StoreError: it may work later.
    """
    try:
        yield
    except MlflowException as error:
        status = error.get_http_status_code()
        kind = StoreRefusedError if 400 <= status < 500 and status not in RETRYABLE_4XX else StoreError
        raise kind(_one_line(f"MLflow could not {doing}: {error.message}")) from error
    except (OSError, sqlite3.Error) as error:
        raise StoreError(_one_line(f"MLflow could not {doing}: {error}")) from error


def _one_line(text: str) -> str:
    return " ".join(text.split())[:1000]
