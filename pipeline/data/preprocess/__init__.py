"""Raw features to tensors. A preprocessor is fitted on the training part only, stored with every model as plain JSON,
and is the one path from raw rows to a model, in a search as in serving."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from pipeline.data.preprocess.forecast import ForecastPreprocessor
from pipeline.data.preprocess.image import ImagePreprocessor
from pipeline.data.preprocess.sequence import SequencePreprocessor
from pipeline.data.preprocess.tabular import TabularPreprocessor
from pipeline.data.preprocess.target import encode_target
from pipeline.data.preprocess.tokens import TextPreprocessor

Preprocessor = Annotated[
    TabularPreprocessor | ImagePreprocessor | SequencePreprocessor | ForecastPreprocessor | TextPreprocessor,
    Field(discriminator="kind"),
]
"""Use ``pydantic.TypeAdapter(Preprocessor)``, or a field of this type, to read one back."""

__all__ = [
    "ForecastPreprocessor",
    "ImagePreprocessor",
    "Preprocessor",
    "SequencePreprocessor",
    "TabularPreprocessor",
    "TextPreprocessor",
    "encode_target",
]
