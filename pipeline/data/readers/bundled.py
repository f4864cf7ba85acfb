"""The small data sets that come with scikit-learn, as ``sklearn:NAME``."""

from __future__ import annotations

from typing import Final

import numpy as np
from sklearn import datasets

from pipeline.data.dataset import Dataset
from pipeline.data.readers.request import Request
from pipeline.errors import DataError

_LOADERS: Final = {
    "breast_cancer": datasets.load_breast_cancer,
    "diabetes": datasets.load_diabetes,
    "digits": datasets.load_digits,
    "iris": datasets.load_iris,
    "wine": datasets.load_wine,
}


def read_sklearn(request: Request) -> Dataset:
    """One of scikit-learn's bundled sets: digits is 1,797 images of 8 x 8, the others are tables.

    Raises:
        DataError: no such set, or a target that is not its own.
    """
    name = str(request.path)
    if name not in _LOADERS:
        raise DataError(f"there is no bundled data set sklearn:{name}", f"use one of {', '.join(_LOADERS)}")
    if request.target not in (None, "target"):
        raise DataError(f"sklearn:{name} predicts its own target, but data.target is {request.target!r}", "remove it")
    if name == "digits":
        request.refuse_other_than("image")
        bunch = datasets.load_digits()
        images = bunch.images.astype(np.uint8)[:, None]  # counts of 0 to 16, exact in a byte
        return Dataset("image", images, bunch.target if request.labelled else None, name)
    request.refuse_other_than("tabular")
    bunch = _LOADERS[name](as_frame=True)
    return Dataset("tabular", bunch.data, bunch.target.to_numpy() if request.labelled else None, name)
