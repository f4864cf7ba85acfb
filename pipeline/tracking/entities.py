"""Our values as MLflow's entities."""

from __future__ import annotations

import getpass
import json
from collections.abc import Iterable, Mapping
from typing import Final

from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, RunTag

from pipeline.tracking.base import SearchInfo
from pipeline.tracking.projection import Point

MAX_DIGEST: Final = 36
MAX_SCHEMA: Final = 1_000_000
COLUMN_TYPES: Final = {"numeric": "double", "categorical": "string"}


def metrics(points: Iterable[Point]) -> list[Metric]:
    """Metric values with their steps and times."""
    return [Metric(point.key, point.value, point.timestamp, point.step) for point in points]


def params(texts: Mapping[str, str]) -> list[Param]:
    """Params."""
    return [Param(name, value) for name, value in texts.items()]


def tags(texts: Mapping[str, str]) -> list[RunTag]:
    """Tags."""
    return [RunTag(name, value) for name, value in texts.items()]


def source_tags() -> dict[str, str]:
    """Who and what made a run: columns of MLflow's run table."""
    return {"mlflow.user": getpass.getuser(), "mlflow.source.name": "automl", "mlflow.source.type": "LOCAL"}


def dataset_input(info: SearchInfo) -> DatasetInput:
    """The data set as MLflow shows it beside a run, made once a search."""
    columns = [
        {"name": name, "type": COLUMN_TYPES.get(kind, kind), "required": False}
        for name, kind in info.data_schema.items()
    ]
    schema = json.dumps({"mlflow_colspec": columns})
    dataset = Dataset(
        name=info.data_source[-500:],
        digest=info.data_fingerprint[:MAX_DIGEST],
        source_type="local",
        source=json.dumps({"uri": info.data_source}),
        schema=schema if len(schema) <= MAX_SCHEMA else json.dumps({"mlflow_colspec": []}),
        profile=json.dumps({"num_rows": info.n_rows, "num_features": len(columns)}),
    )
    return DatasetInput(dataset, [InputTag("mlflow.data.context", "training")])
