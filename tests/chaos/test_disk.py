"""Every file that we keep, on a full disk, torn and with a flipped bit: its state is the one before or the one after,
or it is refused by name; never something else."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import optuna
import pytest
import torch
from optuna.storages import JournalStorage

from pipeline.errors import SearchError
from pipeline.files import FULL, append_line, read_lines
from pipeline.packaging import load_package
from pipeline.records import read_record, write_record
from pipeline.registry.ledger import Move, history
from pipeline.search.calibrations import Calibrations
from pipeline.search.directory import SearchState, read_state, write_state
from pipeline.search.journal import GroupCommitBackend
from pipeline.tracking.replay import Replay, read_replay, write_replay
from pipeline.training.calibration import CostClass
from pipeline.training.checkpoint import load_checkpoint, save_checkpoint
from tests.chaos.full import no_file_beyond
from tests.packaging.cases import make_case
from tests.tracking.records import record, search_info

optuna.logging.set_verbosity(optuna.logging.WARNING)


@dataclass(frozen=True)
class Kept:
    """One kind of file. `write` makes version 1, 2, …; `read` says which version is there (0: none)."""

    name: str
    write: Callable[[Path, int], object]
    read: Callable[[Path], int]
    refuses: bool = False
    """A damaged one is an error that names the file; else it is as if it were not there."""

    grows: bool = False
    """It is appended to."""

    def __str__(self) -> str:
        return self.name


def _record(folder: Path) -> int:
    found = read_record(folder)
    return 0 if found is None else int(found.finished)


def _state(n: int) -> SearchState:
    return SearchState(
        id="s", experiment="e", config_yaml="a: 1", fingerprint="f", split_hash="s", created=1.0, elapsed=n
    )


def _checkpoint(folder: Path) -> int:
    found = load_checkpoint(folder)
    return 0 if found is None else int(found[1]["epoch"])


def _replay(folder: Path) -> int:
    found = read_replay(folder)
    return 0 if found is None else int(found.prepared)


def _move(n: int) -> str:
    move = Move(time=n, who="w", model="m", action="promote", before=None, after=n, evidence=("e" * 40,))
    return json.dumps(move.model_dump(mode="json"))


def _tell(folder: Path, n: int) -> None:
    """A journal with one more trial for each version."""
    folder.mkdir(exist_ok=True)
    backend = GroupCommitBackend(folder / "optuna.journal")
    study = optuna.create_study(study_name="s", storage=JournalStorage(backend), load_if_exists=True)
    study.tell(study.ask(), float(n))
    backend.commit()


def _told(folder: Path) -> int:
    backend = GroupCommitBackend(folder / "optuna.journal")
    if not list(backend.read_logs(0)):
        return 0
    study = optuna.create_study(study_name="s", storage=JournalStorage(backend), load_if_exists=True)
    return sum(trial.state.is_finished() for trial in study.trials)


def _timed(n: int) -> CostClass:
    return CostClass("mlp", "cpu", work=n, limit=4 * n)


KEPT = (
    Kept(
        "record",
        lambda f, n: write_record(f, record().model_copy(update={"finished": float(n)})),
        _record,
        refuses=True,
    ),
    Kept("checkpoint", lambda f, n: save_checkpoint(f, {"w": torch.full((200,), float(n))}, {"epoch": n}), _checkpoint),
    Kept("journal", _tell, _told, grows=True),
    Kept(
        "calibration",
        lambda f, n: Calibrations(f / "calibration.json", "cpu").add(_timed(n), {1: 1.0, 4: 9.0}),
        lambda f: next((n for n in (3, 2, 1) if Calibrations(f / "calibration.json", "cpu").gains(_timed(n))), 0),
    ),
    Kept(
        "search state",
        lambda f, n: write_state(f, _state(n)),
        lambda f: 0 if (state := read_state(f)) is None else int(state.elapsed),
        refuses=True,
    ),
    Kept(
        "replay", lambda f, n: write_replay(f, Replay(info=search_info(), prepared=str(n))), _replay, refuses=True
    ),
    Kept("alias ledger", lambda f, n: append_line(f / "l", _move(n)), lambda f: len(history(f / "l", "m")), grows=True),
    Kept(
        "sealed readings",
        lambda f, n: append_line(f / "l", json.dumps({"n": n})),
        lambda f: len(read_lines(f / "l")),
        grows=True,
    ),
)  # fmt: skip


@pytest.fixture(params=KEPT, ids=str)
def kept(request: pytest.FixtureRequest) -> Kept:
    found: Kept = request.param
    return found


def the_file(folder: Path) -> Path:
    (path,) = (path for path in folder.rglob("*") if path.is_file())
    return path


@pytest.mark.parametrize("before", [0, 1])
@pytest.mark.parametrize("share", [0.0, 0.3, 0.6, 0.99])
def test_on_a_full_disk_a_file_stays_what_it_was(kept: Kept, tmp_path: Path, before: int, share: float) -> None:
    twin, folder = tmp_path / "twin", tmp_path / "it"
    for version in range(1, before + 1):
        kept.write(folder, version)
        kept.write(twin, version)
    start = (
        the_file(twin).stat().st_size if before and kept.name in {"journal", "alias ledger", "sealed readings"} else 0
    )
    kept.write(twin, before + 1)
    size = the_file(twin).stat().st_size
    with no_file_beyond(start + round(share * (size - start - 1))), pytest.raises(OSError, match=r"Errno") as full:
        kept.write(folder, before + 1)
    assert full.value.errno in FULL
    assert kept.read(folder) == before
    assert sum(path.is_file() for path in folder.rglob("*")) <= max(before, 1), "nothing half-made is left"
    kept.write(folder, before + 1)
    assert kept.read(folder) == before + 1


@pytest.mark.parametrize("percent", range(0, 100, 5))
def test_a_torn_file_is_what_it_was_or_is_refused(kept: Kept, tmp_path: Path, percent: int) -> None:
    kept.write(tmp_path, 1)
    path = the_file(tmp_path)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) * percent // 100])
    if kept.refuses:
        with pytest.raises(SearchError, match=path.name):
            kept.read(tmp_path)
        return
    assert kept.read(tmp_path) == 0
    kept.write(tmp_path, 1)
    assert kept.read(tmp_path) == 1, "it can be written again"


CHECKSUMMED = [kept for kept in KEPT if kept.name in {"record", "checkpoint"}]


@pytest.mark.parametrize("kept", CHECKSUMMED, ids=str)
def test_a_flipped_bit_is_seen_wherever_it_is(kept: Kept, tmp_path: Path) -> None:
    kept.write(tmp_path, 1)
    path = the_file(tmp_path)
    content = path.read_bytes()
    for position in [0, len(content) - 1, *random.Random(0).sample(range(len(content)), 60)]:
        damaged = bytearray(content)
        damaged[position] ^= 1 << (position % 8)
        path.write_bytes(damaged)
        if kept.refuses:
            with pytest.raises(SearchError, match=path.name):
                kept.read(tmp_path)
        else:
            assert kept.read(tmp_path) == 0


def test_on_a_full_disk_a_package_is_whole_or_not_there(tmp_path: Path) -> None:
    case = make_case(tmp_path / "case", "tabular", "mlp")
    whole = case.write(tmp_path / "whole")
    sizes = sorted({path.stat().st_size for path in whole.rglob("*") if path.is_file()})
    refused = 0
    for number, size in enumerate(sizes):
        target = tmp_path / f"package-{number}"
        try:
            with no_file_beyond(size - 1):
                case.write(target)
        except OSError as full:
            refused += full.errno in FULL
            assert not target.exists(), f"at {size} bytes"
        load_package(case.write(target))
    assert refused >= 3
