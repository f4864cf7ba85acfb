"""Searches and trials as the controller would say them."""

from __future__ import annotations

from typing import Any

from pipeline.models import FAMILIES
from pipeline.records import TrialRecord
from pipeline.tracking.base import FinalistInfo, SearchInfo
from pipeline.training.config import OptimisationConfig, TrialConfig
from pipeline.training.measurement import Measurement, State

SEARCH = "digits-20260101-120000"
STARTED = 1_767_000_000.0
PARAMS = {"mlp.n_layers": 2, "optimizer.lr": 0.01, "mlp.norm": "layer", "mlp.residual": True}
CONFIG = TrialConfig(family="mlp", model=FAMILIES["mlp"].config(), optimisation=OptimisationConfig())


def search_info(**changes: Any) -> SearchInfo:
    known = {
        "id": SEARCH,
        "experiment": "digits",
        "metric": "accuracy",
        "direction": "maximize",
        "params": {"search.sampler": "tpe", "search.seed": "0"},
        "config_yaml": "name: digits\n",
        "texts": {"data/card.md": "# Data"},
        "data_fingerprint": "f" * 64,
        "data_source": "data/digits.csv",
        "data_schema": {"age": "numeric", "town": "categorical"},
        "n_rows": 1797,
    }
    return SearchInfo.model_validate(known | changes)


def record(number: int = 12, state: State = "COMPLETE", n_epochs: int = 3, **changes: Any) -> TrialRecord:
    """A finished trial; its accuracy rises by 0.1 an epoch from 0.5."""
    curve = tuple(
        Measurement(
            trial=number, epoch=epoch, train_loss=2.0 / epoch, val_loss=3.0 / epoch,
            metrics={"accuracy": 0.4 + epoch / 10, "f1_macro": 0.3}, seconds=0.5 * epoch,
        )
        for epoch in range(1, n_epochs + 1)
    )  # fmt: skip
    failed = state == "FAIL"
    known = {
        "search": SEARCH,
        "number": number,
        "state": state,
        "config": CONFIG,
        "params": PARAMS,
        "metric": "accuracy",
        "objective": None if failed else 0.4 + n_epochs / 10,
        "best_epoch": None if failed else n_epochs,
        "curve": curve,
        "n_params": 4242,
        "train_s": 0.5 * n_epochs,
        "peak_mb": 321.0,
        "error": "loss is not finite at epoch 3" if failed else None,
        "traceback": "Traceback (most recent call last):\n  ...\n" if failed else None,
        "started": STARTED,
        "finished": STARTED + 10,
    }
    return TrialRecord.model_validate(known | changes)


def finalist(trial: int = 12) -> FinalistInfo:
    return FinalistInfo(
        trial=trial,
        family="mlp",
        params={"mlp.n_layers": 2},
        metrics={"test/accuracy": 0.91, "test/accuracy_lo": 0.88, "test/accuracy_hi": 0.94},
    )
