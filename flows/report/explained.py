"""What the winner uses: importance of columns, or where it looks in an image or a sequence."""

from __future__ import annotations

from flows.report import charts, pictures
from flows.report.html import figure, section, table
from flows.report.material import Material
from flows.report.svg import escaped
from pipeline.evaluation.attribution import Attribution
from pipeline.evaluation.explanation import Explanation
from pipeline.evaluation.importance import Importance

TITLE = "What it uses"
MOST_DRAWN = 20


def explanation(material: Material) -> str:
    found, evaluation = material.explanation, material.evaluation
    if found is None or evaluation is None or found.trial != evaluation.winner.trial:
        return ""
    if found.importance is not None:
        return section(TITLE, _importance(found, found.importance))
    if found.attribution is not None:
        return section(TITLE, _attribution(found, found.attribution))
    return section(TITLE, f"<p class='note'>{escaped(found.missing)}</p>") if found.missing else ""


def drawing(found: Explanation) -> str | None:
    """The explanation's one drawing; None where there is none."""
    if found.importance is not None and found.importance.columns:
        return charts.column_importance(found.importance, MOST_DRAWN)
    return None if found.attribution is None else pictures.attention(found.attribution)


def _importance(found: Explanation, measured: Importance) -> str:
    left_out = f" {measured.n_left_out} columns were not measured." if measured.n_left_out else ""
    said = (
        f"How much {measured.metric} falls where one column is shuffled among {measured.n_rows:,} {found.rows}, "
        f"{measured.n_repeats} times: what the model makes of a column, not what the column causes. Columns that say "
        f"the same stand in for each other and both look unimportant.{left_out}"
    )
    body = f"<p>{escaped(said)}</p>"
    if measured.columns:
        caption = f"Dots: mean drop; bars: {measured.confidence:.0%} interval over draws of rows and orders."
        body += figure(charts.column_importance(measured, MOST_DRAWN), caption)
    if len(measured.columns) > MOST_DRAWN:
        rows = [[c.column, f"{c.drop:+.4f}", f"{c.low:+.4f}", f"{c.high:+.4f}"] for c in measured.columns]
        full = table(["column", "drop", "from", "to"], rows, left=(0,))
        body += f"<details><summary>All {len(rows)} columns</summary>{full}</details>"
    return body


def _attribution(found: Explanation, seen: Attribution) -> str:
    said = (
        f"Where {seen.n_rows} {found.rows} say most for the prediction: integrated gradients from the mean input in "
        f"{seen.n_steps} steps (captum), their size as a share of the row; the integration is off by {seen.error:.1%}. "
        f"Dark is much."
    )
    images = any(example.png for example in seen.examples)
    caption = "By true class." if images else "By true class: a line of cells a feature, time to the right."
    body = f"<p>{escaped(said)}</p>" + figure(pictures.attention(seen), caption)
    if len(seen.by_feature) > 1:
        ranked = sorted(enumerate(seen.by_feature, 1), key=lambda item: -item[1])
        rows = [[str(number), f"{share:.1%}"] for number, share in ranked]
        full = table(["feature", "share"], rows)
        body += f"<details><summary>Shares of the {len(rows)} features</summary>{full}</details>"
    return body
