"""Where a project keeps its state: one folder, ``mlruns/`` beside the experiment files, private to its owner."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from pipeline.errors import ConfigError, InputError
from pipeline.text import shown

STATE_VARIABLE = "AUTOML_STATE"
"""Environment variable that names another state folder than ``./mlruns``."""


@dataclass(frozen=True, slots=True)
class Workspace:
    """Paths under the state folder. Nothing is created before it is needed."""

    state: Path

    @property
    def searches(self) -> Path:
        return self.state / "searches"

    @property
    def data(self) -> Path:
        """Prepared data sets, by content."""
        return self.state / "data"

    @property
    def prefect_home(self) -> Path:
        return self.state / "prefect"

    def experiment_lock(self, experiment: str) -> Path:
        """Held by whoever runs the experiment, from its data to its report."""
        return self.state / "locks" / f"{experiment}.lock"

    @property
    def artifacts(self) -> Path:
        return self.state / "artifacts"

    @property
    def ledger(self) -> Path:
        """Every move of every champion alias, one JSON line each."""
        return self.state / "registry" / "ledger.jsonl"

    @property
    def sealed_readings(self) -> Path:
        """Every reading of a sealed test, one JSON line each."""
        return self.state / "sealed-readings.jsonl"

    def search(self, search: str) -> Path:
        return self.searches / search

    def tracking_uri(self, uri: str) -> str:
        """The experiment file's tracking URI with a relative SQLite path made absolute.

        ``sqlite:///mlruns/…`` means the state folder, wherever that is.

        Raises:
            ConfigError: a scheme that is neither SQLite, PostgreSQL nor HTTP(S).
        """
        if uri.startswith("sqlite:///"):
            path = uri.removeprefix("sqlite:///")
            if not path or path.endswith("/") or path.startswith((":", "file:")) or "?" in path:
                raise ConfigError(
                    f"`tracking.uri` must name a database file, but got {shown(uri)}", "use sqlite:///mlruns/mlflow.db"
                )
            if path.startswith("mlruns/"):
                return f"sqlite:///{self.state / path.removeprefix('mlruns/')}"
            return uri if path.startswith("/") else f"sqlite:///{Path.cwd() / path}"
        if uri.startswith(("postgresql://", "postgresql+psycopg2://", "http://", "https://")):
            return uri
        scheme = uri.split(":", 1)[0]
        raise ConfigError(
            f"`tracking.uri` must be sqlite, postgresql, http or https, but got scheme {shown(scheme)}",
            "use sqlite:///mlruns/mlflow.db",
        )

    def has_store(self, uri: str) -> bool:
        """Whether there is something to read behind this URI: False for a database file that no run has made yet."""
        resolved = self.tracking_uri(uri)
        return not resolved.startswith("sqlite:///") or Path(resolved.removeprefix("sqlite:///")).exists()

    def create(self) -> None:
        """Make the state folder; it and what this process writes from now on is for its owner only.

        Raises:
            InputError: it cannot be made or written to.
        """
        os.umask(0o077)
        try:
            self.state.mkdir(parents=True, exist_ok=True)
            status = self.state.stat()
            if status.st_uid == os.geteuid() and status.st_mode & 0o077:
                self.state.chmod(0o700)  # a checkout has it with its README, for everybody to read
        except OSError as error:
            raise InputError(
                f"the state folder {self.state} cannot be made ({error.strerror})",
                f"run in a folder that is yours, or name another with {STATE_VARIABLE}",
            ) from error
        if not os.access(self.state, os.W_OK | os.X_OK, effective_ids=True):
            raise InputError(
                f"the state folder {self.state} is not writable",
                f"check its permissions, or name another with {STATE_VARIABLE}",
            )


def find_workspace() -> Workspace:
    """The workspace of the current folder, or the one that ``AUTOML_STATE`` names.

    Raises:
        InputError: what has its name is no folder, or a link that nobody asked for.
    """
    named = os.environ.get(STATE_VARIABLE)
    state = Path(named or "mlruns").absolute()
    if not named and state.is_symlink():
        raise InputError(
            f"the state folder {state} is a link to {state.readlink()}",
            f"export {STATE_VARIABLE}={state.readlink()} if its content is yours",
        )
    if state.exists() and not state.is_dir():
        raise InputError(f"the state folder {state} is not a folder", f"move it, or name another with {STATE_VARIABLE}")
    return Workspace(state)
