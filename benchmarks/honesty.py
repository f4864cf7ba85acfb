"""Are the intervals and the promotions honest? On generated data, where fresh rows can be drawn without end.

    python -m benchmarks honesty [--sets 20] [--draws 40] [--confidence 0.95] [--json FILE]

Each data set is learned once, by the MLP default. Then test sets of 100 to 800 rows are drawn again and again; a
score's interval should hold the score on 200,000 fresh rows in `confidence` of the draws. A/A: the same configuration
with another seed challenges the champion on the same test rows, and should seldom be promoted by ``beats: champion``.
Power: a challenger that was trained on eight times as many rows is better, and should be promoted.
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import NormalDist
from typing import Final

import torch
from torch import Tensor

from pipeline.data.spec import DataSpec, Task
from pipeline.data.tensors import Inputs, Part
from pipeline.evaluation.intervals import compare, score_intervals
from pipeline.objective import Objective, objective_for
from pipeline.training.config import TrainSettings
from pipeline.training.learner import SoloLearner
from pipeline.training.metrics import validation_metrics
from search_spaces import default_trial

TASKS: Final[tuple[Task, ...]] = ("binary", "multiclass", "regression")
N_TEST: Final = (100, 200, 400, 800)
N_TRAIN: Final = (200, 1000)
N_FRESH: Final = 200_000
N_MORE: Final = 8
N_FEATURES: Final = 8
EPOCHS: Final = 8
N_RESAMPLES: Final = 500
CPU: Final = torch.device("cpu")


@dataclass(frozen=True, slots=True)
class World:
    """One generated problem: a random two-layer network's scores with noise, of which rows can always be drawn."""

    spec: DataSpec
    hidden: Tensor
    out: Tensor
    noise: float

    def draw(self, n: int, generator: torch.Generator) -> Part:
        x = torch.randn(n, N_FEATURES, generator=generator)
        scores = torch.tanh(x @ self.hidden) @ self.out
        scores = scores + self.noise * torch.randn(scores.shape, generator=generator)
        if self.spec.task == "regression":
            return Part(Inputs(x), scores[:, 0])
        return Part(Inputs(x), scores.argmax(1))


def make_world(number: int) -> tuple[World, int, int]:
    """The world with this number, and how many rows its training and its tests have."""
    generator = torch.Generator().manual_seed(number)
    task = TASKS[number % len(TASKS)]
    labels = {"binary": ("no", "yes"), "multiclass": ("a", "b", "c", "d"), "regression": ()}[task]
    edges = tuple(torch.linspace(-2.5, 2.5, 9).tolist())
    spec = DataSpec(
        kind="tabular", task=task, n_numeric=N_FEATURES, bins=(edges,) * N_FEATURES, labels=labels, n_train=1000,
        n_validation=1,
    )  # fmt: skip
    hidden = torch.randn(N_FEATURES, 16, generator=generator) / N_FEATURES**0.5
    out = torch.randn(16, max(1, len(labels)), generator=generator) / 4
    noise = float(0.1 + 0.9 * torch.rand(1, generator=generator))
    return World(spec, hidden, out, noise), N_TRAIN[number % 2], N_TEST[number // 2 % len(N_TEST)]


def learned(world: World, train: Part, seed: int) -> SoloLearner:
    """The MLP default, trained for a few epochs."""
    metric = objective_for("auto", world.spec.task).metric
    settings = TrainSettings(metric=metric, max_epochs=EPOCHS, patience=EPOCHS)
    learner = SoloLearner(default_trial("mlp", world.spec, seed), train, world.spec, settings, CPU)
    for _ in range(EPOCHS):
        learner.train_epoch()
    return learner


@dataclass
class Tally:
    """Hits of tries."""

    hits: int = 0
    tries: int = 0

    def add(self, hit: bool) -> None:
        self.hits, self.tries = self.hits + hit, self.tries + 1

    def __str__(self) -> str:
        return f"{self.hits / max(1, self.tries):.1%} of {self.tries}"


def main(arguments: Sequence[str]) -> None:
    """Count, and print two Markdown tables."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks honesty", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--sets", type=int, default=20)
    parser.add_argument("--draws", type=int, default=40)
    parser.add_argument("--confidence", type=float, default=0.95)
    parser.add_argument("--json", type=Path)
    chosen = parser.parse_args(arguments)
    torch.set_num_threads(1)
    covered: dict[str, Tally] = defaultdict(Tally)
    moved: dict[str, Tally] = defaultdict(Tally)
    gains: list[float] = []
    for number in range(chosen.sets):
        gains.append(_one(number, chosen.draws, chosen.confidence, covered, moved))
        print(f"set {number}: {covered['all']} covered, {moved['A/A, promoted']} A/A promoted", flush=True)
    print(f"\n| interval of | holds the fresh score, at {chosen.confidence:.0%} |\n|---|---|")
    for name, tally in covered.items():
        print(f"| {name} | {tally} |")
    print(f"\n| `beats: champion` at confidence {chosen.confidence:g} | share of comparisons |\n|---|---|")
    for name, tally in moved.items():
        print(f"| {name} | {tally} |")
    median = sorted(gains)[len(gains) // 2]
    print(f"\nMedian true gain of the better one, in standard errors of a comparison: {median:.1f}")
    if chosen.json:
        found = {name: [t.hits, t.tries] for name, t in (covered | moved).items()}
        chosen.json.write_text(json.dumps(found | {"gains": gains}, indent=1))


def _one(number: int, draws: int, confidence: float, covered: dict[str, Tally], moved: dict[str, Tally]) -> float:
    """Count on one data set; the better challenger's true gain in standard errors."""
    world, n_train, n_test = make_world(number)
    generator = torch.Generator().manual_seed(10_000 + number)
    objective = objective_for("auto", world.spec.task)
    more = world.draw(N_MORE * n_train, generator)
    train = more.take(slice(0, n_train))
    champion, twin = learned(world, train, 0), learned(world, train, 1)
    better = learned(world, more, 0)
    fresh = world.draw(N_FRESH, generator)
    truth = {name: _scores(model, fresh, world.spec) for name, model in (("champion", champion), ("twin", twin))}
    truth["better"] = _scores(better, fresh, world.spec)
    sign = 1 if objective.direction == "maximize" else -1
    gain = {n: sign * (truth[n][objective.metric] - truth["champion"][objective.metric]) for n in ("twin", "better")}
    width = 0.0
    for draw in range(draws):
        test = world.draw(n_test, generator)
        outputs = {
            "champion": champion.outputs(test)[0],
            "twin": twin.outputs(test)[0],
            "better": better.outputs(test)[0],
        }
        how = {"confidence": confidence, "n_resamples": N_RESAMPLES, "seed": draw}
        for name, interval in score_intervals(outputs["champion"], test.target, world.spec, **how).items():
            held = interval.low <= truth["champion"][name] <= interval.high
            covered["all"].add(held)
            covered[name].add(held)
        promoted = {name: _promoted(outputs, name, test, world.spec, objective, confidence, draw) for name in gain}
        moved["A/A, promoted"].add(promoted["twin"][0])
        moved["A/A, promoted though worse on fresh rows"].add(promoted["twin"][0] and gain["twin"] <= 0)
        if gain["better"] > 0:
            moved["better one, promoted"].add(promoted["better"][0])
        width += promoted["better"][1] / draws
    return gain["better"] / max(width, 1e-12)


def _promoted(
    outputs: dict[str, Tensor],
    name: str,
    test: Part,
    spec: DataSpec,
    objective: Objective,
    confidence: float,
    seed: int,
) -> tuple[bool, float]:
    """What the gate ``{beats: champion, confidence: ...}`` says, and the standard error of the difference."""
    seen = compare(
        outputs[name], outputs["champion"], test.target, spec, objective, confidence=confidence,
        n_resamples=N_RESAMPLES, seed=seed,
    )  # fmt: skip
    passed = seen.difference.value > 0 and seen.probability_better > confidence
    reach = 2 * NormalDist().inv_cdf((1 + confidence) / 2)
    return passed, (seen.difference.high - seen.difference.low) / reach


def _scores(model: SoloLearner, part: Part, spec: DataSpec) -> dict[str, float]:
    return {k: float(v[0]) for k, v in validation_metrics(model.outputs(part), part.target, spec).items()}
