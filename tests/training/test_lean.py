"""A worker has the modules that it needs: torch's symbolic shapes and its compiler cost every search seconds."""

from __future__ import annotations

import subprocess
import sys

from tests.patience import PATIENCE_S

TRAIN = """
import sys
import torch
from pipeline.models import FAMILIES
from pipeline.training.config import TrainSettings
from pipeline.training.folded import build_learner
from search_spaces import default_trial
import pipeline.training.worker
from tests.training.cohorts import make

torch.set_num_threads(1)
settings = TrainSettings(metric="accuracy", max_epochs=2, patience=2)
for kind, families in {"image": ["mlp", "cnn"], "sequence": ["mlp", "cnn", "lstm"], "tabular": ["mlp"]}.items():
    data = make(kind, "multiclass")
    for family in families:
        for n in (1, 2) if FAMILIES[family].stack else (1,):
            configs = [default_trial(family, data.spec, seed) for seed in range(n)]
            learner = build_learner(configs, data, settings, torch.device("cpu"), together=n > 1)
            learner.train_epoch()
            learner.validate(data)
print(sorted({"sympy", "torch._dynamo", "torch._inductor"} & set(sys.modules)))
"""


def test_training_imports_neither_symbolic_shapes_nor_the_compiler() -> None:
    done = subprocess.run([sys.executable, "-c", TRAIN], capture_output=True, text=True, check=True, timeout=PATIENCE_S)
    assert done.stdout.strip() == "[]"
