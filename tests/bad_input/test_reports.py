"""What we write for people is text: no formula, no markup, no terminal's command in it acts."""

from __future__ import annotations

import csv
import io

import pytest

from flows.leaderboard import leaderboard, to_csv
from pipeline.errors import DataError
from pipeline.text import markdown, one_line
from pipeline.tracking.projection import NOTE, search_tags
from tests.tracking.records import record, search_info

FORMULAS = ("=1+1", "+1", "-1+1", "@SUM(A1)", "\t=1", "\r=1")
MARKUP = "<img src=x onerror=alert(1)> `code` | [x](javascript:alert(1)) \x1b[31m \u202e"


@pytest.mark.parametrize("text", FORMULAS)
def test_50_formulas_are_inert_in_the_leaderboard(text: str) -> None:
    rows = list(csv.reader(io.StringIO(to_csv(leaderboard([record(state="FAIL", error=text)])), newline="")))
    assert rows[1][-1] == f"'{text.replace(chr(13), ' ')}"
    assert len(rows) == 2


def test_75_markup_is_inert_in_what_we_write() -> None:
    note = search_tags(search_info(data_source=MARKUP))[NOTE]
    line = next(line for line in note.splitlines() if "rows of" in line)
    for active in ("<img", "[x](", "\x1b", "\u202e", " `code`", " | "):
        assert active not in line.partition("rows of")[2], active
    assert markdown("plain words, 0.95 and a-b_c") == "plain words, 0.95 and a-b\\_c"


def test_an_error_is_one_visible_line_of_bounded_length() -> None:
    message = str(DataError(f"{MARKUP}\n\n" + "x" * 100_000, "y" * 100_000, file="a\x1bb", line=3))
    assert message.startswith("a\\x1bb:3: <img")
    assert message.isprintable()
    assert len(message) < 2000
    assert one_line("a\n  b\tc", 10) == "a b c"
