"""Asking the study for trials, one cohort after the other.

The first trial of a cohort is asked for freely and leads. Its followers take over what defines its shape class (depth,
activation, batch size: names that the family declares) and are sampled in everything else, each with all results there
are and with the running trials as constant liars. So a search explores architectures cohort by cohort, and within a
cohort what can differ inside one computation.
"""

from __future__ import annotations

import math
import time
import warnings
from collections import deque
from collections.abc import Callable, Mapping, Sequence, Set
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path

from optuna.exceptions import ExperimentalWarning
from optuna.trial import FrozenTrial, Trial, TrialState

from pipeline.config import Budget
from pipeline.data.spec import DataSpec
from pipeline.search.calibrations import Calibrations
from pipeline.search.live import Cohort, LiveTrial
from pipeline.search.progress import Progress
from pipeline.search.study import N_STARTUP, OptunaSuggester, Study
from pipeline.search.twins import Twins
from pipeline.training.calibration import CostClass, choose, cost_class, size_limit, time_together
from pipeline.training.config import TrialConfig
from pipeline.training.stacked import class_parameters, shape_class

ASKED, CONFIG, COHORT, FIRST = "automl.asked", "automl.config", "automl.cohort", "automl.first"
"""User attributes of a trial in the study: when, what, with whom, and whether it was one of the plan's first."""

RUN_CREATION_WAIT_S = 5.0
"""How long a trial waits for its run to exist before it trains all the same (the tracker delivers it later). Once one
has waited so long, the others do not wait until the tracker answers again."""
SLICE_S = 0.1
"""How long asking goes on before workers are listened to again."""
FIRST_COHORTS = 4
"""Most trials of a cohort while the sampler draws at random: not more, so that its draws see several classes."""
KNOWN_A_TRIAL = 12
"""After that a cohort has at most one trial for so many results that are known. Its trials are asked for without each
other's results and share an architecture class, which must stay a small part of what the sampler knows. Chosen on a
surrogate of the benchmark ``quality`` at 240 trials: best log loss 0.072 with 8, 0.069 with 12, 0.064 one at a time,
each plus or minus 0.002."""
WORTH_TIMING = 4
"""With fewer trials to come, a class is no longer timed: that costs about what a cohort saves."""
MOVING = 0.9
"""Half a cohort must need at most this share of the time of the whole to be worth a move: checkpoints are written and
read for it."""

Suggest = Callable[[OptunaSuggester, int], TrialConfig]
"""A search space: from a suggester and the trial's seed to a config."""
Begin = Callable[[int, str, Mapping[str, object]], "Future[str]"]


@dataclass(frozen=True, slots=True)
class SearchPlan:
    """What a controller searches."""

    search: str
    directory: Path
    spec: DataSpec
    metric: str
    budget: Budget
    max_epochs: int
    seed: int
    suggest: Suggest
    calibrations: Calibrations
    first: Sequence[Mapping[str, object]] = ()
    """Parameters of the first trials, in order: defaults and the best of an earlier search."""
    foreseeable: bool = True
    """Whether trials train to `max_epochs`; not where they may be pruned or stop early."""
    lockstep: bool = False
    """Workers wait for an answer to every report, so that a search can be repeated exactly."""
    disk_floor: int = 0
    """Free bytes on the search's disk under which nothing is trained."""
    max_cohort: int | None = None
    """Most trials in a cohort; None leaves it to the calibration."""


class Asker:
    """Keeps cohorts ready for the slots."""

    def __init__(self, plan: SearchPlan, study: Study, begin: Begin, progress: Progress) -> None:
        self._plan, self._study, self._begin, self._progress = plan, study, begin, progress
        self._n_first = 0
        self.waiting: deque[Cohort] = deque()
        self.twins = Twins()
        self._uncreated: deque[LiveTrial] = deque()
        """Trials whose run may not exist yet, oldest first: runs are created in this order."""

    def ask(self, n_wanting: int, n_slots: int, timing: Set[CostClass]) -> bool:
        """Ask for a while for so many of the slots; whether there is more to ask for at once.

        A cohort whose class is being timed on one slot fills no other. Trials that repeat a running one's configuration
        fill none at all; but once there are as many as slots, the space seems to hold little else, and they are waited
        for.
        """
        until = time.monotonic() + SLICE_S
        while time.monotonic() < until:
            if self._exhausted():
                return False
            open_cohort = next((c for c in self.waiting if c.untimed is None and not c.full), None)
            if open_cohort is not None and self._room_for_followers():
                self._follow(open_cohort)
            elif open_cohort is not None:
                open_cohort.wanted = len(open_cohort.trials)
            elif self._n_ready(timing) < n_wanting and self.twins.n_waiting < n_slots:
                self._lead()
            else:
                return False
        return True

    def _n_ready(self, timing: Set[CostClass]) -> int:
        """How many slots the waiting cohorts fill, now or once their class is timed on another slot."""
        return len(self.waiting) - len({cohort.untimed for cohort in self.waiting} & timing)

    def untimed(self, timing: Set[CostClass]) -> tuple[TrialConfig, CostClass] | None:
        """A trial whose class must be timed before its cohort can grow, and is not being timed; and the class."""
        for cohort in self.waiting:
            if cohort.untimed is not None and cohort.untimed not in timing:
                return cohort.trials[0].config, cohort.untimed
        return None

    def timed(self, measured: CostClass, gains: Mapping[int, float]) -> None:
        """A class was timed: cohorts that waited for it know their size."""
        self._plan.calibrations.add(measured, gains)
        for cohort in self.waiting:
            if cohort.untimed is not None:
                cohort.wanted = self._wanted(cohort.trials[0].config)

    def take(self) -> Cohort | None:
        """The next cohort that can train now."""
        for cohort in self.waiting:
            if not cohort.full and not (cohort.untimed is None and self._exhausted()):
                continue
            if self._tracker_is_away() or all(trial.created.done() for trial in cohort.trials):
                self.waiting.remove(cohort)
                return cohort
        return None

    def _tracker_is_away(self) -> bool:
        while self._uncreated and self._uncreated[0].created.done():
            self._uncreated.popleft()
        return bool(self._uncreated) and time.monotonic() - self._uncreated[0].begun > RUN_CREATION_WAIT_S

    def again(self, trials: Sequence[LiveTrial]) -> None:
        """Trials whose worker died: each alone, so that the one that kills workers is found."""
        for trial in trials:
            self.waiting.appendleft(Cohort([trial], wanted=1))

    def go_on(self, moved: Sequence[LiveTrial]) -> None:
        """Trials that left their cohort to go on elsewhere, together."""
        if moved:
            self.waiting.append(Cohort(list(moved), wanted=len(moved)))

    def take_up(self, unfinished: Sequence[FrozenTrial]) -> None:
        """Unfinished trials of an earlier start, in the cohorts that they were in."""
        by_cohort: dict[int, list[LiveTrial]] = {}
        for frozen in unfinished:
            leader = frozen.user_attrs.get(COHORT, frozen.number)
            trial = self._restore(frozen)
            if not self.twins.claim(trial):
                by_cohort.setdefault(leader, []).append(trial)
        self.waiting.extend(Cohort(trials, wanted=len(trials)) for trials in by_cohort.values())

    def count_first(self, trials: Sequence[FrozenTrial]) -> None:
        """How many of the plan's first trials an earlier start has asked for."""
        self._n_first = sum(FIRST in trial.user_attrs for trial in trials)

    @property
    def through(self) -> bool:
        """Whether there is nothing more to hand out."""
        return not self.waiting and self._exhausted()

    def apart_pays(self, trial: LiveTrial, size: int) -> bool:
        """Whether a cohort of this class and size ends clearly sooner as two halves on two slots."""
        gains = self._gains(trial.config)
        return gains is not None and self._time(gains, math.ceil(size / 2)) < MOVING * self._time(gains, size)

    def together(self, cohort: Cohort) -> bool:
        """Whether a cohort trains as one computation: it has several trials, or one whose folds had better."""
        if len(cohort.trials) > 1 or self._n_members == 1:
            return len(cohort.trials) > 1
        config = cohort.trials[0].config
        gains = None if shape_class(config, self._plan.spec) is None else self._gains(config)
        return gains is not None and self._time(gains, 1) < MOVING * self._n_members

    def _time(self, gains: Mapping[int, float], n_trials: int) -> float:
        return time_together(gains, n_trials * self._n_members)

    def _exhausted(self) -> bool:
        trials = self._plan.budget.trials
        return trials is not None and self._progress.asked >= trials

    def _room_for_followers(self) -> bool:
        """The plan's first trials come before anybody's followers: a small budget tries every family's default."""
        to_come = len(self._plan.first) - self._n_first
        trials = self._plan.budget.trials
        return trials is None or trials - self._progress.asked > to_come

    def _lead(self) -> None:
        fixed: dict[str, object] = {}
        if self._n_first < len(self._plan.first):
            fixed = {**self._plan.first[self._n_first]}
        trial = self._ask_one(fixed, is_first=bool(fixed))
        self._n_first += bool(fixed)
        if not self.twins.claim(trial):
            self.waiting.append(Cohort([trial], self._wanted(trial.config)))

    def _follow(self, cohort: Cohort) -> None:
        leader = cohort.trials[0]
        names = {"family", *class_parameters(leader.config.family)}
        fixed = {name: value for name, value in leader.live.params.items() if name in names}
        trial = self._ask_one(fixed, leader=leader.number)
        if self.twins.claim(trial):
            return
        if shape_class(trial.config, self._plan.spec) == shape_class(leader.config, self._plan.spec):
            cohort.trials.append(trial)
        else:
            self.waiting.append(Cohort([trial], wanted=1))

    def _wanted(self, config: TrialConfig) -> int | CostClass:
        """How large a cohort may be: what was measured to pay, and few enough for the sampler to learn in between; or
        the class that must be timed first."""
        most = self._most()
        if most * self._n_members == 1 or shape_class(config, self._plan.spec) is None:
            return 1
        gains = self._gains(config)
        if gains is not None:
            return max(1, min(choose(gains) // self._n_members, most))
        trials = self._plan.budget.trials
        if trials is not None and trials - self._progress.asked < WORTH_TIMING:
            return 1
        return self._cost_class(config)

    def _gains(self, config: TrialConfig) -> Mapping[int, float] | None:
        return self._plan.calibrations.gains(self._cost_class(config))

    def _cost_class(self, config: TrialConfig) -> CostClass:
        return cost_class(config, self._plan.spec, self._plan.calibrations.device, self._timed_up_to())

    @property
    def _n_members(self) -> int:
        """How many members of a stack a trial is: one a fold."""
        return max(1, self._plan.spec.n_folds)

    def _most(self) -> int:
        """How many trials a cohort may have now for the search's sake."""
        known = self._progress.ended
        return self._allowed(FIRST_COHORTS if known < N_STARTUP else max(1, known // KNOWN_A_TRIAL))

    def _timed_up_to(self) -> int:
        """The size up to which classes are timed: what cohorts can grow to with the trial budget, or have grown to."""
        total = self._plan.budget.trials or self._progress.ended
        return size_limit(self._allowed(max(FIRST_COHORTS, total // KNOWN_A_TRIAL)) * self._n_members)

    def _allowed(self, most: int) -> int:
        return most if self._plan.max_cohort is None else min(most, self._plan.max_cohort)

    def _ask_one(self, fixed: Mapping[str, object], *, is_first: bool = False, leader: int | None = None) -> LiveTrial:
        started = time.monotonic()
        study = self._study.optuna
        if fixed and not study.get_trials(deepcopy=False, states=(TrialState.WAITING,)):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ExperimentalWarning)
                study.enqueue_trial(dict(fixed))
        live = study.ask()
        if is_first:
            live.set_user_attr(FIRST, True)
        live.set_user_attr(COHORT, live.number if leader is None else leader)
        config = self._suggest(live)
        self._study.commit()
        self._progress.asked += 1
        self._progress.optuna_s += time.monotonic() - started
        return self._begun(
            LiveTrial(live.number, config, live, self._begin(live.number, config.family, live.params), time.time())
        )

    def _suggest(self, live: Trial) -> TrialConfig:
        config = self._plan.suggest(OptunaSuggester(live), self._plan.seed + live.number)
        live.set_user_attr(CONFIG, config.model_dump_json())
        live.set_user_attr(ASKED, time.time())
        return config

    def _restore(self, frozen: FrozenTrial) -> LiveTrial:
        """Where a power cut tore a trial's description off, what it had chosen stays; the rest is suggested again."""
        live = self._study.running(frozen.number)
        stored = frozen.user_attrs.get(CONFIG)
        config = self._suggest(live) if stored is None else TrialConfig.model_validate_json(stored)
        created = self._begin(frozen.number, config.family, live.params)
        reported = max(frozen.intermediate_values, default=0)
        asked = frozen.user_attrs.get(ASKED, time.time())
        return self._begun(LiveTrial(frozen.number, config, live, created, asked, reported=reported))

    def _begun(self, trial: LiveTrial) -> LiveTrial:
        self._uncreated.append(trial)
        return trial
