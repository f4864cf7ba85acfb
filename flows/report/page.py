"""The report's page: the answer first, then what it rests on."""

from __future__ import annotations

import base64
import hashlib
import statistics
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

from flows.leaderboard import leaderboard
from flows.live import clock
from flows.report import charts
from flows.report.material import Material
from flows.report.svg import escaped
from pipeline.evaluation.finalists import Evaluation, Finalist
from pipeline.objective import METRICS
from pipeline.records import TrialRecord
from pipeline.redaction import redacted

STYLE: Final = (Path(__file__).parent / "page.css").read_text(encoding="utf-8")
N_TRIALS: Final = 15
MOST_COLUMNS: Final = 40


def render(material: Material) -> str:
    """The whole page. It names no other file, and its policy forbids scripts and everything that is not in it."""
    style = base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()
    policy = f"default-src 'none'; style-src 'sha256-{style}'; base-uri 'none'; form-action 'none'"
    sections = (
        _answer(material),
        _data(material),
        _search(material),
        _families(material),
        _finalists(material),
        _mistakes(material),
        _calibration(material),
        _cost(material),
        _trials(material),
        _reproduce(material),
    )
    return redacted(
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escaped(material.state.experiment)}: report</title><style>{STYLE}</style></head>"
        f"<body><main>{''.join(filter(None, sections))}</main></body></html>\n"
    )


def _answer(material: Material) -> str:
    state, evaluation = material.state, material.evaluation
    head = f"<header><p class='over'>automl report</p><h1>{escaped(state.experiment)}</h1>"
    if evaluation is None:
        what = (
            f"The search is {state.status}: {len(material.records)} trials so far, nothing has been read on the test."
        )
        return f"{head}<p class='lead'>{escaped(what)}</p></header>"
    winner, metric = evaluation.winner, evaluation.metric
    test = winner.test[metric]
    line = material.promotion.line if material.promotion is not None else "not put through the gates yet"
    tiles = [
        (
            f"{metric}, sealed test",
            f"{test.value:.4f}",
            f"{test.confidence:.0%} interval {test.low:.4f} to {test.high:.4f}",
        ),
        (f"{metric}, validation", f"{winner.validation:.4f}", f"flatters by {evaluation.optimism:+.4f}"),
        ("winner", f"#{winner.trial:03d} {winner.family}", f"{winner.n_params:,} parameters"),
    ]
    if winner.cost is not None:
        tiles.append(
            ("one row takes", f"{winner.cost.latency_ms_p50:.2f} ms", f"p95 {winner.cost.latency_ms_p95:.2f} ms")
        )
    cards = "".join(
        f"<div class='tile'><span>{escaped(name)}</span><b>{escaped(value)}</b><small>{escaped(note)}</small></div>"
        for name, value, note in tiles
    )
    return (
        f"{head}<p class='lead'>{escaped(line)}.</p><div class='tiles'>{cards}</div>"
        f"<p>{escaped(evaluation.choice)} {escaped(_verdict(evaluation))}</p>{_gates(material)}</header>"
    )


def _verdict(evaluation: Evaluation) -> str:
    """Whether the finalists can be told apart."""
    metric, (winner, *others) = evaluation.metric, evaluation.finalists
    test = winner.test[metric]
    close = [f for f in others if f.test[metric].high >= test.low and f.test[metric].low <= test.high]
    if not others:
        return ""
    if not close:
        return "Its test interval overlaps no other finalist's."
    cheap = min([winner, *close], key=lambda f: f.n_params)
    cheaper = (
        ""
        if cheap is winner
        else f" The smallest of those is #{cheap.trial:03d} {cheap.family} with {cheap.n_params:,} parameters."
    )
    return f"{len(close)} of {len(others)} other finalists have test intervals that overlap the winner's.{cheaper}"


def _gates(material: Material) -> str:
    if material.promotion is None or not material.promotion.gates:
        return ""
    items = "".join(
        f"<li class='{'pass' if gate.passed else 'fail'}'><b>{'passed' if gate.passed else 'not passed'}</b> "
        f"{escaped(gate.gate)} <small>{escaped(gate.evidence)}</small></li>"
        for gate in material.promotion.gates
    )
    return f"<ul class='gates'>{items}</ul>"


def _data(material: Material) -> str:
    prepared = material.prepared
    if prepared is None:
        note = f"The prepared data is not here any more; its fingerprint was {material.state.fingerprint}."
        return _section("Data", f"<p>{escaped(note)}</p>")
    spec = prepared.spec
    validated = ("folds", str(spec.n_folds)) if spec.n_folds else ("validation rows", f"{spec.n_validation:,}")
    facts = [
        ("kind", spec.kind),
        ("task", spec.task),
        ("training rows", f"{spec.n_train:,}"),
        validated,
        ("sealed test rows", f"{len(prepared.sealed):,}"),
        ("fingerprint", prepared.fingerprint[:16]),
        ("split", prepared.split_hash[:16]),
    ]
    body = _facts(facts) + _target(material)
    if spec.kind == "tabular":
        columns = Counter(prepared.schema.values())
        names = list(prepared.schema.items())[:MOST_COLUMNS]
        more = f" and {len(prepared.schema) - len(names)} more" if len(prepared.schema) > len(names) else ""
        body += (
            f"<details><summary>{escaped(', '.join(f'{n} {kind}' for kind, n in columns.items()))} columns</summary>"
            f"<p>{escaped(', '.join(f'{name} ({kind})' for name, kind in names) + more)}</p></details>"
        )
    findings = "".join(f"<li class='{escaped(f.severity)}'>{escaped(f)}</li>" for f in prepared.findings)
    return _section("Data", body + (f"<h3>Findings</h3><ul class='findings'>{findings}</ul>" if findings else ""))


def _target(material: Material) -> str:
    """How often each class occurs in the training rows."""
    prepared = material.prepared
    assert prepared is not None
    labels = prepared.spec.labels
    if not labels or len(labels) > 30:
        return ""
    counts = prepared.development().train.target.bincount(minlength=len(labels)).tolist()
    rows = [
        [str(label), f"{count:,}", f"{count / sum(counts):.1%}"] for label, count in zip(labels, counts, strict=True)
    ]
    table = _table(["class", "training rows", "share"], rows)
    return f"<details><summary>{len(labels)} classes</summary>{table}</details>"


def _search(material: Material) -> str:
    records, state = material.records, material.state
    if not records:
        return ""
    counts = Counter(record.state for record in records)
    facts = [
        ("trials", str(len(records))),
        ("complete", str(counts["COMPLETE"])),
        ("pruned early", str(counts["PRUNED"])),
        ("failed", str(counts["FAIL"])),
        ("searching took", clock(state.elapsed)),
        ("training", f"{sum(r.train_s for r in records):,.0f} s of slot time"),
        ("ended because", state.reason or "it runs"),
    ]
    legend = "".join(
        f"<span class='key'><i class='{colour}'></i>{escaped(family)}</span>"
        for family, colour in charts.families_of(records).items()
    )
    figure = _figure(
        charts.history(records),
        "A cross was pruned, the line is the best completed so far; what is far worse lies on the edge.",
        legend,
    )
    return _section("Search", _facts(facts) + figure + _failures(records))


def _failures(records: Sequence[TrialRecord]) -> str:
    reasons = Counter(record.error or "" for record in records if record.state == "FAIL")
    if not reasons:
        return ""
    rows = [[str(n), reason[:300]] for reason, n in reasons.most_common(10)]
    return "<h3>Why trials failed</h3>" + _table(["trials", "reason"], rows, left=(1,))


def _families(material: Material) -> str:
    records = material.records
    scored = [r for r in records if r.objective is not None]
    if not scored:
        return ""
    objective, colours = METRICS[records[0].metric], charts.families_of(records)
    body, rows = "", []
    for family, colour in colours.items():
        mine = [r for r in scored if r.family == family]
        complete = [r.objective or 0.0 for r in mine if r.state == "COMPLETE"]
        rows.append(
            [
                family,
                str(sum(r.family == family for r in records)),
                str(len(complete)),
                f"{objective.best_of(complete):.4f}" if complete else "",
                f"{statistics.median(complete):.4f}" if complete else "",
                f"{sum(r.train_s for r in records if r.family == family):,.1f}",
            ]
        )
        shares = material.importance.get(family)
        if shares is None:
            continue
        names = sorted(shares, key=lambda name: -shares[name])
        body += f"<h3>{escaped(family)}</h3>" + _figure(
            charts.parallel(mine, names, colour),
            f"{len(mine)} trials through their parameters to {objective.metric}; the strong line is the best.",
        )
        body += _figure(
            charts.importance(shares, colour),
            "Share of each parameter in what sets the best tenth of trials apart (PED-ANOVA; pruned trials count "
            "with the score they had).",
        )
    heads = ["family", "trials", "complete", f"best {objective.metric}", "median", "train s"]
    return _section("Families", _table(heads, rows) + body)


def _finalists(material: Material) -> str:
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
    body += _table(["trial", "family", f"validation {metric}", f"test {metric}", *others], rows)
    body += _figure(
        charts.intervals(evaluation, colours), "Dots and bars: sealed test with its interval. Crosses: validation."
    )
    body += _figure(
        charts.curves(material.records, [f.trial for f in evaluation.finalists], colours),
        "Validation by epoch, the winner strong; dots are the epochs whose weights were kept.",
    )
    if evaluation.versus_champion is not None:
        comparison = evaluation.versus_champion
        said = (
            f"Against champion v{evaluation.champion} on the same rows: {comparison.difference} {metric}, better in "
            f"{comparison.probability_better:.1%} of paired resamples."
        )
        body += f"<p>{escaped(said)}</p>"
    return _section("Finalists on the sealed test", body)


def _mistakes(material: Material) -> str:
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
        figure = _figure(charts.confusion_matrix(counted), "Sealed test rows by true and predicted class.")
        return _section(
            "Mistakes", figure + f"<p>{escaped(f'Most often {said}.' if said else 'None on these rows.')}</p>"
        )
    if evaluation.residuals is None:
        return ""
    seen = evaluation.residuals
    said = (
        f"Half of the predictions are off by at most {seen.error_p50:,.4g}, 95 % by at most {seen.error_p95:,.4g}; "
        f"the mean error is {seen.bias:+,.4g}."
    )
    figure = _figure(charts.residual_scatter(seen, evaluation.metric), "Sealed test rows; the diagonal is right.")
    return _section("Mistakes", figure + f"<p>{escaped(said)}</p>")


def _calibration(material: Material) -> str:
    measured = material.evaluation.winner.reliability if material.evaluation is not None else None
    if measured is None or material.evaluation is None:
        return ""
    temperature = material.evaluation.winner.temperature
    how = (
        "not calibrated" if temperature == 1 else f"logits divided by {temperature:.3f}, fitted on the validation rows"
    )
    body = (
        f"<p>Expected calibration error <b>{measured.ece:.4f}</b> on the sealed test ({escaped(how)}).</p>"
        + _figure(
            charts.reliability_diagram(measured), "The size of a dot is its share of the rows; the line is honest."
        )
    )
    return _section("Calibration", body)


def _cost(material: Material) -> str:
    if material.evaluation is None or any(f.cost is None for f in material.evaluation.finalists):
        return ""
    rows = [_cost_row(f) for f in material.evaluation.finalists]
    heads = ["trial", "family", "p50 ms", "p95 ms", "rows/s", "package MB", "parameters"]
    note = "From raw rows to outputs with preprocessing, on one core of the machine that evaluated; one row, then 1024."
    return _section("Cost of serving", _table(heads, rows) + f"<p class='note'>{note}</p>")


def _cost_row(f: Finalist) -> list[str]:
    assert f.cost is not None
    times = [f"{f.cost.latency_ms_p50:.2f}", f"{f.cost.latency_ms_p95:.2f}", f"{f.cost.rows_per_s:,.0f}"]
    return [f"#{f.trial:03d}", f.family, *times, f"{f.cost.size_mb:.2f}", f"{f.n_params:,}"]


def _trials(material: Material) -> str:
    if not material.records:
        return ""
    rows = [
        [
            "" if r.rank is None else str(r.rank),
            f"#{r.trial:03d}",
            r.family,
            r.state.lower(),
            "" if r.score is None else f"{r.score:.4f}",
            f"{r.epochs}",
            f"{r.n_params:,}",
            f"{r.train_s:.1f}",
        ]
        for r in leaderboard(material.records)[:N_TRIALS]
    ]
    heads = ["rank", "trial", "family", "state", material.records[0].metric, "epochs", "parameters", "train s"]
    return _section("Best trials", _table(heads, rows))


def _reproduce(material: Material) -> str:
    state = material.state
    evaluation = material.evaluation
    moves = [
        [
            time.strftime("%Y-%m-%d %H:%M", time.gmtime(m.time)),
            m.action,
            "none" if m.before is None else f"v{m.before}",
            "none" if m.after is None else f"v{m.after}",
            m.who,
            " | ".join(m.evidence)[:300],
        ]
        for m in material.moves[-10:]
    ]
    ledger = (
        "<h3>Moves of the champion</h3>"
        + _table(["time (UTC)", "action", "from", "to", "who", "evidence"], moves, left=(0, 1, 4, 5))
        if moves
        else ""
    )
    winner = ""
    if evaluation is not None:
        record = next((r for r in material.records if r.number == evaluation.winner.trial), None)
        chosen = [] if record is None else [[name, str(value)] for name, value in record.params.items()]
        winner = (
            f"<details><summary>The winner's parameters</summary>{_table(['parameter', 'value'], chosen)}</details>"
        )
    commands = f"automl run {state.experiment}.yaml --new\nautoml trial {state.experiment} NUMBER\nautoml ui"
    return _section(
        "How to reproduce",
        f"<p>Search <code>{escaped(state.id)}</code>, data <code>{escaped(state.fingerprint)}</code>. "
        f"With <code>train.deterministic: true</code> the same file gives the "
        f"same trials and weights.</p><pre>{escaped(commands)}</pre>"
        f"{winner}<details><summary>The experiment file, with every default</summary>"
        f"<pre>{escaped(state.config_yaml)}</pre></details>{ledger}",
    )


def _section(title: str, body: str) -> str:
    return f"<section><h2>{escaped(title)}</h2>{body}</section>"


def _figure(drawing: str, caption: str, legend: str = "") -> str:
    return f"<figure>{drawing}<figcaption>{legend}{escaped(caption)}</figcaption></figure>"


def _facts(facts: Iterable[tuple[str, str]]) -> str:
    items = "".join(f"<div><dt>{escaped(name)}</dt><dd>{escaped(value)}</dd></div>" for name, value in facts)
    return f"<dl>{items}</dl>"


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]], left: Sequence[int] = ()) -> str:
    """A table; columns of numbers are aligned right, those in `left` and texts left."""
    numeric = [
        column not in left and all(_is_number(row[column]) for row in rows) and bool(rows)
        for column in range(len(heads))
    ]
    kinds = [" class='num'" if number else "" for number in numeric]
    head = "".join(f"<th{kind}>{escaped(text)}</th>" for text, kind in zip(heads, kinds, strict=True))
    body = "".join(
        "<tr>" + "".join(f"<td{kind}>{escaped(text)}</td>" for text, kind in zip(row, kinds, strict=True)) + "</tr>"
        for row in rows
    )
    return f"<div class='wide'><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"


def _is_number(text: str) -> bool:
    return not text or text[0] in "-+" or text[0].isdigit()
