"""A trial's record is either whole or refused, and trials are found by number."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from pipeline.errors import SearchError
from pipeline.records import RECORD, read_record, read_records, trial_directory, write_record
from tests.tracking.records import record


def test_a_record_comes_back_as_it_was(tmp_path: Path) -> None:
    for state in ("COMPLETE", "PRUNED", "FAIL"):
        written = record(state=state)
        write_record(tmp_path / state, written)
        assert read_record(tmp_path / state) == written


def test_an_unfinished_trial_has_none(tmp_path: Path) -> None:
    assert read_record(tmp_path) is None
    assert list(read_records(tmp_path)) == []


def test_a_record_that_was_changed_by_one_value_is_refused(tmp_path: Path) -> None:
    write_record(tmp_path, record(n_params=4242))
    path = tmp_path / RECORD
    whole = path.read_bytes()
    assert json.loads(whole)["record"]["n_params"] == 4242
    path.write_bytes(whole.replace(b'"n_params":4242', b'"n_params":4243'))
    assert path.read_bytes() != whole
    with pytest.raises(SearchError, match=r"does not match its checksum; restore it, or delete it"):
        read_record(tmp_path)


@pytest.mark.parametrize(
    "content", [b"", b"{", b"\xff\xfe", b"[]", b"null", b"{}", b'{"record": {}}', b'{"sha256": ""}']
)
def test_what_is_no_record_is_refused_with_its_path(tmp_path: Path, content: bytes) -> None:
    (tmp_path / RECORD).write_bytes(content)
    with pytest.raises(SearchError, match=RECORD):
        read_record(tmp_path)


def test_a_whole_record_of_another_version_is_refused_as_such(tmp_path: Path) -> None:
    write_record(tmp_path, record())
    path = tmp_path / RECORD
    old = path.read_bytes().split(b'"record": ', 1)[1].removesuffix(b"}\n")
    new = old.replace(b"{", b'{"from_the_future":1,', 1)
    digests = [hashlib.sha256(body).hexdigest().encode() for body in (old, new)]
    path.write_bytes(path.read_bytes().replace(old, new).replace(*digests))
    with pytest.raises(SearchError, match="another version"):
        read_record(tmp_path)


def test_trials_come_by_number(tmp_path: Path) -> None:
    for number in (10, 2, 100_000, 0):
        write_record(trial_directory(tmp_path, number), record(number))
    trial_directory(tmp_path, 5).mkdir()  # unfinished
    assert [found.number for found in read_records(tmp_path)] == [0, 2, 10, 100_000]


def test_the_best_epochs_metrics_are_those_of_the_weights(tmp_path: Path) -> None:
    assert record().best() == {"accuracy": pytest.approx(0.7), "f1_macro": 0.3}
    assert record(state="FAIL").best() == {}
    assert record(7).label == "#007 mlp"
