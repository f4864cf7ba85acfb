"""Model packages: a trained model with all that raw rows need to become predictions, in files that hold no code."""

from __future__ import annotations

from pipeline.packaging.package import package_digest, write_trial_package
from pipeline.packaging.predictor import Predictor
from pipeline.packaging.verify import load_package

__all__ = ["Predictor", "load_package", "package_digest", "write_trial_package"]
