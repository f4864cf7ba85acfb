"""How much each row moves a metric, and from it the metric's standard error without resampling: the infinitesimal
jackknife (Efron and Tibshirani 1993, section 22.6). For ROC AUC it is the error of DeLong et al. 1988.

Axes: N rows, C outputs.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from pipeline.data.spec import DataSpec


def influences(outputs_NC: Tensor, target_N: Tensor, spec: DataSpec) -> dict[str, Tensor]:
    """The influence of every row on every metric of the task, float64 ``(N,)`` with mean 0: what the metric changes by,
    times N, where the row counts a little more. A metric that is undefined on these rows is left out.

    The variance of the metric over draws of rows is about the mean of the squares, divided by N.
    """
    outputs_NC, target_N = outputs_NC.detach().double().cpu(), target_N.cpu()
    if spec.task == "regression":
        return _regression(outputs_NC[:, 0], target_N.double(), spec.target_scale)
    return _classification(outputs_NC, target_N, binary=spec.task == "binary")


def _regression(prediction_N: Tensor, target_N: Tensor, scale: float) -> dict[str, Tensor]:
    error_N = prediction_N - target_N
    square_N, size_N = error_N.square(), error_N.abs()
    mse, found = square_N.mean(), {"mae": (size_N - size_N.mean()) * scale}
    found["rmse"] = (square_N - mse) / (2 * mse.sqrt()) * scale if mse > 0 else torch.zeros_like(error_N)
    spread_N = (target_N - target_N.mean()).square()
    variance = spread_N.mean()
    if variance > 0:
        found["r2"] = -((square_N - mse) / variance - mse / variance.square() * (spread_N - variance))
    return found


def _classification(outputs_NC: Tensor, target_N: Tensor, *, binary: bool) -> dict[str, Tensor]:
    C = outputs_NC.shape[1]
    predicted_N = outputs_NC.argmax(1)
    true_NC, predicted_NC = (F.one_hot(codes, C).double() for codes in (target_N, predicted_N))
    right_N = (predicted_N == target_N).double()
    share_C, predicted_C, hit_C = true_NC.mean(0), predicted_NC.mean(0), (true_NC * predicted_NC).mean(0)
    present_C = share_C > 0
    seen_C = (share_C + predicted_C) > 0
    recall_C = torch.where(present_C, hit_C / share_C.where(present_C, torch.ones(())), 0.0)
    both_C = (share_C + predicted_C).where(seen_C, torch.ones((), dtype=torch.float64))
    f1_NC = (2 * true_NC * predicted_NC - (2 * hit_C / both_C) * (true_NC + predicted_NC)) / both_C
    loss_N = F.cross_entropy(outputs_NC, target_N, reduction="none")
    found = {
        "accuracy": right_N - right_N.mean(),
        "balanced_accuracy": (right_N - recall_C[target_N]) / share_C[target_N] / present_C.sum(),
        "f1_macro": f1_NC.sum(1) / seen_C.sum(),
        "log_loss": loss_N - loss_N.mean(),
    }
    if binary and 0 < int(target_N.sum()) < len(target_N):
        found["roc_auc"] = _roc_auc(outputs_NC[:, 1] - outputs_NC[:, 0], target_N)
    return found


def _roc_auc(score_N: Tensor, target_N: Tensor) -> Tensor:
    """By the share of the other class that a row is ranked right against, ties by half: DeLong's placements."""
    positive_N = target_N == 1
    influence_N = torch.empty_like(score_N)
    for mine_N, sign in ((positive_N, 1.0), (~positive_N, -1.0)):
        others = (sign * score_N[~mine_N]).sort().values
        own = (sign * score_N[mine_N]).contiguous()
        ranked = torch.searchsorted(others, own) + torch.searchsorted(others, own, right=True)
        placed = ranked.double() / (2 * len(others))
        influence_N[mine_N] = (placed - placed.mean()) * (len(score_N) / len(own))
    return influence_N
