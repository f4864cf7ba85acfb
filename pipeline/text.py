"""Text for people: in one line, of bounded length, with nothing in it that a terminal, a browser or a spreadsheet would
act on."""

from __future__ import annotations

import html
import re
from typing import Final

MAX_SHOWN: Final = 80
_FORMULA: Final = ("=", "+", "-", "@")
_MARKDOWN: Final = re.compile(r"([\\`*_{}\[\]()#+!|~])")


def shown(value: object, limit: int = MAX_SHOWN) -> str:
    """A value as Python writes it, cut to `limit` characters."""
    return shortened(repr(value), limit)


def shortened(text: str, limit: int) -> str:
    """The text, or its beginning with three dots."""
    return text if len(text) <= limit else f"{text[: limit - 3]}..."


def visible(text: str) -> str:
    """The text with control characters, and those that turn the direction of writing, as escapes: ``\\x1b``."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c.isspace() else c.encode("unicode_escape").decode() for c in text)


def one_line(text: str, limit: int) -> str:
    """Visible text in one line of bounded length."""
    return shortened(visible(" ".join(text.split())), limit)


def markdown(text: str) -> str:
    """Text that Markdown and HTML show as it is, in one line; it may stand in a table."""
    return html.escape(_MARKDOWN.sub(r"\\\1", " ".join(visible(text).split())), quote=False)


def inert(cell: object) -> object:
    """A cell of a CSV report, in one line; what a spreadsheet would take for a formula gets a leading apostrophe."""
    if not isinstance(cell, str):
        return cell
    line = " ".join(cell.splitlines())
    return f"'{line}" if line.lstrip().startswith(_FORMULA) or line.startswith("\t") else line
