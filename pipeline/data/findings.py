"""What was found in the data: one line each, with its evidence and what to do about it."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict

Severity = Literal["info", "warning", "error"]
CheckName = Literal["leakage", "duplicates", "groups", "time", "columns", "values", "drift", "labels", "classes"]


class Finding(BaseModel):
    """One observation. Errors are raised as `DataError` where the pipeline cannot go on; the others are reported."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    severity: Severity
    subject: str
    """A column, the target, a split or a file."""
    message: str
    evidence: str = ""
    """What was measured, on how many rows; empty where the message says all."""
    remedy: str = ""
    """What to change in the experiment file or the data; empty where nothing needs to be done."""
    check: CheckName | None = None
    """The check of ``checks:`` that it belongs to; None where it is only said."""

    def __str__(self) -> str:
        evidence = f" ({self.evidence})" if self.evidence else ""
        remedy = f"; {self.remedy}" if self.remedy else ""
        return f"{self.severity}: {self.subject}: {self.message}{evidence}{remedy}"
