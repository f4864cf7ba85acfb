"""What was found in the data: one line each, with its reason and what to do about it."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict

Severity = Literal["info", "warning", "error"]


class Finding(BaseModel):
    """One observation. Errors are raised as `DataError` where the pipeline cannot go on; the others are reported."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    severity: Severity
    subject: str
    """A column, the target, a split or a file."""
    message: str
    remedy: str = ""
    """What to change in the experiment file or the data; empty where nothing needs to be done."""

    def __str__(self) -> str:
        return f"{self.severity}: {self.subject}: {self.message}" + (f"; {self.remedy}" if self.remedy else "")
