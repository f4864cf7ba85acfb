"""The Optuna study of a search: its storage, sampler and pruner, and the suggester that search spaces speak to."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar, cast

import optuna
from optuna.exceptions import ExperimentalWarning
from optuna.pruners import BasePruner, HyperbandPruner, MedianPruner, NopPruner, SuccessiveHalvingPruner
from optuna.samplers import BaseSampler, GPSampler, QMCSampler, RandomSampler, TPESampler
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import Trial, TrialState

from pipeline.config import SearchConfig
from pipeline.objective import Direction
from pipeline.records import TrialRecord
from pipeline.search import tpe
from pipeline.search.journal import GroupCommitBackend

JOURNAL = "optuna.journal"
REDUCTION_FACTOR = 3
"""Eta of successive halving: 3 or 4 work best (Li et al., arXiv 1603.06560, section 2.6)."""
MEDIAN_WARMUP_SHARE = 0.1

N_STARTUP = 10
"""Until so many results are known, TPE draws at random: asking it for several at once costs it nothing."""

T = TypeVar("T", bound=bool | int | float | str)


@dataclass(frozen=True, slots=True)
class Study:
    """An open study and the journal it writes to. Nothing is durable until `commit`."""

    optuna: optuna.Study
    backend: GroupCommitBackend

    def commit(self) -> None:
        self.backend.commit()

    def tell(self, record: TrialRecord) -> None:
        """A trial's end, as it is on record."""
        match record.state:
            case "COMPLETE":
                self.optuna.tell(record.number, record.objective)
            case "PRUNED":
                self.optuna.tell(record.number, state=TrialState.PRUNED)
            case "FAIL":
                self.optuna.tell(record.number, state=TrialState.FAIL)

    def tell_missed(self, records: Iterable[TrialRecord]) -> tuple[int, ...]:
        """Tell what is on record and what the study has not heard of; which trials that were."""
        open_trials = {t.number for t in self.optuna.get_trials(deepcopy=False) if not t.state.is_finished()}
        missed = [record for record in records if record.number in open_trials]
        for record in missed:
            self.tell(record)
        self.commit()
        return tuple(record.number for record in missed)

    def running(self, number: int) -> Trial:
        """The live trial with this number, after a restart too."""
        frozen = self.optuna.get_trials(deepcopy=False)[number]
        return Trial(self.optuna, frozen._trial_id)


def open_study(
    directory: Path, name: str, direction: Direction, search: SearchConfig, max_epochs: int, several_families: bool
) -> Study:
    """Create or load the study of a search directory. The caller holds the search's lock."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    directory.mkdir(parents=True, exist_ok=True)
    backend = GroupCommitBackend(directory / JOURNAL)
    storage = JournalStorage(backend)
    study = optuna.create_study(
        study_name=name,
        direction=direction,
        storage=storage,
        load_if_exists=True,
        pruner=make_pruner(search, max_epochs),
    )
    # A resumed sampler with the first one's seed would repeat its suggestions.
    seed = (search.seed * 1_000_003 + len(study.get_trials(deepcopy=False))) % 2**32
    study.sampler = make_sampler(search, seed, several_families)
    backend.commit()
    return Study(study, backend)


def read_study(directory: Path, name: str) -> optuna.Study | None:
    """The study of a search directory, to look at, or None where there is none yet. It reads the whole journal."""
    if not (directory / JOURNAL).exists():
        return None
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    storage = JournalStorage(JournalFileBackend(str(directory / JOURNAL)))
    try:
        return optuna.load_study(study_name=name, storage=storage)
    except KeyError:  # its search was killed before it wrote anything
        return None


def make_sampler(search: SearchConfig, seed: int, several_families: bool) -> BaseSampler:
    """TPE is multivariate; with several families it is grouped, so that each family's own parameters are modelled
    together. Running trials count as bad ones (constant liar), so that parallel asks spread out."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        match search.sampler:
            case "tpe":
                tpe.vectorise()
                return TPESampler(
                    seed=seed,
                    n_startup_trials=N_STARTUP,
                    multivariate=True,
                    group=several_families,
                    constant_liar=True,
                )
            case "gp":
                return GPSampler(seed=seed)
            case "qmc":
                return QMCSampler(seed=seed, scramble=True, warn_independent_sampling=False)
            case "random":
                return RandomSampler(seed=seed)


def make_pruner(search: SearchConfig, max_epochs: int) -> BasePruner:
    """Rungs count epochs. Brackets of Hyperband start at one epoch and end at `max_epochs`."""
    match search.pruner:
        case "hyperband":
            return HyperbandPruner(min_resource=1, max_resource=max_epochs, reduction_factor=REDUCTION_FACTOR)
        case "asha":
            return SuccessiveHalvingPruner(min_resource=1, reduction_factor=REDUCTION_FACTOR)
        case "median":
            return MedianPruner(n_startup_trials=5, n_warmup_steps=max(1, round(MEDIAN_WARMUP_SHARE * max_epochs)))
        case "none":
            return NopPruner()


@dataclass(frozen=True, slots=True)
class OptunaSuggester:
    """A search space's suggester that asks Optuna."""

    trial: Trial

    def integer(self, name: str, low: int, high: int, *, log: bool = False, step: int = 1) -> int:
        return self.trial.suggest_int(name, low, high, log=log, step=step)

    def number(self, name: str, low: float, high: float, *, log: bool = False) -> float:
        return self.trial.suggest_float(name, low, high, log=log)

    def choice(self, name: str, options: Sequence[T]) -> T:
        return cast(T, self.trial.suggest_categorical(name, list(options)))
