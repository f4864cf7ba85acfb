"""The group-commit journal: Optuna's own backend reads it, and a torn tail costs nothing that was committed."""

from __future__ import annotations

from pathlib import Path

import optuna
import pytest
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

from pipeline.search.journal import GroupCommitBackend

optuna.logging.set_verbosity(optuna.logging.WARNING)


def study_with(path: Path, n_trials: int) -> tuple[optuna.Study, GroupCommitBackend]:
    backend = GroupCommitBackend(path)
    study = optuna.create_study(
        study_name="s",
        storage=JournalStorage(backend),
        load_if_exists=True,
        sampler=optuna.samplers.RandomSampler(seed=0),
    )
    for _ in range(n_trials):
        trial = study.ask()
        x = trial.suggest_float("x", 0, 1)
        trial.report(x, 1)
        study.tell(trial, x)
    return study, backend


def values(study: optuna.Study) -> list[float]:
    return [trial.value or 0.0 for trial in study.trials if trial.state.is_finished()]


def test_nothing_is_on_disk_before_the_commit_and_all_of_it_after(tmp_path: Path) -> None:
    path = tmp_path / "optuna.journal"
    study, backend = study_with(path, 5)
    assert not path.exists()
    backend.commit()
    theirs = optuna.load_study(study_name="s", storage=JournalStorage(JournalFileBackend(str(path))))
    assert values(theirs) == values(study)


def test_a_torn_tail_is_cut_off_at_every_byte(tmp_path: Path) -> None:
    path = tmp_path / "optuna.journal"
    study, backend = study_with(path, 3)
    backend.commit()
    whole = path.read_bytes()
    study.tell(study.ask(), 0.5)
    backend.commit()
    longer = path.read_bytes()
    for cut in range(len(whole), len(longer), 7):
        path.write_bytes(longer[:cut])
        reopened, again = study_with(path, 1)
        again.commit()
        assert values(reopened)[:3] == values(study)[:3]
        assert values(optuna.load_study(study_name="s", storage=JournalStorage(JournalFileBackend(str(path)))))[:3]


def test_a_failed_commit_leaves_the_file_as_it_was_and_keeps_the_entries(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "optuna.journal"
    study, backend = study_with(path, 2)
    backend.commit()
    before = path.read_bytes()
    study.tell(study.ask(), 0.25)

    def full(_handle: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("pipeline.search.journal.os.fsync", full)
        with pytest.raises(OSError, match="No space"):
            backend.commit()
    assert path.read_bytes() == before
    backend.commit()
    assert values(optuna.load_study(study_name="s", storage=JournalStorage(JournalFileBackend(str(path))))) == values(
        study
    )
