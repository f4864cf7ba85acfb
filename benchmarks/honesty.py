"""Are the intervals and the promotions honest? Where fresh rows can be drawn without end, or nearly.

    python -m benchmarks honesty [--sets 20] [--draws 40] [--confidence 0.95] [--data FOLDER] [--json FILE]

Each data set is learned by the MLP default, from a few hundred rows. Then test sets of 100 to 800 rows are drawn again
and again; a score's interval should hold the score on all fresh rows in `confidence` of the draws. Fresh rows are
200,000 of a generated problem or, of a real table in FOLDER, all that no model was trained on. A/A: models that differ
in their seed challenge each other on the same test rows, and should seldom pass ``beats: champion``. Power: a
challenger that was trained on eight times the rows should pass, the more surely the larger its true lead. Both are
judged twice: as if the challenger had been trained once, and over three seeds.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import NormalDist
from typing import Final

import torch
from torch import Tensor

from pipeline.data.config import DataConfig
from pipeline.data.prepare import prepare
from pipeline.data.spec import DataSpec, Task
from pipeline.data.tensors import Inputs, Part
from pipeline.evaluation.gates import beats
from pipeline.evaluation.intervals import Comparison, Resampling, compare, score_intervals
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
N_TWINS: Final = 6
"""Trainings of one configuration. Each challenges another one, with the two after it as its further seeds."""
N_SEEDS: Final = 3
EPOCHS: Final = 8
N_RESAMPLES: Final = 1000
CPU: Final = torch.device("cpu")
REAL: Final = {
    "adult/train.csv": "class",
    "california_housing/housing.csv": "median_house_value",
    "diamonds/diamonds.csv": "price",
    "letter/train.csv": "lettr",
}
"""Tables with rows enough to play the world, and their targets."""
EQUAL: Final = 0.5
SIZES: Final = (0.0, 1.0, 2.0, 3.0, 4.0)
"""Lower ends of the classes of a true lead, in standard errors of the comparison."""


@dataclass(frozen=True, slots=True)
class World:
    """A problem: rows to train on, all fresh rows together, and how many of them a test has."""

    name: str
    spec: DataSpec
    train: Part
    """Of the better model; the champion has the first `n_train`."""
    fresh: Part
    n_train: int
    n_test: int

    def draw(self, generator: torch.Generator) -> Part:
        """A test of fresh rows."""
        rows = torch.randint(len(self.fresh), (self.n_test,), generator=generator)
        return Part(self.fresh.inputs.take(rows), self.fresh.target[rows])


def generated(number: int) -> World:
    """A random two-layer network's scores with noise."""
    generator = torch.Generator().manual_seed(number)
    task, n_train = TASKS[number % len(TASKS)], N_TRAIN[number % 2]
    labels = {"binary": ("no", "yes"), "multiclass": ("a", "b", "c", "d"), "regression": ()}[task]
    edges = tuple(torch.linspace(-2.5, 2.5, 9).tolist())
    spec = DataSpec(
        kind="tabular", task=task, n_numeric=N_FEATURES, bins=(edges,) * N_FEATURES, labels=labels, n_train=1000,
        n_validation=1,
    )  # fmt: skip
    hidden = torch.randn(N_FEATURES, 16, generator=generator) / N_FEATURES**0.5
    out = torch.randn(16, max(1, len(labels)), generator=generator) / 4
    noise = float(0.1 + 0.9 * torch.rand(1, generator=generator))

    def rows(n: int) -> Part:
        x = torch.randn(n, N_FEATURES, generator=generator)
        scores = torch.tanh(x @ hidden) @ out
        scores = scores + noise * torch.randn(scores.shape, generator=generator)
        return Part(Inputs(x), scores[:, 0] if task == "regression" else scores.argmax(1))

    n_test = N_TEST[number // 2 % len(N_TEST)]
    return World(f"generated {number}", spec, rows(N_MORE * n_train), rows(N_FRESH), n_train, n_test)


def real(folder: Path, number: int) -> World:
    """A table of which most rows stay fresh."""
    file, target = list(REAL.items())[number]
    config = DataConfig.model_validate({"source": str(folder / file), "target": target})
    with tempfile.TemporaryDirectory() as store:
        data = prepare(config, Path.cwd(), Path(store)).development()
        n_train = N_TRAIN[number % 2]
        order = torch.randperm(len(data.train), generator=torch.Generator().manual_seed(number))
        learned, rest = order[: N_MORE * n_train], order[N_MORE * n_train :]
        train, fresh = (Part(data.train.inputs.take(rows), data.train.target[rows]) for rows in (learned, rest))
        return World(file.split("/")[0], data.spec, train, fresh, n_train, N_TEST[number % len(N_TEST)])


def worlds(n_sets: int, folder: Path | None) -> Iterator[World]:
    """`n_sets` problems, real ones first where there is a folder of them."""
    n_real = 0 if folder is None else min(len(REAL), n_sets)
    for number in range(n_real):
        assert folder is not None
        yield real(folder, number)
    for number in range(n_sets - n_real):
        yield generated(number)


def learned(world: World, n_rows: int, seed: int) -> SoloLearner:
    """The MLP default, trained for a few epochs."""
    metric = objective_for("auto", world.spec.task).metric
    settings = TrainSettings(metric=metric, max_epochs=EPOCHS, patience=EPOCHS)
    config = default_trial("mlp", world.spec, seed)
    learner = SoloLearner(config, world.train.take(slice(0, n_rows)), world.spec, settings, CPU)
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


@dataclass
class Passed:
    """Who passes the gate, by whether the challenger was trained once or over seeds."""

    once: Tally = field(default_factory=Tally)
    over_seeds: Tally = field(default_factory=Tally)

    def add(self, seen: Comparison, confidence: float) -> None:
        self.once.add(beats(seen.model_copy(update={"over_seeds": None}), confidence))
        self.over_seeds.add(beats(seen, confidence))

    def __str__(self) -> str:
        return f"{self.once} | {self.over_seeds}"


@dataclass(frozen=True, slots=True)
class Reading:
    """What all models put out on one test."""

    outputs: tuple[Tensor, ...]
    target: Tensor
    spec: DataSpec
    objective: Objective
    how: Resampling

    def versus(self, challengers: Sequence[int], champion: int) -> Comparison:
        """The first of the challengers, the others its further seeds."""
        first, *again = (self.outputs[k] for k in challengers)
        return compare(first, self.outputs[champion], self.target, self.spec, self.objective, self.how, again)


@dataclass
class Counts:
    """What was counted over all data sets."""

    covered: dict[str, Tally] = field(default_factory=lambda: defaultdict(Tally))
    twins: Passed = field(default_factory=Passed)
    """A/A."""
    equal: Passed = field(default_factory=Passed)
    """Of those, the pairs whose true difference is under `EQUAL` standard errors: trainings differ, too."""
    worse: Passed = field(default_factory=Passed)
    """Of those, the challengers that are truly worse."""
    power: dict[float, Passed] = field(default_factory=lambda: defaultdict(Passed))
    """By the lower end of the true lead, in standard errors."""

    def add(self, world: World, seed: int, draws: int, confidence: float) -> None:
        """Learn one data set, and draw its tests."""
        generator = torch.Generator().manual_seed(seed)
        objective = objective_for("auto", world.spec.task)
        twins = [learned(world, world.n_train, k) for k in range(N_TWINS)]
        better = [learned(world, len(world.train), k) for k in range(N_SEEDS)]
        truths = [_scores(model, world.fresh, world.spec) for model in (*twins, *better)]
        sign = 1 if objective.direction == "maximize" else -1
        truth = [sign * scores[objective.metric] for scores in truths]
        leads: list[Comparison] = []
        for draw in range(draws):
            test = world.draw(generator)
            outputs = tuple(model.outputs(test)[0] for model in (*twins, *better))
            read = Reading(outputs, test.target, world.spec, objective, Resampling(confidence, N_RESAMPLES, draw))
            for name, interval in score_intervals(outputs[0], test.target, world.spec, read.how).items():
                held = interval.low <= truths[0][name] <= interval.high
                self.covered["all"].add(held)
                self.covered[name].add(held)
            for one in range(N_TWINS):
                seeds = [(one + k) % N_TWINS for k in range(N_SEEDS)]
                champion = (one + N_SEEDS) % N_TWINS
                seen = read.versus(seeds, champion)
                lead = (truth[one] - truth[champion]) / max(_standard_error(seen), 1e-12)
                self.twins.add(seen, confidence)
                if abs(lead) < EQUAL:
                    self.equal.add(seen, confidence)
                if lead <= 0:
                    self.worse.add(seen, confidence)
            leads.append(read.versus([N_TWINS + k for k in range(N_SEEDS)], 0))
        error = sum(_standard_error(seen) for seen in leads) / draws
        lead = (truth[N_TWINS] - truth[0]) / max(error, 1e-12)
        size = max((size for size in SIZES if size <= lead), default=-float("inf"))
        for seen in leads:
            self.power[size].add(seen, confidence)


def _standard_error(seen: Comparison) -> float:
    """Of the difference."""
    reach = 2 * NormalDist().inv_cdf((1 + seen.difference.confidence) / 2)
    return (seen.difference.high - seen.difference.low) / reach


def _scores(model: SoloLearner, part: Part, spec: DataSpec) -> dict[str, float]:
    return {k: float(v[0]) for k, v in validation_metrics(model.outputs(part), part.target, spec).items()}


def main(arguments: Sequence[str]) -> None:
    """Count, and print Markdown tables."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks honesty", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--sets", type=int, default=20)
    parser.add_argument("--draws", type=int, default=40)
    parser.add_argument("--confidence", type=float, default=0.95)
    parser.add_argument(
        "--data", type=Path, help="folder with real tables: adult, california_housing, diamonds, letter"
    )
    parser.add_argument("--json", type=Path)
    chosen = parser.parse_args(arguments)
    torch.set_num_threads(1)
    counts = Counts()
    for number, world in enumerate(worlds(chosen.sets, chosen.data)):
        counts.add(world, 10_000 + number, chosen.draws, chosen.confidence)
        print(
            f"{world.name}: {counts.covered['all']} covered so far, {counts.twins.over_seeds} twins promoted",
            flush=True,
        )
    print(f"\n| interval of | holds the fresh score, at {chosen.confidence:.0%} |\n|---|---|")
    for name, tally in counts.covered.items():
        print(f"| {name} | {tally} |")
    print(f"\n| passes `beats: champion` at {chosen.confidence:.0%} | trained once | over {N_SEEDS} seeds |")
    print("|---|---|---|")
    print(f"| a twin with another seed | {counts.twins} |")
    print(f"| a twin that is as good, within {EQUAL:g} standard errors | {counts.equal} |")
    print(f"| a twin that is worse | {counts.worse} |")
    for size, tally in sorted(counts.power.items()):
        lead = "of no true lead" if size < 0 else f"of a true lead from {size:g} standard errors"
        print(f"| the better trained, {lead} | {tally} |")
    if chosen.json:
        power = {f"lead {size}": passed for size, passed in counts.power.items()}
        judged = {"twins": counts.twins, "equal": counts.equal, "worse": counts.worse, **power}
        tallies = dict(counts.covered)
        for name, passed in judged.items():
            tallies |= {f"{name}, once": passed.once, f"{name}, over seeds": passed.over_seeds}
        chosen.json.write_text(json.dumps({name: [t.hits, t.tries] for name, t in tallies.items()}, indent=1))
