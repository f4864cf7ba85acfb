"""A result in its two forms: a value for ``--json``, and a way to print it for people."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.table import Table


@dataclass(frozen=True, slots=True)
class Shown:
    """What a verb prints."""

    value: Any
    text: Callable[[Console], None]


def lines(value: Any, *texts: str) -> Shown:
    """A result whose text is plain lines."""

    def show(console: Console) -> None:
        for text in texts:
            console.print(text, markup=False)

    return Shown(value, show)


def table(headings: list[str], rows: list[list[str]], right: frozenset[str] = frozenset()) -> Table:
    """A table without boxes; the headings in `right` are aligned right."""
    grid = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    for heading in headings:
        grid.add_column(heading, justify="right" if heading in right else "left", no_wrap=True)
    for row in rows:
        grid.add_row(*row)
    return grid
