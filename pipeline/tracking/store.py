"""The MLflow store behind tracker and registry: its address, its first migration, and its errors as ours."""

from __future__ import annotations

import functools
import hashlib
import logging
import os
import sqlite3
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Final, ParamSpec, TypeVar
from urllib.parse import urlparse

from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from mlflow.store.db.utils import _initialize_tables
from sqlalchemy import create_engine
from sqlalchemy.exc import SQLAlchemyError

from pipeline.errors import StoreError
from pipeline.files import exclusive_lock, sync_directory
from pipeline.tracking.base import StoreRefusedError

SQLITE: Final = "sqlite:///"
RETRYABLE_4XX: Final = frozenset({408, 429})
PATIENCE_S: Final = 20.0
"""How long an operation that somebody waits for is repeated while the store is out of order."""
FIRST_PAUSE_S: Final = 0.2

P = ParamSpec("P")
T = TypeVar("T")


def shown_uri(uri: str) -> str:
    """The URI without user name and password: what may appear in messages."""
    parts = urlparse(uri)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl() if "@" in parts.netloc else uri


def is_server(uri: str) -> bool:
    """Whether an MLflow server owns the database and the artifacts."""
    return urlparse(uri).scheme in {"http", "https"}


def open_store(uri: str) -> MlflowClient:
    """A client of a store whose schema is there.

    The first connection to a fresh database creates its tables, and two at once break it, so it is made under a file
    lock; and a kill in the middle would leave half of them, which MLflow never opens again, so a SQLite file is made
    under another name first. It is switched to write-ahead logging, which lets the UI read while a search writes.

    Args:
        uri: absolute tracking URI.

    Raises:
        StoreError: the store cannot be reached, or has the schema of another MLflow.
    """
    logging.getLogger("alembic").setLevel(logging.WARNING)
    with store_errors(f"open {shown_uri(uri)}"):
        if is_server(uri):
            return MlflowClient(tracking_uri=uri, registry_uri=uri)
        if uri.startswith(SQLITE):
            _check_is_database(Path(uri.removeprefix(SQLITE)))
        with exclusive_lock(_lock_path(uri), "opening the MLflow database", wait=True):
            if uri.startswith(SQLITE):
                _create(Path(uri.removeprefix(SQLITE)))
            client = MlflowClient(tracking_uri=uri, registry_uri=uri)  # creates the tables
            client.search_registered_models(max_results=1)  # the registry's store is built at its first use
            return client


def _lock_path(uri: str) -> Path:
    if uri.startswith(SQLITE):
        return Path(f"{uri.removeprefix(SQLITE)}.lock")
    name = hashlib.sha256(uri.encode()).hexdigest()[:16]
    return Path(tempfile.gettempdir()) / f"automl-{os.getuid()}-{name}.lock"


def _check_is_database(path: Path) -> None:
    """Raises StoreRefusedError for a file of somebody else's: nothing is made beside it, and it stays as it is.

    SQLite looks, not we: closing a file of our own would drop the locks that this process's connections hold on it.
    """
    if not path.exists():
        return
    try:
        with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", timeout=20, uri=True)) as connection:
            connection.execute("PRAGMA schema_version")
    except sqlite3.DatabaseError as error:
        if error.sqlite_errorcode == sqlite3.SQLITE_NOTADB:
            raise StoreRefusedError(
                f"MLflow could not open {path}: it is not an SQLite database; name another in `tracking.uri`"
            ) from error
        raise


def _create(path: Path) -> None:
    if not path.exists() or path.stat().st_size == 0:
        staged = path.with_name(f"{path.name}.new")
        staged.unlink(missing_ok=True)
        engine = create_engine(f"{SQLITE}{staged}")
        _initialize_tables(engine)  # type: ignore[no-untyped-call]
        engine.dispose()
        os.replace(staged, path)
        sync_directory(path.parent)
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
        status = error.get_http_status_code()  # type: ignore[no-untyped-call]
        kind = StoreRefusedError if 400 <= status < 500 and status not in RETRYABLE_4XX else StoreError
        raise kind(_one_line(f"MLflow could not {doing}: {error.message}")) from error
    except ImportError as error:
        missing = f"{error.name} is not installed; pip install 'automl-pipeline[postgres]'"
        raise StoreRefusedError(f"MLflow could not {doing}: {missing}") from error
    except FileNotFoundError as error:
        raise StoreRefusedError(_one_line(f"MLflow could not {doing}: {error}")) from error
    except (OSError, sqlite3.Error, SQLAlchemyError) as error:
        raise StoreError(_one_line(f"MLflow could not {doing}: {error}")) from error


def patient(method: Callable[P, T]) -> Callable[P, T]:
    """Repeat an idempotent operation for a while where it may work later: the answer got lost, the server restarts."""

    @functools.wraps(method)
    def repeated(*args: P.args, **kwargs: P.kwargs) -> T:
        until, pause = time.monotonic() + PATIENCE_S, FIRST_PAUSE_S
        while True:
            try:
                return method(*args, **kwargs)
            except StoreRefusedError:
                raise
            except StoreError:
                if time.monotonic() + pause > until:
                    raise
            time.sleep(pause)
            pause *= 2

    return repeated


def _one_line(text: str) -> str:
    return " ".join(text.split())[:1000]
