"""30 to 50: CSV and parquet. `tests/data/test_malformed.py` prepares real files with the same faults."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.data import prepare as preparing
from tests.bad_input.cases import GOOD, ROWS, TABLE, Case, User, csv, elsewhere, experiment, source, table

LINES = TABLE.splitlines()
COLUMNS = {"x": [row[0] for row in ROWS], "colour": [row[1] for row in ROWS], "y": [row[2] for row in ROWS]}


def with_column(name: str, cell: Callable[[int], str]) -> str:
    """The good table with another column in front of the target."""
    head, *rows = (line.rsplit(",", 1) for line in LINES)
    return "\n".join([f"{head[0]},{name},y", *(f"{row},{cell(i)},{y}" for i, (row, y) in enumerate(rows))]) + "\n"


def with_target(cell: Callable[[int], str]) -> str:
    """The good table with another target."""
    return "x,colour,y\n" + "".join(f"{x},{colour},{cell(i)}\n" for i, (x, colour, _) in enumerate(ROWS))


def parquet(**columns: object) -> Callable[[Path], object]:
    return lambda path: pq.write_table(pa.table({**COLUMNS, **columns}), path)


def on_parquet(content: bytes | Callable[[Path], object]) -> dict[str, object]:
    return source("train.parquet", content, target="y")


def bomb(path: Path) -> None:
    """20 million rows in a few hundred kilobytes."""
    columns = pa.table({"x": pa.array(np.zeros(1_000_000)), "y": pa.array(np.zeros(1_000_000, dtype=np.int8))})
    with pq.ParquetWriter(path, columns.schema, compression="zstd") as writer:
        for _ in range(20):
            writer.write_table(columns, row_group_size=1_000_000)


def long_texts(path: Path) -> None:
    """Few rows, but gigabytes of text, in some 100 kilobytes."""
    cells = pa.array(["a" * 110_000_000] + ["b"] * 59)
    pq.write_table(
        pa.table({**COLUMNS, "text": cells}), path, compression="zstd", use_dictionary=False, write_statistics=False
    )


def pickled_metadata(path: Path) -> None:
    """A file whose pandas metadata is a pickle that leaves a mark."""
    mark = f"cposix\nsystem\n(S'touch {path.parent / 'it-ran'}'\ntR.".encode()
    pq.write_table(pa.table(COLUMNS).replace_schema_metadata({b"pandas": mark}), path)


def gzip_bomb(path: Path) -> None:
    """500 megabytes of rows in half a megabyte."""
    rows = gzip.compress(b"1,red,yes\n" * 1_000_000)
    path.write_bytes(gzip.compress(TABLE.encode()) + 50 * rows)


def leaking(path: Path) -> None:
    """240 rows with the target in another language beside it."""
    rows = [f"{i % 11},{'ja' if i % 2 else 'nein'},{'yes' if i % 2 else 'no'}" for i in range(240)]
    path.write_text("\n".join(["x,z,y", *rows]))


STAMPS = pa.array([datetime(2026, 1, 1, i % 24, tzinfo=UTC) for i in range(60)], pa.timestamp("us", tz="Europe/Berlin"))
WIDE = ",".join(f"c{i}" for i in range(1_000_000))

CASES = (
    Case(30, "an empty file", "train.csv: the file is empty", csv("")),
    Case(30, "blank lines only", "the file is empty", csv("\n\n \n")),
    Case(31, "a header only", "the table has no rows", csv("x,colour,y\n")),
    Case(32, "a column name twice", "'x' occurs more than once", csv(TABLE.replace("x,colour", "x,x"))),
    Case(33, "a row that is too long", "train.csv:31: ", csv("\n".join([*LINES[:30], LINES[30] + ",1", *LINES[31:]]))),
    Case(34, "a row that is too short", "train.csv:31: ", csv("\n".join([*LINES[:30], "1,red", *LINES[31:]]))),
    Case(35, "one field more than the header in every row", "train.csv:2: ",
         csv("\n".join([LINES[0], *(f"{line},1" for line in LINES[1:])]))),
    Case(36, "a NUL byte", "train.csv:4: the text has a NUL byte", csv("\n".join([*LINES[:3], "1\0,red,yes", *LINES[4:]]))),
    Case(37, "Latin-1", "read as Windows-1252 (line 2 has the byte 0xe9)", csv(TABLE.replace("blue", "caf\xe9").encode("latin-1")), "warned"),
    Case(37, "bytes of no encoding", "train.csv:2: the file must be UTF-8, but has the byte 0x81", csv(TABLE.encode().replace(b"blue", b"\x81"))),
    Case(37, "UTF-16", "read as UTF-16", csv(TABLE.encode("utf-16")), "warned"),
    Case(37, "UTF-16 cut in a letter", "the UTF-16 text is damaged", csv(TABLE.encode("utf-16")[:-1])),
    Case(37, "UTF-16 without its mark", "NUL byte", csv(TABLE.encode("utf-16-le"))),
    Case(38, "infinities and 1e400", "2 of ", csv(with_column("z", lambda i: {3: "1e400", 4: "inf"}.get(i, str(i % 9)))), "warned"),
    Case(39, "an integer of 25 digits", "z: numeric", csv(with_column("z", lambda i: "1234567890123456789012345" if i == 5 else str(i % 9))), "accepted"),
    Case(40, "a text among numbers", "('oops')", csv(with_column("z", lambda i: "oops" if i == 5 else str(i % 9))), "warned"),
    Case(40, "a text among numbers to predict", "'oops'", csv(with_target(lambda i: "oops" if i == 5 else str(i * 1.5)))),
    Case(41, "a quote that is not closed", "train.csv:", csv(TABLE.replace("blue", '"blue', 1))),
    Case(41, "a header with such a quote", "train.csv:", csv('"' + TABLE)),
    Case(42, "pandas' index column", "Unnamed: 0: counts the rows",
         csv("\n".join(f",{line}" if i == 0 else f"{i},{line}" for i, line in enumerate(LINES)) + "\n"), "warned"),
    Case(43, "no target column", "there is no target column 'y'; ", csv(TABLE.replace(",y", ",why"))),
    Case(43, "a constant target", "must have 2 or more distinct values, but all 60 rows have 'yes'", csv(with_target(lambda i: "yes"))),
    Case(43, "a target without values", "the target 'y' has no values", csv(with_target(lambda i: ""))),
    Case(43, "a class with one row", "single row", csv(with_target(lambda i: "c" if i == 7 else "ab"[i % 2])), "warned"),
    Case(43, "a class a row", "60 classes in 60 rows", csv(with_target(lambda i: f"class {i}"))),
    Case(44, "the target under another name", "a leak, unless", csv(leaking), "warned"),
    Case(44, "a target of numbers under another name", "a leak, unless",
         csv("a,z,y\n" + "".join(f"{i * 7 % 11},{i * 1.5 + 1},{i * 1.5}\n" for i in np.random.default_rng(0).permutation(60))), "warned"),
    Case(44, "the target under another name, where leaks are errors", "checks.leakage: warn to go on",
         {**csv(leaking), "bad.yaml": GOOD + "checks: {leakage: error}\n"}),
    Case(44, "the target under another name, where leaks are off", "binary",
         {**csv(leaking), "bad.yaml": GOOD + "checks: {leakage: off}\n"}, "accepted"),
    Case(44, "a record over time that is divided at random", "set data.split: {by: time, column: day}",
         csv(with_column("day", lambda i: f"2024-{1 + i // 28:02d}-{1 + i % 28:02d}"))),
    Case(45, "nine rows", "must have >= 10 rows with a target, but has 9", csv("\n".join(LINES[:10]))),
    Case(45, "a million columns", "columns", csv(f"{WIDE},y\n" + f"{'1,' * 1_000_000}2\n")),
    Case(45, "a million columns of one name", "columns", csv(f"{'c,' * 1_000_000}y\n" + f"{'1,' * 1_000_000}2\n")),
    Case(46, "a parquet bomb", "20,000,000 rows", on_parquet(bomb)),
    Case(46, "a parquet bomb of long texts", "train.parquet: ", on_parquet(long_texts)),
    Case(47, "a parquet file cut off", "not readable parquet", on_parquet(lambda p: (parquet()(p), p.write_bytes(p.read_bytes()[:-20])))),
    Case(47, "no parquet at all", "not readable parquet", on_parquet(TABLE.encode())),
    Case(47, "an empty parquet file", "not readable parquet", on_parquet(b"")),
    Case(47, "nested values", "n: the type list<", on_parquet(parquet(n=[[1, 2]] * 60)), "warned"),
    Case(47, "bytes", "b: the type binary is not used", on_parquet(parquet(b=[b"\x80"] * 60)), "warned"),
    Case(47, "decimals", "d: numeric", on_parquet(parquet(d=[Decimal(i % 7) / 8 for i in range(60)])), "accepted"),
    Case(47, "times with a zone", "t: ", on_parquet(parquet(t=STAMPS)), "accepted"),
    Case(47, "a nested target", "the target 'y' has the type list<", on_parquet(parquet(y=[[1]] * 60))),
    Case(48, "pickled metadata", "mlp ", on_parquet(pickled_metadata), "accepted"),
    Case(50, "formulas in cells", "z: categorical", csv(with_column("z", lambda i: ["=1+1", "@x", "+a", "-b"][i % 4])), "accepted"),
    Case(50, "an escape sequence in a name", "\\x1b[31mred", csv(TABLE.replace("colour", "\x1b[31mred\u202e")), "accepted"),
    Case(65, "a gzip bomb of rows", "train.csv.gz: ", {**experiment(""), "bad.yaml": "name: bad\ndata: {source: train.csv.gz, target: y}\n",
         "train.csv.gz": gzip_bomb}),
    elsewhere(49, "a file that changes while it is read", "tests/bad_input/test_tables.py::test_49_a_file_that_changes_while_it_is_read"),
    elsewhere(50, "formulas in our CSV report", "tests/bad_input/test_reports.py::test_50_formulas_are_inert_in_the_leaderboard"),
    elsewhere(30, "real files with such faults, refused", "tests/data/test_malformed.py::test_it_is_refused_in_one_line"),
)  # fmt: skip


@table(CASES)
def test_tables(user: User, case: Case) -> None:
    user.meets(case)
    assert not (user.folder / "it-ran").exists()


def test_49_a_file_that_changes_while_it_is_read(user: User, monkeypatch: pytest.MonkeyPatch) -> None:
    read = preparing.read_located

    def while_somebody_appends(*arguments: object) -> object:
        with (user.folder / "train.csv").open("a") as file:
            file.write("1,red,yes\n")
        return read(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(preparing, "read_located", while_somebody_appends)
    user.meets(Case(49, "it grows", "train.csv: the data changed while it was read; run again"))
