"""Raw texts from a file to a served champion: found by `init`, searched, packaged with their words, predicted."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import pytest
import yaml

from tests.flows.project import Project

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore:.*Any type hint")]  # MLflow 3.17.2 on our loader


def reviews(n: int) -> pd.DataFrame:
    """Good or bad, or the other way round after a ``not``; with words that say nothing."""
    rng = np.random.default_rng(0)
    filler = np.array(["a", "the", "film", "plot", "very", "it", "was", "really", "some", "story"])
    rows = []
    for _ in range(n):
        good, negated = rng.random(2) < 0.5
        words = list(rng.choice(filler, rng.integers(2, 9)))
        at = rng.integers(0, len(words) + 1)
        words[at:at] = (["not"] if negated else []) + ["good" if good else "bad"]
        rows.append((" ".join(words) + " !", "up" if good != negated else "down"))
    return pd.DataFrame(rows, columns=["review", "thumb"])


def test_raw_texts_are_searched_packaged_and_predicted(tmp_path: Path) -> None:
    table = reviews(1_500)
    table.to_csv(tmp_path / "said.csv", index=False)
    project = Project(tmp_path, "said")
    project.here("init", "said.csv", "--target", "thumb", "-o", project.file.name)
    written = yaml.safe_load(project.file.read_text())
    assert (written["data"]["kind"], written["search"]["families"]) == ("text", ["mlp", "lstm", "cnn"])
    pinned = ["--set", "search.families=[lstm]", "--set", "search.metric=accuracy", "--set", "train.max_epochs=6"]
    project.run("--trials", "1", *pinned)
    project.totals_agree(1)

    # The words of a model are in its package, as JSON under a hash, and belong to the training part.
    package = next((project.state / "artifacts").rglob("package"))
    description = (package / "data.json").read_bytes()
    entry = json.loads((package / "manifest.json").read_text())["files"]["data.json"]
    assert entry["sha256"] == hashlib.sha256(description).hexdigest()
    assert {"not", "good", "bad", "!"} <= set(json.loads(description)["preprocessor"]["words"])

    table[["review"]].head(300).to_csv(tmp_path / "new.csv", index=False)
    project.here("predict", "said", "new.csv", "-o", "out.csv")
    predicted = pd.read_csv(tmp_path / "out.csv")["prediction"]
    assert (predicted == table["thumb"].head(300)).mean() > 0.95  # without the order of words it is 0.5
    model = mlflow.pyfunc.load_model(str(package.parents[1]))
    texts = ["a good film !", "not good at all"]
    records = [{"review": text} for text in texts]
    for rows in (texts, pd.DataFrame({"review": texts}), pd.DataFrame({"text": texts}), records):
        assert model.predict(rows)["prediction"].tolist() == ["up", "down"]
