"""Values as source: what a search settled, in a form that a script has and a person reads."""

from __future__ import annotations

import dataclasses
from typing import Any, Final

from pydantic import BaseModel

WIDTH: Final = 100
"""Characters from which a value takes several lines."""


def literal(value: Any, indent: int = 0) -> str:
    """A value as the source that makes it, as the formatter has it."""
    flat = _flat(value)
    if indent + len(flat) <= WIDTH or not _members(value):
        return flat
    inside = "".join(f"{' ' * (indent + 4)}{key}{literal(item, indent + 4)},\n" for key, item in _members(value))
    opening, closing = ("(", ")") if isinstance(value, tuple) else (f"{type(value).__name__}(", ")")
    return f"{opening}\n{inside}{' ' * indent}{closing}"


def _flat(value: Any) -> str:
    members = _members(value)
    if not members:
        return _text_literal(value) if isinstance(value, str) else repr(value)
    inside = ", ".join(f"{key}{_flat(item)}" for key, item in members)
    if isinstance(value, tuple):
        return f"({inside},)" if len(value) == 1 else f"({inside})"
    return f"{type(value).__name__}({inside})"


def _text_literal(value: str) -> str:
    """With double quotes where that needs no escape."""
    return repr(value) if '"' in value or "'" in value or "\\" in repr(value) else f'"{value}"'


def _members(value: Any) -> list[tuple[str, Any]]:
    """What a value is made of, each with the keyword before it."""
    if isinstance(value, tuple):
        return [("", item) for item in value]
    if isinstance(value, BaseModel):
        return [(f"{name}=", getattr(value, name)) for name in type(value).model_fields]
    if dataclasses.is_dataclass(value):
        return [(f"{entry.name}=", getattr(value, entry.name)) for entry in dataclasses.fields(value)]
    return []
