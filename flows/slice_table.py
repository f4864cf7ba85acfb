"""A finalist's scores by slice as a table that MLflow's UI shows."""

from __future__ import annotations

import csv
import io

from pipeline.evaluation.finalists import Evaluation
from pipeline.evaluation.slices import Sliced
from pipeline.text import inert


def slices_csv(evaluation: Evaluation, sliced: Sliced) -> str:
    """Every slice of a finalist as CSV, with bounds of its intervals."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    metrics = list(evaluation.winner.test)
    bounds = [name for metric in metrics for name in (metric, f"{metric}_lo", f"{metric}_hi")]
    writer.writerow(["column", "slice", "rows", *bounds, "compared by", "p (Holm)", "worse"])
    for s in sliced.slices:
        scores = [s.test.get(metric) for metric in metrics]
        values = [
            v for score in scores for v in (("", "", "") if score is None else (score.value, score.low, score.high))
        ]
        writer.writerow(
            [inert(s.column), inert(s.level), s.n_rows, *values, s.metric, "" if s.p is None else s.p, s.worse]
        )
    return text.getvalue()
