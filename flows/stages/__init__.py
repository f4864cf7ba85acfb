"""The stages of an experiment as plain functions: prepare, search, evaluate, promote, report.

The Prefect flow and ``--no-prefect`` run the same ones. Every stage leaves its result on disk and finds it there again,
so a stage that is repeated after a kill repeats no work.
"""

from __future__ import annotations

from flows.stages.evaluate import Evaluated, evaluate_stage, package_trial
from flows.stages.experiment import Experiment, card_of, check_against_data, prepare_stage, settled_findings
from flows.stages.promote import Promotion, make_champion, promote_stage
from flows.stages.report import report_stage
from flows.stages.search import find_or_create_search, search_stage

__all__ = [
    "Evaluated",
    "Experiment",
    "Promotion",
    "card_of",
    "check_against_data",
    "evaluate_stage",
    "find_or_create_search",
    "make_champion",
    "package_trial",
    "prepare_stage",
    "promote_stage",
    "report_stage",
    "search_stage",
    "settled_findings",
]
