"""Telling people: what they get, and that nothing which goes wrong there reaches further than a line of log."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from flows.notify import notify
from pipeline.config import NotifyConfig
from pipeline.registry.ledger import new_move
from tests.flows.webhook import listening

LINE = "promoted v7: roc_auc 0.9172 [0.9125, 0.9214]"


def told(event: str = "promoted", **config: Any) -> list[str]:
    return list(notify(NotifyConfig.model_validate(config), event, "adult", LINE))


def test_a_command_gets_the_line_the_event_and_the_experiment(tmp_path: Path) -> None:
    script = f'echo "$AUTOML_EVENT $AUTOML_EXPERIMENT $(cat)" > {tmp_path}/told'
    assert told(command=["sh", "-c", script]) == []
    assert (tmp_path / "told").read_text() == f"promoted adult {LINE}\n"


def test_a_webhook_gets_them_as_json(monkeypatch: pytest.MonkeyPatch) -> None:
    with listening() as (url, got):
        monkeypatch.setenv("HOOK", url)
        assert told(webhook="${HOOK}") == []
    assert got == [{"event": "promoted", "experiment": "adult", "text": LINE}]


def test_a_move_of_the_champion_is_told_with_its_version_evidence_and_author_and_secrets_are_masked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "hunter2hunter2")
    move = new_move("adult", "promote", 6, 7, ["beats v6 by hunter2hunter2"])
    script = f'echo "$AUTOML_MODEL $AUTOML_PREVIOUS $AUTOML_VERSION $AUTOML_ACTION $(cat)" > {tmp_path}/told'
    with listening() as (url, got):
        config = NotifyConfig.model_validate({"webhook": url, "command": ["sh", "-c", script]})
        assert list(notify(config, "promoted", "adult", "promoted by hunter2hunter2", move)) == []
    [said] = got
    assert (said["model"], said["version"], said["previous"], said["action"]) == ("adult", 7, 6, "promote")
    assert said["who"] == move.who != ""
    assert len(said["evidence"]) == 1
    assert (tmp_path / "told").read_text().startswith("adult 6 7 promote promoted by ")
    assert "hunter2" not in json.dumps(got) + (tmp_path / "told").read_text()


def test_only_the_named_events_are_told(tmp_path: Path) -> None:
    command = ["touch", str(tmp_path / "told")]
    assert told("skipped", command=command) == []
    assert told("finished", command=command, on=["failed"]) == []
    assert not (tmp_path / "told").exists()


@pytest.mark.parametrize(
    ("config", "problem"),
    [
        ({"command": ["sh", "-c", "echo no mail today >&2; exit 3"]}, "'sh' ended with exit code 3: no mail today"),
        ({"command": ["no-such-program"]}, "'no-such-program' did not start: No such file or directory"),
        ({"command": ["sleep", "60"], "timeout": 0.2}, "'sleep' took longer than 0.2 s"),
        ({"webhook": "http://127.0.0.1:9/secret"}, "webhook cannot be reached"),
        ({"webhook": "${NO_SUCH_HOOK}"}, "needs the environment variable NO_SUCH_HOOK"),
        ({"webhook": "http://"}, "webhook"),
    ],
)
def test_what_goes_wrong_is_one_line_without_the_address(config: dict[str, Any], problem: str) -> None:
    [said] = told(**config)
    assert problem in said
    assert "secret" not in said


@pytest.mark.parametrize(("status", "delay", "problem"), [(500, 0, "answered 500"), (200, 2, "took longer than 0.3 s")])
def test_a_webhook_that_refuses_or_hangs_is_said(status: int, delay: float, problem: str) -> None:
    with listening(status, delay) as (url, _):
        [said] = told(webhook=url, timeout=0.3)
    assert problem in said
    assert "secret" not in said
