"""A variant of a model passes where the model's own promise and the experiment's gates hold for it, and only there."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from pipeline.config import Gate
from pipeline.data.dataset import Dataset, Features
from pipeline.data.identity import KnownRows
from pipeline.data.sealed import seal
from pipeline.data.slicing import Slicing
from pipeline.data.spec import DataSpec
from pipeline.evaluation.champion import Champion
from pipeline.evaluation.intervals import Comparison, Interval, Resampling
from pipeline.evaluation.turns import BATCHES, SECONDS, SINGLE, time_in_turn
from pipeline.evaluation.variant import VariantReading, keeps_promise, read_variant
from pipeline.objective import METRICS
from tests.tracking.records import record

N_ROWS = 200
SPEC = DataSpec(
    kind="image", task="binary", channels=1, height=1, width=1, labels=("no", "yes"), n_train=1, n_validation=1
)
PIXELS = np.arange(N_ROWS).reshape(-1, 1, 1, 1).astype(float)
FLOOR, CEILING, BEATS = Gate(metric="accuracy", min=0.9), Gate(metric="size_mb", max=1.0), Gate(beats="champion")
SECOND = 2


@dataclass(frozen=True, slots=True)
class Wrong:
    """A model that says no to even pixels and yes to odd ones, and the contrary for the first `n` of them."""

    n: int
    spec: DataSpec = SPEC
    temperature: float = 1.0
    conformal: None = None

    def outputs(self, features: Features) -> Tensor:
        assert isinstance(features, np.ndarray)
        pixels = torch.from_numpy(features[:, 0, 0, 0]).long()
        return torch.nn.functional.one_hot((pixels + (pixels < self.n).long()) % 2, 2).double()


def read(
    folder: Path, variant: int, original: int, gates: list[Gate], former: int | None = None, n_bytes: int = 500_000
) -> VariantReading:
    """Both by the number of rows on which they are wrong; the former champion, too."""
    target = np.array(["no", "yes"], dtype=object)[np.arange(N_ROWS) % 2]
    sealed = seal(Dataset("image", PIXELS, target, "made here"), folder / "sealed")
    return read_variant(
        record(), Wrong(variant), Wrong(original), SECOND, sealed, METRICS["accuracy"], gates,
        former=None if former is None else Champion(1, Wrong(former), None),
        trained_on=KnownRows.of(PIXELS[:0]), slicing=Slicing(target="answer", labels=SPEC.labels),
        how=Resampling(n=500),
        reason="int8 variant", ledger=folder / "readings.jsonl", n_bytes=n_bytes,
    )  # fmt: skip


def reasons(folder: Path) -> list[str]:
    return [json.loads(line)["reason"] for line in (folder / "readings.jsonl").read_text().splitlines()]


def test_both_are_scored_on_all_rows_and_compared_in_pairs(tmp_path: Path) -> None:
    reading = read(tmp_path, variant=12, original=10, gates=[FLOOR])
    assert reading.original["accuracy"].value == pytest.approx(0.95)
    assert reading.variant["accuracy"].value == pytest.approx(0.94)
    assert reading.difference is not None
    assert reading.difference.difference.value == pytest.approx(-0.01)
    assert reading.difference.difference.high <= 0, "it is right nowhere where the original is wrong"
    assert reading.refused == ()
    assert reasons(tmp_path) == ["int8 variant against v2"]
    assert VariantReading.model_validate_json(reading.model_dump_json()) == reading


@pytest.mark.parametrize(
    ("variant", "gates", "n_bytes", "failed"),
    [
        (10, [], 1, []),
        (60, [], 1, ["keeps accuracy"]),  # no gate of the file's own, and yet
        (60, [BEATS], 1, ["keeps accuracy"]),  # nor does a first champion let everything pass
        (12, [Gate(metric="accuracy", min=0.945)], 1, ["accuracy >="]),
        (12, [Gate(slice="answer", metric="accuracy", min=0.945)], 1, ["accuracy >="]),
        (10, [FLOOR, CEILING], 2_000_000, ["size_mb <="]),
        (60, [FLOOR, CEILING], 2_000_000, ["keeps accuracy", "accuracy >=", "size_mb <="]),
    ],
)
def test_it_is_refused_by_what_it_breaks(
    tmp_path: Path, variant: int, gates: list[Gate], n_bytes: int, failed: list[str]
) -> None:
    refused = read(tmp_path, variant, original=10, gates=gates, n_bytes=n_bytes).refused
    assert [gate.gate.startswith(start) for gate, start in zip(refused, failed, strict=True)] == [True] * len(failed)


@pytest.mark.parametrize(("former", "passed"), [(40, True), (11, False)])
def test_it_has_to_beat_the_champion_that_its_original_had_to_beat(tmp_path: Path, former: int, passed: bool) -> None:
    reading = read(tmp_path, variant=12, original=10, gates=[BEATS], former=former)
    assert [gate.passed for gate in reading.gates] == [True, passed]
    assert "to v1" in reading.gates[1].evidence
    assert reasons(tmp_path) == ["int8 variant against v2", "int8 variant against v1"]


def test_a_former_champion_is_read_for_that_gate_only(tmp_path: Path) -> None:
    read(tmp_path, variant=12, original=10, gates=[FLOOR], former=40)
    assert reasons(tmp_path) == ["int8 variant against v2"]


@pytest.mark.parametrize(
    ("metric", "low", "passed"),
    [("accuracy", -0.04, True), ("accuracy", -0.06, False), ("log_loss", -0.01, True), ("log_loss", -0.03, False)],
)
def test_the_room_is_what_the_originals_interval_leaves_on_the_worse_side(
    metric: str, low: float, passed: bool
) -> None:
    """0.05 below an accuracy, but 0.02 above a loss."""
    original = Interval(value=0.5, low=0.45, high=0.52, confidence=0.95)
    difference = Interval(value=0.0, low=low, high=0.1, confidence=0.95)
    gate = keeps_promise(original, Comparison(difference=difference, probability_better=0.5), METRICS[metric], 2)
    assert gate.passed is passed
    assert not keeps_promise(original, None, METRICS[metric], 2).passed, "what is undefined passes nothing"


def test_two_forms_are_timed_in_turn_on_the_same_inputs() -> None:
    calls: list[tuple[str, int]] = []

    def form(name: str) -> object:
        return lambda rows: calls.append((name, rows))

    speeds = time_in_turn({"a": form("a"), "b": form("b")}, [1, 2, 3], 1024)  # type: ignore[dict-item]
    assert set(speeds) == {"a", "b"}
    assert all(s.latency_ms_p50 <= s.latency_ms_p95 and s.rows_per_s > 0 for s in speeds.values())
    assert calls[0::2] == [("a", rows) for _, rows in calls[1::2]], "each input twice in a row, a first"
    assert len(calls) >= 2 * (SINGLE[1] + BATCHES[1]), "what takes no time is timed as often as it may be"


def test_a_slow_form_is_timed_for_about_half_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    monkeypatch.setattr("pipeline.evaluation.turns.time", clock)
    speed = time_in_turn({"slow": lambda seconds: clock.wait(seconds)}, [0.02], 0.1, n_rows=10)["slow"]
    assert speed.latency_ms_p50 == pytest.approx(20)
    assert speed.latency_ms_p95 == pytest.approx(20)
    assert speed.rows_per_s == pytest.approx(100)
    assert clock.now < 4 * SECONDS


@dataclass(slots=True)
class Clock:
    """Time passes only when it is told to."""

    now: float = 0.0

    def perf_counter(self) -> float:
        return self.now

    def wait(self, seconds: float) -> None:
        self.now += seconds
