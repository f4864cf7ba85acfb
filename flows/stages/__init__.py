"""The stages of an experiment as plain functions: prepare, search, retrain, evaluate, promote, report.

The Prefect flow and ``--no-prefect`` run the same ones. Every stage leaves its result on disk and finds it there again,
so a stage that is repeated after a kill repeats no work.
"""

from __future__ import annotations

from flows.stages.drift import drift_stage
from flows.stages.evaluate import Evaluated, evaluate_stage, package_trial
from flows.stages.experiment import Experiment, card_of, check_against_data, prepare_stage, settled_findings
from flows.stages.explain import explain_stage
from flows.stages.outcome import Outcome, read_outcome, write_outcome
from flows.stages.promote import Promotion, make_champion, promote_stage
from flows.stages.report import HISTORY, report_stage
from flows.stages.retrain import retrain_stage
from flows.stages.search import differing, find_or_create_search, search_stage

__all__ = [
    "HISTORY",
    "Evaluated",
    "Experiment",
    "Outcome",
    "Promotion",
    "card_of",
    "check_against_data",
    "differing",
    "drift_stage",
    "evaluate_stage",
    "explain_stage",
    "find_or_create_search",
    "make_champion",
    "package_trial",
    "prepare_stage",
    "promote_stage",
    "read_outcome",
    "report_stage",
    "retrain_stage",
    "search_stage",
    "settled_findings",
    "write_outcome",
]
