"""Pieces of a page: section, figure, facts, table. Words are escaped; bodies and drawings are markup already."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from flows.report.svg import escaped


def section(title: str, body: str) -> str:
    return f"<section><h2>{escaped(title)}</h2>{body}</section>"


def figure(drawing: str, caption: str, legend: str = "") -> str:
    return f"<figure>{drawing}<figcaption>{legend}{escaped(caption)}</figcaption></figure>"


def facts(facts: Iterable[tuple[str, str]]) -> str:
    items = "".join(f"<div><dt>{escaped(name)}</dt><dd>{escaped(value)}</dd></div>" for name, value in facts)
    return f"<dl>{items}</dl>"


def table(heads: Sequence[str], rows: Sequence[Sequence[str]], left: Sequence[int] = ()) -> str:
    """A table; columns of numbers are aligned right, those in `left` and texts left."""
    numeric = [
        column not in left and all(_is_number(row[column]) for row in rows) and bool(rows)
        for column in range(len(heads))
    ]
    kinds = [" class='num'" if number else "" for number in numeric]
    head = "".join(f"<th{kind}>{escaped(text)}</th>" for text, kind in zip(heads, kinds, strict=True))
    body = "".join(
        "<tr>" + "".join(f"<td{kind}>{escaped(text)}</td>" for text, kind in zip(row, kinds, strict=True)) + "</tr>"
        for row in rows
    )
    return f"<div class='wide'><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"


def _is_number(text: str) -> bool:
    return not text or text[0] in "-+" or text[0].isdigit()
