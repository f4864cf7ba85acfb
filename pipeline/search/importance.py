"""EDGE optuna: which parameters made trials good, family by family: those of another family mean nothing to a trial."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from typing import Final

import optuna
from optuna.exceptions import ExperimentalWarning
from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances
from optuna.trial import FrozenTrial, create_trial

from pipeline.records import TrialRecord

MIN_TRIALS: Final = 10
"""With fewer trials of a family nothing is said: the estimate would be noise."""
FAMILY: Final = "family"


def importances(study: optuna.Study, records: Iterable[TrialRecord]) -> dict[str, dict[str, float]]:
    """Share of each parameter in what separates a family's best tenth of trials from the others (PED-ANOVA, Watanabe
    et al., arXiv 2304.10255). Pruned trials count with the score they had reached."""
    by_family: dict[str, list[FrozenTrial]] = {}
    scored = {r.number: r for r in records if r.objective is not None}
    for trial in study.get_trials(deepcopy=False):
        if (record := scored.get(trial.number)) is not None:
            value = create_trial(value=record.objective, params=trial.params, distributions=trial.distributions)
            by_family.setdefault(record.family, []).append(value)
    found = {family: _of_family(trials, study.direction) for family, trials in sorted(by_family.items())}
    return {family: shares for family, shares in found.items() if shares}


def _of_family(trials: list[FrozenTrial], direction: optuna.study.StudyDirection) -> dict[str, float]:
    """Over the parameters that all of the trials have, and that varied."""
    if len(trials) < MIN_TRIALS:
        return {}
    names = set.intersection(*(set(trial.params) for trial in trials)) - {FAMILY}
    varied = sorted(name for name in names if len({trial.params[name] for trial in trials}) > 1)
    if not varied:
        return {}
    one = optuna.create_study(direction=direction)
    one.add_trials(trials)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        return dict(get_param_importances(one, evaluator=PedAnovaImportanceEvaluator(), params=varied))
