"""What a bad input is: files in an empty folder, a command, and what the user must see. The numbers are those of the
reference's list of 92."""

from __future__ import annotations

import ast
import os
import resource
import signal
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Literal

import pytest

from flows import cli
from flows.commands import check, models  # noqa: F401 - what the commands import is not their time
from pipeline.registry import mlflow  # noqa: F401

REPOSITORY = Path(__file__).parents[2]
GOOD = "name: bad\ndata: {source: train.csv, target: y}\n"
ROWS = [(i % 7 * 0.5 + i % 2, "red" if i % 3 else "blue", "yes" if i % 2 else "no") for i in range(60)]
TABLE = "x,colour,y\n" + "".join(f"{x},{colour},{y}\n" for x, colour, y in ROWS)

CANARY = "canary-4f1c9e"
"""A secret that no output, file or database may hold."""

LONGEST_S = 5.0
"""Of CPU time."""
MOST_MIB = 1024
HANGS_S = 120

Content = str | bytes | Callable[[Path], object]
Outcome = Literal["refused", "warned", "accepted"]


@dataclass(frozen=True, slots=True)
class Case:
    """One bad input.

    Args:
        number: in the reference.
        name: what is bad.
        expected: part of the one line of the error, or of the output where the input is accepted.
        files: path in the user's folder to its content, or to a function that makes it there. There is a good
            ``bad.yaml`` and a good ``train.csv`` where these are not given.
        outcome: refused (one line, exit code 2, nothing created), warned (a ``warning:`` line), or accepted.
        code: the exit code of a refusal: 1 where not the input but a store is at fault.
        skip: why the case does not apply.
        shown_by: ``file::test`` that shows it already.
    """

    number: int
    name: str
    expected: str = ""
    files: Mapping[str, Content] = field(default_factory=dict)
    outcome: Outcome = "refused"
    command: tuple[str, ...] = ("check", "bad.yaml")
    environment: Mapping[str, str | None] = field(default_factory=dict)
    code: int = 2
    skip: str = ""
    shown_by: str = ""


def not_a_feature(number: int, name: str, missing: str) -> Case:
    """A case that cannot occur yet."""
    return Case(number, name, skip=f"not a feature yet: {missing}")


def elsewhere(number: int, name: str, test: str) -> Case:
    """A case that another test shows."""
    return Case(number, name, shown_by=test)


def table(cases: tuple[Case, ...]) -> pytest.MarkDecorator:
    """One test a case, under its number."""
    return pytest.mark.parametrize("case", cases, ids=[f"{case.number:02d} {case.name}" for case in cases])


@dataclass(frozen=True, slots=True)
class User:
    """Somebody at a prompt in an empty folder."""

    folder: Path
    capsys: pytest.CaptureFixture[str]
    monkeypatch: pytest.MonkeyPatch

    def meets(self, case: Case) -> None:
        """Make the case's files, run its command, and see what the case says."""
        if case.skip:
            pytest.skip(case.skip)
        if case.shown_by:
            assert_exists(case.shown_by)
            return
        for name, content in ({"bad.yaml": GOOD, "train.csv": TABLE} | dict(case.files)).items():
            make(self.folder / name, content)
        for variable, value in case.environment.items():
            if value is None:
                self.monkeypatch.delenv(variable, raising=False)
            else:
                self.monkeypatch.setenv(variable, value.replace("FOLDER", str(self.folder)))
        before = listing(self.folder)
        code, out, err = self.runs(*case.command)
        if case.outcome == "refused":
            assert code == case.code, f"exit code {code}\n{out}\n{err}"
            assert is_one_line(err), err
            assert case.expected in err, err
            assert out == ""
        else:
            assert code == 0, f"exit code {code}\n{out}\n{err}"
            marks = "warning:" if case.outcome == "warned" else ""
            assert [line for line in out.splitlines() if line.startswith(marks) and case.expected in line], out
        assert "Traceback" not in out + err
        assert CANARY not in out + err
        assert listing(self.folder) == before, "something was created"

    def runs(self, *arguments: str) -> tuple[int, str, str]:
        """A command in this process, with bounds on its time and memory; exit code, stdout and stderr."""
        self.monkeypatch.chdir(self.folder)
        self.monkeypatch.setattr(sys, "argv", ["automl", *arguments])
        self.capsys.readouterr()
        started, memory = time.process_time(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        code = within(HANGS_S, _exit_code)
        seconds, grown = time.process_time() - started, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory
        out, err = self.capsys.readouterr()
        assert seconds < LONGEST_S, f"it took {seconds:.1f} s\n{out}\n{err}"
        assert grown < MOST_MIB * 1024, f"it took {grown / 1024:.0f} MiB"
        return code, out, err


def _exit_code() -> int:
    with pytest.raises(SystemExit) as ended:
        cli.main()
    code = ended.value.code
    assert isinstance(code, int)
    return code


def within(seconds: int, act: Callable[[], int]) -> int:
    """Run `act`, and fail where it hangs."""

    def hangs(_number: int, _frame: FrameType | None) -> None:
        raise TimeoutError(f"it hangs: nothing after {seconds} s")

    before = signal.signal(signal.SIGALRM, hangs)
    signal.alarm(seconds)
    try:
        return act()
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def make(path: Path, content: Content) -> None:
    """A file of the case; what its function does where it is a function."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if callable(content):
        content(path)
    else:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())


def listing(folder: Path) -> list[str]:
    """Everything in a folder, links not followed."""
    return sorted(os.path.join(root, name) for root, folders, names in os.walk(folder) for name in folders + names)


def is_one_line(text: str) -> bool:
    return text.startswith("error: ") and text.count("\n") == 1 and text.endswith("\n") and len(text) < 2000


def assert_exists(test: str) -> None:
    """The test that a row names is there, so that rows cannot outlive what they point to."""
    file, _, name = test.partition("::")
    tree = ast.parse((REPOSITORY / file).read_text())
    assert name in {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}, test


def experiment(text: str) -> dict[str, Content]:
    """The good experiment with more lines."""
    return {"bad.yaml": GOOD + text}


def space(entry: str) -> dict[str, Content]:
    """The good experiment with an entry in its search space."""
    return experiment(f"search: {{space: {{{entry}}}}}\n")


def source(name: str, content: Content, more: str = "", target: str | None = None) -> dict[str, Content]:
    """An experiment on another source."""
    wanted = "" if target is None else f", target: {target}"
    return {"bad.yaml": f"name: bad\ndata: {{source: {name}{wanted}{more}}}\n", name: content}


def csv(content: Content, more: str = "") -> dict[str, Content]:
    """The good experiment on another table."""
    return {"bad.yaml": GOOD.replace("target: y", f"target: y{more}"), "train.csv": content}


def numbers_in(cases: tuple[Case, ...]) -> set[int]:
    """The reference's numbers that a table has."""
    return {case.number for case in cases}


def at_a_prompt(folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> User:
    """A user in this folder, with nothing of ours in the environment."""
    for name in ("AUTOML_STATE", "MLFLOW_TRACKING_URI", "CUDA_VISIBLE_DEVICES"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PREFECT_HOME", str(folder / "mlruns" / "prefect"))
    return User(folder, capsys, monkeypatch)
