"""All checks, one after the other."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from pipeline.data.checks.columns import find_columns
from pipeline.data.checks.drift import find_drift
from pipeline.data.checks.labels import find_label_faults, find_rare_classes
from pipeline.data.checks.leakage import find_leaks
from pipeline.data.checks.overlap import find_duplicates, find_group_overlap, find_time_overlap
from pipeline.data.checks.parts import Parts
from pipeline.data.findings import Finding

CHECKS: Final[tuple[Callable[[Parts], list[Finding]], ...]] = (
    find_leaks,
    find_duplicates,
    find_group_overlap,
    find_time_overlap,
    find_columns,
    find_drift,
    find_label_faults,
    find_rare_classes,
)
MOST_OF_A_CHECK: Final = 10
"""Findings that one check shows; with more of them it is said how many there are."""


def run_checks(parts: Parts) -> tuple[Finding, ...]:
    """All findings, in the order of `CHECKS`."""
    found: list[Finding] = []
    for check in CHECKS:
        several = check(parts)
        found += several[:MOST_OF_A_CHECK]
        if len(several) > MOST_OF_A_CHECK:
            more = f"{len(several) - MOST_OF_A_CHECK} more findings of this kind"
            found.append(Finding(severity="info", subject=str(several[0].check), message=more, check=several[0].check))
    return tuple(found)
