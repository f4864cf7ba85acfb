"""Texts to codes of words: the vocabulary of the training texts, in the order of frequency.

Words, not pieces of words: a vocabulary of pieces pays with far more text than is searched here, and the library that
fits one (tokenizers) brings a network client along.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from functools import cached_property
from typing import Annotated, Any, Final, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from pydantic import BaseModel, ConfigDict, Field

from pipeline.data.dataset import Features
from pipeline.data.readers.request import MAX_CELLS
from pipeline.data.tensors import Inputs
from pipeline.data.values import texts
from pipeline.errors import DataError

MAX_WORDS: Final = 20_000
MIN_COUNT: Final = 2
"""A word that occurs once in training cannot be learned; as an unknown one it teaches what to do with those."""
MAX_STEPS: Final = 256
"""Tokens of a text that are read."""
LONGEST: Final = 20_000
"""Characters of a text that are looked at."""
UNKNOWN: Final = 1
"""Code of words that are not in the vocabulary; 0 is padding."""
_TOKEN: Final = re.compile(r"\w+(?:['’]\w+)*|([^\w\s])\1*")
_DIGIT: Final = re.compile(r"\d")


def tokens(text: str) -> list[str]:
    """Words in lower case, and runs of one punctuation mark; a text without any is one empty token."""
    found = [match.group() for match in _TOKEN.finditer(text[:LONGEST].lower())]
    return found[:MAX_STEPS] or [""]


def shape_of(word: str) -> str:
    """What stands for a word that is not in the vocabulary: its digits as zeros, so that numbers of a size are one."""
    return _DIGIT.sub("0", word)


class TextPreprocessor(BaseModel):
    """Fitted on training texts."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["text"] = "text"
    column: str
    words: Annotated[tuple[str, ...], Field(min_length=1, max_length=MAX_WORDS)]
    """The vocabulary: the word at position i has the code i + 2."""
    n_steps: Annotated[int, Field(ge=1, le=MAX_STEPS)]
    """Tokens of the longest training text."""

    @property
    def n_tokens(self) -> int:
        """Codes there are, those of padding and unknown words among them."""
        return len(self.words) + 2

    @property
    def schema_of_features(self) -> dict[str, str]:
        return {self.column: "text"}

    def transform(self, features: Features) -> Inputs:
        """Shape: a table with the column or a single other one, or N strings in; x int32 ``(N, max(n_steps, longest))``
        and lengths out.

        A text that is missing or empty is one unknown word.

        Raises:
            DataError: a table without the column, or rows that are no texts.
        """
        rows = [tokens(text) for text in self._texts(features)]
        lengths = np.array([len(row) for row in rows], dtype=np.int64)
        longest = max(self.n_steps, int(lengths.max(initial=0)))
        if len(rows) * longest > MAX_CELLS:
            raise DataError(
                f"{len(rows)} texts of {longest} words are more than {MAX_CELLS:,} values",
                "take a sample, or predict in smaller batches",
            )
        x = np.zeros((len(rows), longest), dtype=np.int32)
        for position, row in enumerate(rows):
            x[position, : len(row)] = [self._code(word) for word in row]
        return Inputs(torch.from_numpy(x), lengths=torch.from_numpy(lengths))

    def _texts(self, features: Features) -> list[str]:
        if isinstance(features, pd.DataFrame):
            if self.column not in features.columns and len(features.columns) != 1:
                raise DataError(f"the table lacks the column {self.column!r}", "add what the model was trained on")
            name = self.column if self.column in features.columns else features.columns[0]
            features = features[name].to_numpy(dtype=object)
        return text_list(features)

    def _code(self, word: str) -> int:
        codes = self._codes
        return codes.get(word) or codes.get(shape_of(word), UNKNOWN)

    @cached_property
    def _codes(self) -> dict[str, int]:
        return {word: position + 2 for position, word in enumerate(self.words)}


def text_list(values: Any) -> list[str]:
    """Cells as texts; a missing one is empty.

    Raises:
        DataError: a cell is an array or a list.
    """
    cells: npt.NDArray[Any] = np.empty(len(values), dtype=object)
    cells[:] = list(values)
    nested = next((cell for cell in cells if isinstance(cell, np.ndarray | list | tuple | dict)), None)
    if nested is not None:
        raise DataError(f"a text must be a string, but got a {type(nested).__name__}", "give one string a row")
    filled: list[str] = texts(cells).fillna("").tolist()
    return filled


def fit_tokens(column: str, values: Any) -> TextPreprocessor:
    """Fit on training texts.

    Raises:
        DataError: no word occurs twice.
    """
    rows = [tokens(text) for text in text_list(values)]
    words = vocabulary(word for row in rows for word in row)
    if not words:
        raise DataError(f"no word of {column!r} occurs in two places", "add texts, or set data.kind to tabular")
    return TextPreprocessor(column=column, words=words, n_steps=max(map(len, rows)))


def vocabulary(words: Iterable[str]) -> tuple[str, ...]:
    """Words that occur `MIN_COUNT` times, and the shapes of the others that do, the most frequent first; ties go by
    name."""
    counts = Counter(words)
    counts.pop("", None)
    known = {word: count for word, count in counts.items() if count >= MIN_COUNT}
    shapes: Counter[str] = Counter()
    for word, count in counts.items():
        if word not in known and (shape := shape_of(word)) != word:
            shapes[shape] += count
    for shape, count in shapes.items():
        if count >= MIN_COUNT:
            known[shape] = known.get(shape, 0) + count
    return tuple(sorted(known, key=lambda word: (-known[word], word))[:MAX_WORDS])
