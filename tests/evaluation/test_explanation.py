"""Every kind of data has its explanation, on rows that are no test rows; without captum it says how to get it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from pipeline.data.spec import Kind, Task
from pipeline.data.tensors import Development, Part
from pipeline.evaluation import explanation
from pipeline.evaluation.explanation import Explanation, explain
from pipeline.objective import METRICS
from pipeline.packaging.predictor import Predictor
from tests.packaging.cases import PROVENANCE, make_case

TASKS: dict[Task, tuple[Any, ...]] = {"regression": (), "binary": ("no", "yes"), "multiclass": (0, 1, 2)}


def explained(
    directory: Path, kind: Kind, family: str, task: Task = "multiclass", n_folds: int = 0, temperature: float = 1.0
) -> Explanation:
    """An untrained model's explanation on its forty rows."""
    case = make_case(directory, kind, family, task, TASKS[task])
    spec = case.spec.model_copy(update={"n_folds": n_folds})
    inputs = case.preprocessor.transform(case.features)
    n = len(inputs.x)
    target = torch.linspace(-1, 1, n) if task == "regression" else torch.arange(n) % spec.n_outputs
    part = Part(inputs, target)
    model = Predictor(spec, case.preprocessor, case.config, PROVENANCE, case.module, temperature)
    metric = METRICS["rmse" if task == "regression" else "log_loss"]
    return explain(7, model, Development(spec, part, part, "f"), metric, confidence=0.95, seed=0)


@pytest.mark.parametrize("task", TASKS)
def test_a_table_has_the_importance_of_its_raw_columns(tmp_path: Path, task: Task) -> None:
    found = explained(tmp_path, "tabular", "mlp", task)
    assert found.importance is not None
    assert {c.column for c in found.importance.columns} == {"age", "wage", "town"}
    assert found.rows == "validation rows"
    assert Explanation.model_validate_json(found.model_dump_json()) == found


def test_it_is_the_calibrated_model_that_is_explained(tmp_path: Path) -> None:
    plain, calibrated = (explained(tmp_path / str(t), "tabular", "mlp", temperature=t).importance for t in (1.0, 5.0))
    assert plain is not None
    assert calibrated is not None
    assert calibrated.score < plain.score, "an untrained model is surer than it should be"


@pytest.mark.parametrize(("kind", "family"), [("image", "cnn"), ("sequence", "lstm")])
@pytest.mark.parametrize("task", TASKS)
def test_images_and_sequences_have_maps(tmp_path: Path, kind: Kind, family: str, task: Task) -> None:
    pytest.importorskip("captum", reason="captum is not installed")
    found = explained(tmp_path, kind, family, task)
    assert found.attribution is not None
    assert list(found.attribution.mean) == ([str(label) for label in TASKS[task]] or ["all rows"])
    assert Explanation.model_validate_json(found.model_dump_json()) == found


def test_under_cross_validation_it_says_that_the_rows_are_not_new(tmp_path: Path) -> None:
    assert "trained on them too" in explained(tmp_path, "tabular", "mlp", n_folds=5).rows


@pytest.mark.parametrize(("kind", "family"), [("image", "cnn"), ("sequence", "lstm")])
def test_without_captum_it_says_how_to_get_it(
    kind: Kind, family: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(explanation, "has_captum", lambda: False)
    found = explained(tmp_path, kind, family)
    assert found.attribution is None
    assert found.missing is not None
    assert found.missing.startswith(f"Where the model looks in {kind}s is shown with captum")
    assert "pip install 'automl-pipeline[explain]'" in found.missing
