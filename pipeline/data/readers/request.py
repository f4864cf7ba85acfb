"""What a reader is asked for, and the file access that all of them share."""

from __future__ import annotations

import gzip
import os
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

from pipeline.data.spec import Kind
from pipeline.errors import DataError

MAX_BYTES: Final = 8 << 30
"""Largest file that is read, after decompression."""
MAX_CELLS: Final = 500_000_000
"""Most values (rows times columns, pixels, steps times features) of one data set."""
MAX_COLUMNS: Final = 50_000
"""Most columns of a table: looking at one costs about a millisecond."""
MAX_RATIO: Final = 100
"""Most bytes that a compressed byte may unpack to, above `SMALL`: data packs 2 to 20 times, a bomb 1,000 times."""
SMALL: Final = 100 << 20
PIECE: Final = 16 << 20


@dataclass(frozen=True, slots=True)
class Request:
    """One source to read.

    Args:
        path: the file; for ``scheme:name`` sources only its text is used.
        target: the target's column or array; None where the user named none.
        kind: what the user or a stored model says the data is; None leaves it to the reader.
        shape: ``(C, H, W)`` that images are brought to, where a training part or a model has settled it.
        labelled: False on the prediction path, where a target is left out if it is there and not missed if it is not.
    """

    path: Path
    target: str | None = None
    kind: Kind | None = None
    labelled: bool = True
    shape: tuple[int, ...] | None = None

    @property
    def wants_table(self) -> bool:
        """Whether rows are wanted as a table's, whatever its cells hold; texts are a column of one."""
        return self.kind in {"tabular", "text"}

    def refuse_other_than(self, *kinds: Kind) -> None:
        """Raises DataError when the request is for a kind that the format cannot hold. Texts are held by tables."""
        if self.kind is not None and self.kind not in kinds and not (self.wants_table and "tabular" in kinds):
            raise DataError(
                f"the format holds {' or '.join(kinds)} data, but data.kind is {self.kind}",
                f"set data.kind to auto or {kinds[0]}",
                file=self.path,
            )


def read_bytes(path: Path) -> bytes:
    """A file's content, decompressed when it is gzip (by its first bytes: names can lie).

    Raises:
        DataError: the file cannot be read, ends early, is damaged, or is larger than `MAX_BYTES`.
    """
    try:
        with path.open("rb") as file:
            compressed = file.read(2) == b"\x1f\x8b"
            file.seek(0)
            content = _unpacked(file, path) if compressed else file.read(MAX_BYTES + 1)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise DataError(f"the gzip file is damaged ({error})", "download or compress it again", file=path) from error
    except OSError as error:
        raise DataError(f"the file cannot be read ({error.strerror})", "check the path", file=path) from error
    if len(content) > MAX_BYTES:
        raise DataError(f"a file must be <= {MAX_BYTES >> 30} GiB uncompressed", "take a sample of it", file=path)
    return content


def _unpacked(file: BinaryIO, path: Path) -> bytes:
    """A gzip file's content, read in pieces so that a bomb is seen before it goes off."""
    parts: list[bytes] = []
    size, packed = 0, os.fstat(file.fileno()).st_size
    with gzip.GzipFile(fileobj=file) as unpacking:
        while size <= MAX_BYTES and (part := unpacking.read(PIECE)):
            size += len(part)
            check_ratio(size, packed, path)
            parts.append(part)
    return b"".join(parts)


def check_ratio(size: int, packed: int, path: Path) -> None:
    """Raises DataError where `packed` bytes of a file unpack to `size` bytes or more, and no data is like that."""
    if size > SMALL and size > MAX_RATIO * packed:
        raise DataError(
            f"its {packed:,} bytes unpack to {size:,} or more, more than {MAX_RATIO} times as many",
            "unpack it yourself if you trust it",
            file=path,
        )


def check_columns(n_columns: int, path: Path) -> None:
    """Raises DataError above `MAX_COLUMNS`."""
    if n_columns > MAX_COLUMNS:
        raise DataError(
            f"a table must have <= {MAX_COLUMNS:,} columns, but has {n_columns:,}", "leave columns out", file=path
        )


def check_size(n_cells: int, path: Path) -> None:
    """Raises DataError above `MAX_CELLS`; called before anything of that size is allocated."""
    if n_cells > MAX_CELLS:
        raise DataError(
            f"a data set must have <= {MAX_CELLS:,} values, but has {n_cells:,}",
            "take a sample of it, or leave columns out",
            file=path,
        )
