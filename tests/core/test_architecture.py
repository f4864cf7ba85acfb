"""Imports point one way, stores are spoken to at the edges only, and only the evaluation can open the sealed test."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
PACKAGES = ("pipeline", "search_spaces", "flows")
FILES = sorted(path for package in PACKAGES for path in (REPOSITORY / package).rglob("*.py"))

FORBIDDEN = {
    "pipeline": {"flows", "search_spaces"},
    "search_spaces": {"flows"},
    "pipeline/data": {"optuna", "mlflow", "prefect", "pipeline.models", "pipeline.training", "pipeline.search"},
    "pipeline/models": {"optuna", "mlflow", "prefect", "pipeline.training", "pipeline.search", "sklearn", "pandas"},
    "pipeline/training": {"optuna", "mlflow", "prefect", "pipeline.search", "pipeline.tracking", "pipeline.evaluation"},
    "pipeline/evaluation": {"optuna", "mlflow", "prefect"},
    "pipeline/search": {"mlflow", "prefect"},
    "pipeline/tracking": {"optuna", "prefect"},
    "pipeline/registry": {"optuna", "prefect"},
    "search_spaces/": {"optuna", "mlflow", "prefect"},
}


def imported(path: Path) -> set[str]:
    """Every module that a file imports, anywhere in it, with all its parents."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return {".".join(parts[:end]) for name in names for parts in [name.split(".")] for end in range(1, len(parts) + 1)}


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(REPOSITORY)))
def test_a_file_imports_nothing_from_above_or_beside_its_room(path: Path) -> None:
    relative = str(path.relative_to(REPOSITORY))
    names = imported(path)
    for room, forbidden in FORBIDDEN.items():
        if relative.startswith(room.rstrip("/") + "/"):
            assert not names & forbidden, f"{relative} imports {sorted(names & forbidden)}"


def test_only_the_evaluation_opens_the_sealed_test() -> None:
    users = {str(path.relative_to(REPOSITORY)) for path in FILES if "pipeline.data.sealed.unseal" in imported(path)}
    assert users == {"pipeline/evaluation/finalists.py"}


def test_workers_load_no_store() -> None:
    """The transitive imports of what workers are forked from, within our own packages stay in its three rooms."""
    seen: set[str] = set()
    waiting = ["pipeline.training.fork_server"]
    while waiting:
        name = waiting.pop()
        path = REPOSITORY / Path(*name.split("."))
        file = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
        if name in seen or not file.exists():
            continue
        seen.add(name)
        waiting += [found for found in imported(file) if found.split(".")[0] in PACKAGES]
    rooms = {name.split(".")[1] for name in seen if name.count(".")}
    assert rooms <= {"data", "models", "training", "errors", "files", "objective", "redaction", "text"}
