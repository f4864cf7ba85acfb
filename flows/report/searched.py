"""What was searched: the data, the trials, the families."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Sequence
from typing import Final

from flows.leaderboard import leaderboard
from flows.live import clock
from flows.report import charts
from flows.report.html import facts, figure, section, table
from flows.report.material import Material
from flows.report.svg import escaped
from pipeline.objective import METRICS
from pipeline.records import TrialRecord

N_TRIALS: Final = 15
MOST_COLUMNS: Final = 40


def data(material: Material) -> str:
    prepared = material.prepared
    if prepared is None:
        note = f"The prepared data is not here any more; its fingerprint was {material.state.fingerprint}."
        return section("Data", f"<p>{escaped(note)}</p>")
    spec = prepared.spec
    validated = ("folds", str(spec.n_folds)) if spec.n_folds else ("validation rows", f"{spec.n_validation:,}")
    known = [
        ("kind", spec.kind),
        ("task", spec.task),
        ("training rows", f"{spec.n_train:,}"),
        validated,
        ("sealed test rows", f"{len(prepared.sealed):,}"),
        ("fingerprint", prepared.fingerprint[:16]),
        ("split", prepared.split_hash[:16]),
    ]
    body = facts(known) + _target(material)
    if spec.kind == "tabular":
        columns = Counter(prepared.schema.values())
        names = list(prepared.schema.items())[:MOST_COLUMNS]
        more = f" and {len(prepared.schema) - len(names)} more" if len(prepared.schema) > len(names) else ""
        body += (
            f"<details><summary>{escaped(', '.join(f'{n} {kind}' for kind, n in columns.items()))} columns</summary>"
            f"<p>{escaped(', '.join(f'{name} ({kind})' for name, kind in names) + more)}</p></details>"
        )
    findings = "".join(f"<li class='{escaped(f.severity)}'>{escaped(f)}</li>" for f in prepared.findings)
    return section("Data", body + (f"<h3>Findings</h3><ul class='findings'>{findings}</ul>" if findings else ""))


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
    counted = table(["class", "training rows", "share"], rows)
    return f"<details><summary>{len(labels)} classes</summary>{counted}</details>"


def search(material: Material) -> str:
    records, state = material.records, material.state
    if not records:
        return ""
    counts = Counter(record.state for record in records)
    known = [
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
    drawing = figure(
        charts.history(records),
        "A cross was pruned, the line is the best completed so far; what is far worse lies on the edge.",
        legend,
    )
    return section("Search", facts(known) + drawing + _failures(records))


def _failures(records: Sequence[TrialRecord]) -> str:
    reasons = Counter(record.error or "" for record in records if record.state == "FAIL")
    if not reasons:
        return ""
    rows = [[str(n), reason[:300]] for reason, n in reasons.most_common(10)]
    return "<h3>Why trials failed</h3>" + table(["trials", "reason"], rows, left=(1,))


def families(material: Material) -> str:
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
        body += f"<h3>{escaped(family)}</h3>" + figure(
            charts.parallel(mine, names, colour),
            f"{len(mine)} trials through their parameters to {objective.metric}; the strong line is the best.",
        )
        body += figure(
            charts.importance(shares, colour),
            "Share of each parameter in what sets the best tenth of trials apart (PED-ANOVA; pruned trials count "
            "with the score they had).",
        )
    heads = ["family", "trials", "complete", f"best {objective.metric}", "median", "train s"]
    return section("Families", table(heads, rows) + body)


def trials(material: Material) -> str:
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
    return section("Best trials", table(heads, rows))
