"""Promoters as processes that can be killed after every write. They are forked from one that has opened and loaded
something else before: fifty of them cost one import of MLflow, and share no connection.

``python -m tests.registry.promoters`` with its work as JSON; what came of it is printed as JSON.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from mlflow import MlflowClient

from pipeline.errors import ChampionMovedError
from pipeline.packaging import load_package
from pipeline.registry import ledger as books
from pipeline.registry import promotion
from pipeline.registry.base import ModelVersion
from pipeline.registry.ledger import history
from pipeline.registry.loading import load_version
from pipeline.registry.mlflow import MLflowRegistry
from pipeline.registry.promotion import promote, rollback

SCORE: Final = "test.score"
CLIENT_WRITES: Final = (
    "create_registered_model",
    "create_model_version",
    "set_registered_model_alias",
    "set_model_version_tag",
)
WRITES: Final = ((books, "append_line"), (books, "write_atomic"), (promotion, "clear_intent"))
MOST_WRITES: Final = 12
"""Of one promotion, about: after which of them a racer is killed is drawn."""
AT_ONCE: Final = 4
PACE_S: Final = 0.1
"""Better candidates come later, about, so that many of them promote before the best one does."""


class Reaper:
    """Kills its own process after its n-th write, counted from 0."""

    def __init__(self, at: int) -> None:
        self._left = at
        for owner, name in (*((MlflowClient, name) for name in CLIENT_WRITES), *WRITES):
            setattr(owner, name, self._watched(getattr(owner, name)))

    def _watched(self, write: Callable[..., Any]) -> Callable[..., Any]:
        def watched(*args: Any, **kwargs: Any) -> Any:
            result = write(*args, **kwargs)
            if self._left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            self._left -= 1
            return result

        return watched


@dataclass(frozen=True, slots=True)
class Promoter:
    """Somebody with candidates, who compares with the champion as it is and asks again when it has moved."""

    uri: str
    state: str
    runs: list[str]

    @property
    def ledger(self) -> Path:
        return Path(self.state) / "ledger.jsonl"

    def promote(self, name: str, score: int) -> None:
        """Make the candidate the champion unless a better one is."""
        registry = MLflowRegistry(self.uri, Path(self.state))
        while True:
            champion = registry.champion(name)
            if champion is not None and int(champion.tags[SCORE]) > score:
                return
            try:
                promote(
                    registry, name, self.runs[score % len(self.runs)], f"search/{score}", {SCORE: str(score)},
                    expected=None if champion is None else champion.version, action="promote",
                    evidence=[f"score {score}"], verify=lambda v: self._verify(registry, v), ledger=self.ledger,
                )  # fmt: skip
                return
            except ChampionMovedError:
                continue

    def rollback(self, name: str) -> None:
        registry = MLflowRegistry(self.uri, Path(self.state))
        rollback(registry, name, verify=lambda v: self._verify(registry, v), ledger=self.ledger, reason="bad")

    def view(self, name: str) -> dict[str, Any]:
        """The champion as it is now, loaded, and the ledger's moves."""
        registry = MLflowRegistry(self.uri, Path(self.state))
        champion = registry.champion(name)
        if champion is not None:
            self._verify(registry, champion)
        return {
            "champion": None if champion is None else champion.version,
            "score": None if champion is None else int(champion.tags[SCORE]),
            "aliases": {alias: v.version for v in registry.versions(name) for alias in v.aliases},
            "versions": {str(v.version): int(v.tags[SCORE]) for v in registry.versions(name)},
            "promoted": "automl.promoted" in champion.tags if champion is not None else None,
            "moves": [[m.before, m.after, m.action] for m in history(self.ledger, name)],
        }

    @staticmethod
    def _verify(registry: MLflowRegistry, version: ModelVersion) -> None:
        with tempfile.TemporaryDirectory() as scratch:
            load_version(registry, version, Path(scratch))


def forked(work: Callable[[], Any]) -> tuple[int, Callable[[], Any]]:
    """Do `work` in a child; its pid, and what waits for it: its result, or None where it was killed."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.write(writing, json.dumps({"value": work()}).encode())
            os._exit(0)
        except BaseException as error:
            os.write(writing, json.dumps({"error": repr(error)}).encode())
            os._exit(1)
    os.close(writing)

    def wait() -> Any:
        with os.fdopen(reading, "rb") as pipe:
            said = pipe.read()
        status = os.waitpid(pid, 0)[1]
        if os.WIFSIGNALED(status):
            assert os.WTERMSIG(status) == signal.SIGKILL, status
            return None
        answer = json.loads(said)
        assert "error" not in answer, answer
        return answer

    return pid, wait


def race(promoter: Promoter, name: str, n: int, kills: bool, seed: int) -> dict[str, Any]:
    """`n` promoters at once, candidate i with score i; those that are killed come again until they are done."""
    rng = random.Random(seed)

    def one(score: int, kill_at: int | None) -> None:
        if kill_at is not None:
            Reaper(kill_at)
        time.sleep(score * PACE_S * (0.5 + random.Random(seed + score).random()))
        promoter.promote(name, score)

    waiting = list(range(n))
    rng.shuffle(waiting)
    killed = 0
    for attempt in range(100):
        points = {score: rng.randrange(MOST_WRITES) if kills and attempt < 3 else None for score in waiting}
        children = {score: forked(lambda s=score, at=at: one(s, at))[1] for score, at in points.items()}
        waiting = [score for score, wait in children.items() if wait() is None]
        killed += len(waiting)
        if not waiting:
            break
    answer: dict[str, Any] = forked(lambda: promoter.view(name))[1]()["value"]
    return answer | {"killed": killed}


def steps(promoter: Promoter, action: str, another: bool) -> list[dict[str, Any]]:
    """Kill an action after each of its writes, one model each; then do it again (after `another` promoter has been).
    One entry a write, and a last one for the action that nobody killed."""
    seen: list[dict[str, Any]] = []
    while not any(step["survived"] for step in seen):
        wave = range(len(seen), len(seen) + AT_ONCE)
        killed = [forked(lambda at=at: _begin(promoter, action, at, another))[1] for at in wave]
        survived = [wait() is not None for wait in killed]
        mended = [forked(lambda at=at: _mend(promoter, action, at, another))[1] for at in wave]
        views = [wait()["value"] for wait in mended]
        seen += [{"survived": lives, "killed": k, "healed": h} for lives, (k, h) in zip(survived, views, strict=True)]
    return seen[: [step["survived"] for step in seen].index(True) + 1]


def _begin(promoter: Promoter, action: str, at: int, another: bool) -> None:
    name = _model(action, at, another)
    promoter.promote(name, 1)
    if action == "rollback":
        promoter.promote(name, 2)
    Reaper(at)
    if action == "rollback":
        promoter.rollback(name)
    else:
        promoter.promote(name, 5)


def _mend(promoter: Promoter, action: str, at: int, another: bool) -> list[dict[str, Any]]:
    name = _model(action, at, another)
    before = promoter.view(name)
    if another:
        promoter.promote(name, 7)
    elif action == "promote":
        promoter.promote(name, 5)
    else:
        promotion.settle(MLflowRegistry(promoter.uri, Path(promoter.state)), name, promoter.ledger)
    return [before, promoter.view(name)]


def _model(action: str, at: int, another: bool) -> str:
    return f"{action}-{at}" + ("-other" if another else "")


if __name__ == "__main__":
    given = json.loads(sys.argv[1])
    MLflowRegistry(given["warm"], Path(given["state"])).champion("none")
    load_package(Path(given["package"]))
    who = Promoter(given["uri"], given["state"], given["runs"])
    does = {"race": race, "steps": steps}
    print(json.dumps([does[what](who, **arguments) for what, arguments in given["tasks"]]))
