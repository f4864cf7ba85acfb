"""The report's page: the answer first, then what it rests on."""

from __future__ import annotations

import base64
import hashlib
import time
from pathlib import Path
from typing import Final

from flows.report.errs import slices
from flows.report.explained import explanation
from flows.report.forecasts import forecasts
from flows.report.html import section, table
from flows.report.material import Material
from flows.report.result import calibration, cost, finalists, mistakes
from flows.report.searched import data, families, search, trials
from flows.report.svg import escaped
from pipeline.evaluation.finalists import Evaluation
from pipeline.redaction import redacted

STYLE: Final = (Path(__file__).parent / "page.css").read_text(encoding="utf-8")


def picture(drawing: str) -> str:
    """A drawing as a file of its own, with the page's style in it."""
    start, rest = drawing.removeprefix("<svg").split(">", 1)
    return f'<svg xmlns="http://www.w3.org/2000/svg"{start}><style>{STYLE}</style>{rest}'


def render(material: Material) -> str:
    """The whole page. It names no other file, and its policy forbids scripts and everything that is not in it; its
    pictures are in it as data."""
    style = base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()
    policy = f"default-src 'none'; style-src 'sha256-{style}'; img-src data:; base-uri 'none'; form-action 'none'"
    sections = (
        _answer(material),
        data(material),
        search(material),
        families(material),
        finalists(material),
        forecasts(material),
        mistakes(material),
        slices(material),
        explanation(material),
        calibration(material),
        cost(material),
        trials(material),
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
        + table(["time (UTC)", "action", "from", "to", "who", "evidence"], moves, left=(0, 1, 4, 5))
        if moves
        else ""
    )
    winner = ""
    if evaluation is not None:
        record = next((r for r in material.records if r.number == evaluation.winner.trial), None)
        chosen = [] if record is None else [[name, str(value)] for name, value in record.params.items()]
        winner = f"<details><summary>The winner's parameters</summary>{table(['parameter', 'value'], chosen)}</details>"
    commands = f"automl run {state.experiment}.yaml --new\nautoml trial {state.experiment} NUMBER\nautoml ui"
    return section(
        "How to reproduce",
        f"<p>Search <code>{escaped(state.id)}</code>, data <code>{escaped(state.fingerprint)}</code>. "
        f"With <code>train.deterministic: true</code> the same file gives the "
        f"same trials and weights.</p><pre>{escaped(commands)}</pre>"
        f"{winner}<details><summary>The experiment file, with every default</summary>"
        f"<pre>{escaped(state.config_yaml)}</pre></details>{ledger}",
    )
