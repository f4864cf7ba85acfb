"""Free text in a table to numbers: words and pairs of words, hashed to a fixed width."""

from __future__ import annotations

from typing import Annotated, Final

import numpy as np
import numpy.typing as npt
import pandas as pd
from pydantic import BaseModel, ConfigDict, Field
from sklearn.feature_extraction.text import HashingVectorizer

from pipeline.data.values import texts

MOST_FEATURES: Final = 1024
LEAST_FEATURES: Final = 64
MOST_VALUES: Final = 100_000_000
"""Values that the training rows of one column may become; more rows get fewer features."""
LONGEST: Final = 20_000
"""Characters of a text that are read."""


class TextColumn(BaseModel):
    """One column of free text. Nothing of it is fitted but the width, so a word that training did not have is read."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    n_features: Annotated[int, Field(ge=1, le=1 << 16)]

    def encode(self, column: pd.Series) -> npt.NDArray[np.float32]:
        """Shape: ``(N, n_features)``. A text with words has the norm of that many standard normal values."""
        text = texts(column).fillna("").str.slice(0, LONGEST)
        hashed = _vectorizer(self.n_features).transform(text.tolist())
        dense: npt.NDArray[np.float32] = hashed.toarray()
        dense *= np.sqrt(self.n_features)
        return dense


def fit_text(name: str, n_rows: int) -> TextColumn:
    """The width for so many training rows: a power of two."""
    n_features = MOST_FEATURES
    while n_features > LEAST_FEATURES and n_features * n_rows > MOST_VALUES:
        n_features //= 2
    return TextColumn(name=name, n_features=n_features)


def _vectorizer(n_features: int) -> HashingVectorizer:
    return HashingVectorizer(n_features=n_features, ngram_range=(1, 2), norm="l2", dtype=np.float32)
