"""The data card of a search: what it was given, how it was divided, and what was found in it."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import PurePosixPath
from typing import Final

from pydantic import BaseModel, ConfigDict

from pipeline.data.findings import Finding
from pipeline.data.prepare import Prepared
from pipeline.text import markdown

MOST_COLUMNS: Final = 200


class DataCard(BaseModel):
    """One prepared data set in words and numbers. Nothing of the test part but its size is in it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    source: str
    kind: str
    task: str
    n_rows: int
    n_train: int
    n_validation: int
    n_folds: int
    n_test: int
    fingerprint: str
    split_hash: str
    labels: dict[str, int]
    """Training rows of each label."""
    columns: dict[str, str]
    findings: tuple[Finding, ...]


def data_card(source: str, prepared: Prepared, findings: Iterable[Finding]) -> DataCard:
    """The card of a prepared data set with its settled findings."""
    spec = prepared.spec
    counts: dict[str, int] = {}
    if spec.labels:
        rows = prepared.development().train.target.bincount(minlength=len(spec.labels)).tolist()
        counts = {str(label): count for label, count in zip(spec.labels, rows, strict=True)}
    return DataCard(
        source=source,
        kind=spec.kind,
        task=spec.task,
        n_rows=prepared.n_rows,
        n_train=spec.n_train,
        n_validation=0 if spec.n_folds else spec.n_validation,
        n_folds=spec.n_folds,
        n_test=len(prepared.sealed),
        fingerprint=prepared.fingerprint,
        split_hash=prepared.split_hash,
        labels=counts,
        columns=dict(prepared.schema),
        findings=tuple(findings),
    )


def card_markdown(card: DataCard) -> str:
    """The card as a page."""
    validated = f"{card.n_folds} folds of them validate" if card.n_folds else f"{card.n_validation:,} validation"
    lines = [
        f"# Data: {markdown(PurePosixPath(card.source).name)}",
        "",
        f"{card.kind} data, {card.task}, {card.n_rows:,} rows: {card.n_train:,} training, {validated}, "
        f"{card.n_test:,} sealed test.",
        "",
        f"Fingerprint `{card.fingerprint}`, split `{card.split_hash}`.",
        "",
        "## Findings",
        "",
    ]
    if card.findings:
        lines += ["| severity | check | about | finding | evidence | what to do |", "|---|---|---|---|---|---|"]
        for found in card.findings:
            cells = (found.severity, found.check or "", found.subject, found.message, found.evidence, found.remedy)
            lines.append("| " + " | ".join(markdown(cell) for cell in cells) + " |")
    else:
        lines.append("None.")
    if card.labels:
        lines += ["", "## Labels", "", "| label | training rows |", "|---|---|"]
        lines += [f"| {markdown(label)} | {count:,} |" for label, count in card.labels.items()]
    lines += ["", "## Features", "", "| feature | type |", "|---|---|"]
    lines += [f"| {markdown(name)} | {markdown(kind)} |" for name, kind in list(card.columns.items())[:MOST_COLUMNS]]
    if len(card.columns) > MOST_COLUMNS:
        lines.append(f"| and {len(card.columns) - MOST_COLUMNS} more | |")
    return "\n".join(lines) + "\n"
