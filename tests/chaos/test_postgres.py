"""MLflow on a real PostgreSQL that is restarted in the middle. (Each search's Optuna study is a journal file of its
own: there is no database to restart.)"""

from __future__ import annotations

import importlib.util
import os
import pwd
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.chaos.server import free_port
from tests.chaos.test_outages import TRIALS, everything_is_there_once, project, wait_for_records
from tests.patience import PATIENCE_S

pytestmark = [pytest.mark.slow, pytest.mark.chaos]


class Postgres:
    """A cluster of its own in a folder, on a loopback port, of the user ``postgres`` where we are root."""

    def __init__(self, folder: Path, binaries: Path) -> None:
        self._data, self._binaries, self._port = folder / "data", binaries, free_port()
        self._account = pwd.getpwnam("postgres") if os.geteuid() == 0 else None
        folder.mkdir()
        if self._account is not None:
            os.chown(folder, self._account.pw_uid, self._account.pw_gid)
        self._do("initdb", "-D", str(self._data), "-A", "trust", "-U", "mlflow", "--no-sync")

    @property
    def uri(self) -> str:
        return f"postgresql://mlflow@127.0.0.1:{self._port}/postgres"

    def start(self) -> None:
        options = f"-p {self._port} -c listen_addresses=127.0.0.1 -c unix_socket_directories={self._data}"
        self._do("pg_ctl", "-D", str(self._data), "-o", options, "-l", str(self._data / "log"), "-w", "start")

    def stop(self) -> None:
        self._do("pg_ctl", "-D", str(self._data), "-m", "immediate", "stop")

    def _do(self, name: str, *arguments: str) -> None:
        command = [str(self._binaries / name), *arguments]
        account = {} if self._account is None else {"user": self._account.pw_uid, "group": self._account.pw_gid}
        done = subprocess.run(command, stdout=subprocess.DEVNULL, cwd="/", check=False, **account)  # type: ignore[call-overload]
        assert done.returncode == 0, f"{name}: {done.returncode}"


@pytest.fixture
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Postgres]:
    found = shutil.which("initdb") or next(map(str, Path("/usr/lib/postgresql").glob("*/bin/initdb")), None)
    if found is None:
        pytest.skip("no PostgreSQL server binary is here")
    if importlib.util.find_spec("psycopg2") is None:
        pytest.skip("psycopg2 is not installed: pip install 'automl-pipeline[postgres]'")
    folder = Path(os.environ.get("TMPDIR", "/tmp")) / f"automl-postgres-{os.getpid()}"
    server = Postgres(folder, Path(found).resolve().parent)
    server.start()
    yield server
    server.stop()
    shutil.rmtree(folder)


def test_a_restart_in_the_middle_loses_nothing(tmp_path: Path, postgres: Postgres) -> None:
    made = project(tmp_path, "postgres", postgres.uri)
    process = made.start()
    wait_for_records(made, process, 2)
    postgres.stop()
    wait_for_records(made, process, 4)
    postgres.start()
    out, err = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 0, out + err
    everything_is_there_once(made, TRIALS)
