"""The metrics that a search can optimise, by scikit-learn."""

from __future__ import annotations

import warnings

import numpy as np
import torch
import torch.nn.functional as F
from sklearn import metrics
from torch import Tensor

from pipeline.data.spec import DataSpec

MINIMISED = ("log_loss", "rmse", "mae")


def score(metric: str, outputs: Tensor, target: Tensor, spec: DataSpec) -> float:
    """A metric of a model's outputs: logits ``(N, C)``, or standardised values ``(N, 1)``, which are brought back to
    the target's units."""
    if spec.task == "regression":
        predicted, true = (v.double().numpy() * spec.target_scale + spec.target_mean for v in (outputs[:, 0], target))
        match metric:
            case "rmse":
                return float(np.sqrt(metrics.mean_squared_error(true, predicted)))
            case "mae":
                return float(metrics.mean_absolute_error(true, predicted))
            case "r2":
                return float(metrics.r2_score(true, predicted))
        raise ValueError(f"{metric} is no metric of a quantity")
    outputs, predicted = outputs.double(), outputs.argmax(1).numpy()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a fold may lack a class, and the score is NaN there
        match metric:
            case "accuracy":
                return float(metrics.accuracy_score(target, predicted))
            case "balanced_accuracy":
                return float(metrics.balanced_accuracy_score(target, predicted))
            case "f1_macro":
                return float(metrics.f1_score(target, predicted, average="macro", zero_division=0))
            case "log_loss":
                return float(F.cross_entropy(outputs, target))
            case "roc_auc":
                difference = outputs[:, 1] - outputs[:, 0]
                return float(metrics.roc_auc_score(target, difference)) if len(torch.unique(target)) > 1 else np.nan
    raise ValueError(f"{metric} is no metric of classes")
