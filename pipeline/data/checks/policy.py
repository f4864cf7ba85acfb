"""The ``checks:`` block of an experiment file: what a suspicion means for a run."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict

from pipeline.data.findings import Finding
from pipeline.errors import DataError

Policy = Literal["error", "warn", "off"]
"""error: nothing is trained. warn: it is shown and recorded. off: it is not even shown."""


class ChecksConfig(BaseModel):
    """What is done about the warnings of each check. Infos never stop a run."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    leakage: Policy = "warn"
    """A feature that tells the target alone."""
    duplicates: Policy = "warn"
    """Rows of the validation or test part that are in the training part too."""
    groups: Policy = "warn"
    """A user, patient or machine whose rows are in more than one part."""
    time: Policy = "error"
    """Rows that stand in the order of time, but are divided at random: the future would tell the past."""
    columns: Policy = "warn"
    """Columns without information, ids, and copies of others."""
    values: Policy = "warn"
    """Values that are infinite, or no numbers among numbers."""
    drift: Policy = "warn"
    """A feature that is distributed differently in the validation or test part."""
    labels: Policy = "warn"
    """Labels that are misspelt, missing, or contradict each other."""
    classes: Policy = "warn"
    """Classes with too few rows."""


def settle(findings: Iterable[Finding], checks: ChecksConfig) -> tuple[Finding, ...]:
    """The findings as the policies have them: warnings may become errors, and what is off is left out."""
    settled: list[Finding] = []
    for finding in findings:
        policy = "warn" if finding.check is None else getattr(checks, finding.check)
        if policy == "error" and finding.severity == "warning":
            settled.append(finding.model_copy(update={"severity": "error"}))
        elif policy != "off":
            settled.append(finding)
    return tuple(settled)


def refuse_errors(findings: Iterable[Finding], source: str | Path) -> None:
    """Stop before anything is trained.

    Args:
        findings: as `settle` gives them.

    Raises:
        DataError: there is an error among them; the first is named, and how to go on all the same.
    """
    errors = [finding for finding in findings if finding.severity == "error"]
    if not errors:
        return
    first = errors[0]
    evidence = f" ({first.evidence})" if first.evidence else ""
    more = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
    raise DataError(
        f"{first.subject}: {first.message}{evidence}{more}",
        f"{first.remedy or 'correct it'}, or set checks.{first.check}: warn to go on",
        file=source,
    )
