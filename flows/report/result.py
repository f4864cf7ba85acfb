"""What the sealed test said: finalists, mistakes, calibration, cost."""

from __future__ import annotations

from flows.report import charts, pictures
from flows.report.html import figure, section, table
from flows.report.material import Material
from flows.report.svg import escaped
from pipeline.evaluation.finalists import Evaluation, Finalist


def finalists(material: Material) -> str:
    evaluation = material.evaluation
    if evaluation is None:
        return ""
    metric, colours = evaluation.metric, charts.families_of(material.records)
    others = [name for name in evaluation.winner.test if name != metric]
    rows = [
        [f"#{f.trial:03d}", f.family, f.score, str(f.test[metric])]
        + [f"{f.test[name].value:.4f}" if name in f.test else "" for name in others]
        for f in evaluation.finalists
    ]
    body = (
        f"<p>Read once on {evaluation.n_rows:,} sealed rows, after validation had chosen. The winner's validation "
        f"score flatters by {evaluation.optimism:+.4f}.</p>"
    )
    body += table(["trial", "family", f"validation {metric}", f"test {metric}", *others], rows)
    body += figure(
        charts.intervals(evaluation, colours), "Dots and bars: sealed test with its interval. Crosses: validation."
    )
    body += figure(
        charts.curves(material.records, [f.trial for f in evaluation.finalists], colours),
        "Validation by epoch, the winner strong; dots are the epochs whose weights were kept.",
    )
    if evaluation.versus_champion is not None:
        said = f"Against champion v{evaluation.champion} on the same rows: {evaluation.versus_champion.told(metric)}."
        body += f"<p>{escaped(said)}</p>"
    if evaluation.winner.coverage is not None:
        body += f"<p>The winner's conformal {escaped(evaluation.winner.coverage.story)}</p>"
    return section("Finalists on the sealed test", body)


def mistakes(material: Material) -> str:
    evaluation = material.evaluation
    if evaluation is None:
        return ""
    if evaluation.confusion is not None:
        counted = evaluation.confusion
        worst = sorted(
            (
                (count, true, predicted)
                for true, row in zip(counted.labels, counted.rows, strict=True)
                for predicted, count in zip(counted.labels, row, strict=True)
                if true != predicted and count
            ),
            key=lambda item: -item[0],
        )[:5]
        said = "; ".join(f"{true} taken for {predicted}: {count}" for count, true, predicted in worst)
        drawing = figure(charts.confusion_matrix(counted), "Sealed test rows by true and predicted class.")
        words = f"<p>{escaped(f'Most often {said}.' if said else 'None on these rows.')}</p>"
        return section("Mistakes", drawing + words + _mistaken(evaluation))
    if evaluation.residuals is None:
        return section("Mistakes", _mistaken(evaluation)) if evaluation.mistaken else ""
    seen = evaluation.residuals
    said = (
        f"Half of the predictions are off by at most {seen.error_p50:,.4g}, 95 % by at most {seen.error_p95:,.4g}; "
        f"the mean error is {seen.bias:+,.4g}."
    )
    drawing = figure(charts.residual_scatter(seen, evaluation.metric), "Sealed test rows; the diagonal is right.")
    return section("Mistakes", drawing + f"<p>{escaped(said)}</p>" + _mistaken(evaluation))


def _mistaken(evaluation: Evaluation) -> str:
    """Pictures of the test that the winner gets wrong."""
    if not evaluation.mistaken:
        return ""
    return figure(pictures.mistakes(evaluation.mistaken), "What the winner is most wrong about on the sealed test.")


def calibration(material: Material) -> str:
    measured = material.evaluation.winner.reliability if material.evaluation is not None else None
    if measured is None or material.evaluation is None:
        return ""
    temperature = material.evaluation.winner.temperature
    how = (
        "not calibrated" if temperature == 1 else f"logits divided by {temperature:.3f}, fitted on the validation rows"
    )
    body = f"<p>Expected calibration error <b>{measured.ece:.4f}</b> on the sealed test ({escaped(how)}).</p>" + figure(
        charts.reliability_diagram(measured), "The size of a dot is its share of the rows; the line is honest."
    )
    return section("Calibration", body)


def cost(material: Material) -> str:
    if material.evaluation is None or any(f.cost is None for f in material.evaluation.finalists):
        return ""
    rows = [_cost_row(f) for f in material.evaluation.finalists]
    heads = ["trial", "family", "p50 ms", "p95 ms", "rows/s", "package MB", "parameters"]
    note = "From raw rows to outputs with preprocessing, on one core of the machine that evaluated; one row, then 1024."
    return section("Cost of serving", table(heads, rows) + f"<p class='note'>{note}</p>")


def _cost_row(f: Finalist) -> list[str]:
    assert f.cost is not None
    times = [f"{f.cost.latency_ms_p50:.2f}", f"{f.cost.latency_ms_p95:.2f}", f"{f.cost.rows_per_s:,.0f}"]
    return [f"#{f.trial:03d}", f.family, *times, f"{f.cost.size_mb:.2f}", f"{f.n_params:,}"]
