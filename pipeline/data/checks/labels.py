"""Labels that were written in several ways, that contradict each other, or that are too few."""

from __future__ import annotations

from collections import defaultdict
from typing import Final

import numpy as np
import pandas as pd

from pipeline.data.checks.overlap import row_hashes
from pipeline.data.checks.parts import Parts
from pipeline.data.findings import Finding

CONTRADICTIONS: Final = 0.05
"""Rows that no model can get right from this share on are a warning."""
FEW: Final = 10
"""Fewer held-out rows of a class give its recall a standard error of up to sqrt(0.25 / 10), 16 points."""


def find_label_faults(parts: Parts) -> list[Finding]:
    """Labels that differ in case, blanks or a last dot only, and equal rows with different labels."""
    if not parts.is_classes:
        return []
    found: list[Finding] = []
    spellings: dict[str, list[str]] = defaultdict(list)
    for label in parts.spec.labels:
        if isinstance(label, str):
            spellings[" ".join(label.casefold().split()).rstrip(".")].append(label)
    for same in (several for several in spellings.values() if len(several) > 1):
        found.append(
            Finding(
                severity="warning",
                subject=parts.target,
                message=f"{' and '.join(map(repr, same[:4]))} are separate classes, but look like one",
                remedy="write them alike",
                check="labels",
            )
        )
    rows = row_hashes(parts.train.features, list(parts.types))
    frame = pd.DataFrame({"row": pd.factorize(rows)[0], "label": parts.encoded})
    counts = frame.groupby(["row", "label"]).size()
    n_wrong = len(frame) - int(counts.groupby(level="row").max().sum())
    if n_wrong:
        share = n_wrong / len(frame)
        found.append(
            Finding(
                severity="warning" if share >= CONTRADICTIONS else "info",
                subject=parts.target,
                message="rows have the features of others and another label: no model gets all of them right",
                evidence=f"{n_wrong:,} of {len(frame):,} training rows, {share:.1%}",
                remedy="look for a feature that is missing, or for wrong labels",
                check="labels",
            )
        )
    return found


def find_rare_classes(parts: Parts) -> list[Finding]:
    """Classes that the training part has too few rows of to be measured in a held-out part of the usual size."""
    if not parts.is_classes:
        return []
    counts = np.bincount(parts.encoded, minlength=len(parts.spec.labels))
    rare = [(int(counts[code]), label) for code, label in enumerate(parts.spec.labels) if counts[code] < FEW]
    if not rare:
        return []
    shown = ", ".join(f"{label!r}: {count}" for count, label in sorted(rare, key=lambda pair: pair[0])[:5])
    return [
        Finding(
            severity="warning",
            subject=parts.target,
            message=f"{len(rare)} of {len(counts)} classes have fewer than {FEW} training rows",
            evidence=shown,
            remedy="add rows, or group rare classes",
            check="classes",
        )
    ]
