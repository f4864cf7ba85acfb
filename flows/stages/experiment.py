"""An experiment's file, its data and where it runs, checked against each other before anything starts."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from flows.workspace import Workspace
from pipeline.config import ExperimentConfig
from pipeline.data.card import DataCard, data_card
from pipeline.data.checks.policy import refuse_errors, settle
from pipeline.data.findings import Finding
from pipeline.data.prepare import Prepared, prepare
from pipeline.errors import ConfigError
from pipeline.evaluation.coverage import check_conformal
from pipeline.evaluation.gates import check_gates
from pipeline.objective import Objective, objective_for
from pipeline.training.devices import find_slots
from search_spaces import check_overrides, families_for


@dataclass(frozen=True, slots=True)
class Experiment:
    """A validated experiment file and where it runs."""

    config: ExperimentConfig
    root: Path
    """Folder that relative data paths start from."""
    workspace: Workspace


@dataclass(frozen=True, slots=True)
class Checked:
    """An experiment against its data: everything that can be wrong has been looked at."""

    objective: Objective
    families: tuple[str, ...]


def prepare_stage(experiment: Experiment) -> Prepared:
    """Read, check and split the data; prepared tensors are reused by content."""
    return prepare(experiment.config.data, experiment.root, experiment.workspace.data)


def settled_findings(config: ExperimentConfig, prepared: Prepared) -> tuple[Finding, ...]:
    """What was found in the data, as ``checks:`` has it."""
    return settle(prepared.findings, config.checks)


def card_of(config: ExperimentConfig, prepared: Prepared) -> DataCard:
    """The data card of a search."""
    return data_card(config.data.source, prepared, settled_findings(config, prepared))


def check_against_data(config: ExperimentConfig, prepared: Prepared) -> Checked:
    """Settle what ``auto`` means for this data.

    Raises:
        DataError: a check whose findings are errors found something.
        ConfigError: a metric, family, narrowed choice, gate or device that does not exist here, or no rows for what
            `evaluate.conformal` asks.
    """
    refuse_errors(settled_findings(config, prepared), config.data.source)
    fitting = families_for(prepared.spec.kind)
    families = fitting if config.search.families == "auto" else config.search.families
    for family in families:
        if family not in fitting:
            raise ConfigError(
                f"`search.families` must fit {prepared.spec.kind} data, but got {family!r}", f"use {', '.join(fitting)}"
            )
    objective = objective_for(config.search.metric, prepared.spec.task)
    check_overrides(config.search.space, prepared.spec, families)
    check_gates(config.promotion.gates, prepared.spec.task, prepared.slicing())
    check_conformal(config.evaluate.conformal, prepared.spec)
    find_slots(config.resources.devices, config.resources.slots_per_device)
    return Checked(objective, families)
