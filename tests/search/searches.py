"""Searches over a fake pool: a controller's directory, its starts, and what they leave."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

from pipeline.config import Budget, SearchConfig
from pipeline.data.spec import DataSpec
from pipeline.models import FAMILIES
from pipeline.records import TrialRecord, read_records
from pipeline.search.asking import SearchPlan
from pipeline.search.calibrations import Calibrations
from pipeline.search.controller import Controller
from pipeline.search.progress import Progress, StopRequest
from pipeline.search.study import OptunaSuggester, open_study
from pipeline.training.checkpoint import CHECKPOINT
from pipeline.training.config import OptimisationConfig, TrialConfig
from tests.search.fakes import FakePool, MemorySink, Script

SPEC = DataSpec(kind="tabular", task="binary", n_numeric=2, labels=(0, 1), n_train=100, n_validation=20)
GOOD, BAD, DEADLY, HANGING = Script(), Script(then="fail"), Script(then="die"), Script(then="hang")


def suggest(suggester: OptunaSuggester, seed: int) -> TrialConfig:
    """One learning rate, and a depth that decides the shape class."""
    model = FAMILIES["mlp"].config.model_validate({"n_layers": suggester.integer("mlp.n_layers", 1, 3)})
    lr = suggester.number("optimizer.lr", 1e-4, 1e-1, log=True)
    return TrialConfig(family="mlp", model=model, optimisation=OptimisationConfig(lr=lr), seed=seed)


@dataclass
class Search:
    """A search directory; each `run` is one start of its controller."""

    directory: Path
    pruner: str = "none"
    plan: SearchPlan = field(init=False)
    sink: MemorySink = field(init=False)
    pool: FakePool = field(init=False)
    stop: StopRequest = field(init=False)

    def __post_init__(self) -> None:
        self.plan = SearchPlan(
            search="s", directory=self.directory, spec=SPEC, metric="accuracy", budget=Budget(trials=7), max_epochs=9,
            seed=0, suggest=suggest, max_cohort=1,
            calibrations=Calibrations(self.directory / "calibration.json", "cpu"),
        )  # fmt: skip

    def run(
        self, pool: FakePool, on_progress: Callable[[Progress], None] = lambda _: None, **changes: object
    ) -> tuple[str, Progress]:
        """Start the controller; why it ended, and its last progress."""
        self.plan = replace(self.plan, **changes)  # type: ignore[arg-type]
        self.pool, self.sink, self.stop = pool, MemorySink(), StopRequest()
        config = SearchConfig.model_validate({"pruner": self.pruner, "sampler": "random"})
        study = open_study(self.directory, "s", "maximize", config, 9, several_families=False)
        controller = Controller(self.plan, study, pool, self.sink, self.stop, on_progress)  # type: ignore[arg-type]
        return controller.run(), controller.progress

    def records(self) -> dict[int, TrialRecord]:
        return {record.number: record for record in read_records(self.directory)}

    def checkpoints(self) -> list[Path]:
        return sorted(self.directory.rglob(CHECKPOINT))

    def states(self) -> dict[int, str]:
        """Trial number to state on record; Optuna and the sink must say the same."""
        states = {number: record.state for number, record in self.records().items()}
        config = SearchConfig.model_validate({"pruner": self.pruner})
        study = open_study(self.directory, "s", "maximize", config, 9, several_families=False).optuna
        assert {t.number: t.state.name for t in study.trials if t.state.is_finished()} == states
        said = {record.number: record.state for record in self.sink.finished}
        assert said == states, "after any start the sink has heard of every trial"
        return states


FIRST = tuple({"mlp.n_layers": depth, "optimizer.lr": 0.01 * depth} for depth in (1, 2, 3))


def scripts(by_number: dict[int, Script], otherwise: Script = GOOD) -> Callable[[int, int], Script]:
    return lambda number, _times: by_number.get(number, otherwise)
