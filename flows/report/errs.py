"""Where the winner errs: its scores on slices of the sealed test, as a section of the page and of the model card."""

from __future__ import annotations

from flows.report import charts
from flows.report.html import figure, section, table
from flows.report.material import Material
from flows.report.svg import escaped
from pipeline.evaluation.finalists import Evaluation
from pipeline.evaluation.slices import MIN_ROWS, Slice, Sliced
from pipeline.objective import METRICS
from pipeline.text import markdown

MOST_DRAWN = 14
MOST_IN_CARD = 20


def slices(material: Material) -> str:
    evaluation = material.evaluation
    sliced = None if evaluation is None else evaluation.winner.sliced
    if evaluation is None or sliced is None or not sliced.slices:
        return ""
    worst = weakest(sliced, evaluation.metric)
    body = f"<p>{escaped(said(evaluation, sliced))}</p>"
    if worst:
        whole = evaluation.winner.test[worst[0].metric]
        body += figure(
            charts.slices(worst[:MOST_DRAWN], whole),
            "Dots and bars: a slice of the sealed test with its own interval; red is surely worse. The dashed line is "
            "all rows.",
        )
    metrics = list(evaluation.winner.test)
    rows = [
        [s.column, s.level, f"{s.n_rows:,}", *(f"{s.test[m].value:.4f}" if m in s.test else "" for m in metrics), _p(s)]
        for s in sliced.slices
    ]
    full = table(["column", "slice", "rows", *metrics, "p (Holm)"], rows, left=(0, 1))
    return section("Where it errs", f"{body}<details><summary>All {len(rows)} slices</summary>{full}</details>")


def said(evaluation: Evaluation, sliced: Sliced) -> str:
    """How many slices were looked at, how, and which of them are surely worse."""
    confidence = evaluation.winner.test[evaluation.metric].confidence
    left_out = [
        f"{sliced.n_small} with fewer than {MIN_ROWS} test rows" if sliced.n_small else "",
        f"{sliced.n_columns_left_out} columns beyond the first fifty" if sliced.n_columns_left_out else "",
    ]
    without = f" Left out: {', '.join(filter(None, left_out))}." if any(left_out) else ""
    worse = sliced.worse
    if worse:
        named = "; ".join(f"{s.name} ({s.metric} {s.score.value:.4f})" for s in worse[:5] if s.score is not None)
        more = f"; and {len(worse) - 5} more" if len(worse) > 5 else ""
        found = f"{len(worse)} {'is' if len(worse) == 1 else 'are'} worse: {named}{more}."
    else:
        found = "none is surely worse."
    within = (
        " ROC AUC ranks only a slice's own rows, so that it is lower where a strong column is the same for them all."
        if any(s.metric == "roc_auc" for s in worse)
        else ""
    )
    kinds = (
        "by level" if any(not s.is_bin and not s.is_class for s in sliced.slices) else "",
        "by quartile of the training rows" if any(s.is_bin for s in sliced.slices) else "",
        "by class" if any(s.is_class for s in sliced.slices) else "",
    )
    return (
        f"{sliced.n_compared} slices, {', '.join(filter(None, kinds))}, were compared with all rows. At "
        f"{confidence:.0%}, corrected for as many comparisons (Holm), {found}{without}{within}"
    )


def weakest(sliced: Sliced, metric: str) -> list[Slice]:
    """The surely worse ones, the surest first, then the others from the lowest score; those on the metric's scale."""
    rest = [s for s in sliced.slices if not s.worse and s.score is not None]
    rest.sort(key=lambda s: -METRICS[s.metric].rank_key(s.score.value if s.score else 0.0))
    ordered = [*sliced.worse, *rest]
    shown = next((s.metric for s in ordered if s.metric == metric), ordered[0].metric if ordered else metric)
    return [s for s in ordered if s.metric == shown]


def card_section(evaluation: Evaluation) -> str:
    """The same for the model card: the surely worse slices, then the weakest."""
    sliced = evaluation.winner.sliced
    if sliced is None or not sliced.slices:
        return ""
    worst = weakest(sliced, evaluation.metric)
    others = [s for s in sliced.worse if s not in worst]
    rows = [
        f"| {markdown(s.name)} | {s.n_rows:,} | {s.metric} {s.score} | {'worse' if s.worse else ''} |"
        for s in (*others, *worst)[:MOST_IN_CARD]
    ]
    head = "| slice | sealed test rows | score | than all rows |\n|---|---|---|---|\n"
    return f"## Metrics by slice\n\n{markdown(said(evaluation, sliced))}\n\n{head}" + "\n".join(rows)


def _p(s: Slice) -> str:
    return "" if s.p is None else f"{s.p:.2g}{' worse' if s.worse else ''}"
