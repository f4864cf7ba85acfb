"""EDGE optuna: Optuna's own plots of a search, interactive, family by family, on one page that needs no network."""

from __future__ import annotations

import html
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

import optuna
from optuna import visualization
from optuna.distributions import CategoricalDistribution
from optuna.exceptions import ExperimentalWarning
from optuna.importance import PedAnovaImportanceEvaluator
from optuna.trial import TrialState, create_trial
from plotly.graph_objects import Figure
from plotly.offline import get_plotlyjs

from pipeline.records import TrialRecord
from pipeline.search.importance import FAMILY

MOST: Final = 6
"""Parameters that are drawn, the most important ones."""

_PAGE: Final = """<!doctype html><html lang="en"><meta charset="utf-8"><title>{title}</title>
<style>body{{font:15px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:70rem;padding:0 1rem;color:#1b1f24}}
h2{{margin:2.5rem 0 0}}h3{{margin:1.5rem 0 0;font-size:1rem}}nav a{{margin-right:1rem}}</style>
<script>{script}</script><h1>{title}</h1><nav>{links}</nav>{body}</html>
"""


def plots(
    study: optuna.Study,
    records: Iterable[TrialRecord],
    metric: str,
    shares: Mapping[str, Mapping[str, float]],
) -> str | None:
    """The page; None where fewer trials ended than can be drawn.

    Args:
        shares: of each family's parameters, as `importances` gives them.
    """
    ended = {record.number: record for record in records if record.state != "FAIL"}
    complete = [record for record in ended.values() if record.state == "COMPLETE"]
    if len(complete) < 2:
        return None
    families = sorted({record.family for record in complete})
    by_family = {f: _study(study, {n for n, record in ended.items() if record.family == f}, f) for f in families}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        sections = {"All families": list(_of_search(study, by_family, complete, metric))}
        for family, one in by_family.items():
            sections[family] = list(_of_family(one, shares.get(family, {}), metric))
    links = "".join(f'<a href="#{html.escape(title)}">{html.escape(title)}</a>' for title in sections)
    body = "".join(
        f'<h2 id="{html.escape(title)}">{html.escape(title)}</h2>'
        + "".join(f"<h3>{html.escape(called)}</h3>{_drawn(figure)}" for called, figure in figures)
        for title, figures in sections.items()
    )
    heading = html.escape(f"{study.study_name}: {metric}")
    return _PAGE.format(title=heading, script=get_plotlyjs(), links=links, body=body)


def _of_search(
    study: optuna.Study, by_family: dict[str, optuna.Study], complete: Sequence[TrialRecord], metric: str
) -> Iterator[tuple[str, Figure]]:
    yield "History", visualization.plot_optimization_history(study, target_name=metric)
    yield "Share of trials that reach a score", visualization.plot_edf(list(by_family.values()), target_name=metric)
    yield "Score against size", _pareto(study, complete, metric)
    yield "Timeline", visualization.plot_timeline(study)


def _of_family(study: optuna.Study, shares: Mapping[str, float], metric: str) -> Iterator[tuple[str, Figure]]:
    yield "Curves", visualization.plot_intermediate_values(study)
    ranked = sorted(shares, key=lambda name: -shares[name])[:MOST]
    if not ranked:
        return
    named: dict[str, Any] = {"params": ranked, "target_name": metric}
    evaluator = PedAnovaImportanceEvaluator()
    yield "Importance (PED-ANOVA)", visualization.plot_param_importances(study, evaluator=evaluator, **named)
    yield "Slices", visualization.plot_slice(study, **named)
    yield "Parallel coordinates", visualization.plot_parallel_coordinate(study, **named)
    if len(ranked) > 1:
        yield "The two most important", visualization.plot_contour(study, params=ranked[:2], target_name=metric)


def _study(study: optuna.Study, numbers: set[int], name: str) -> optuna.Study:
    """Some of a study's trials as a study of their own. A trial that is added gets the next number, so failed ones,
    which no plot shows, hold the places of the others."""
    some = optuna.create_study(study_name=name, direction=study.direction)
    empty = create_trial(state=TrialState.FAIL)
    trials = study.get_trials(deepcopy=False)
    some.add_trials(trial if trial.number in numbers else empty for trial in trials)
    return some


def _pareto(study: optuna.Study, complete: Sequence[TrialRecord], metric: str) -> Figure:
    families = CategoricalDistribution(sorted({record.family for record in complete}))
    both = optuna.create_study(directions=[study.direction, "minimize"])
    both.add_trials(
        create_trial(
            state=TrialState.COMPLETE,
            values=[record.objective or 0.0, float(record.n_params or 0)],
            params={FAMILY: record.family},
            distributions={FAMILY: families},
            user_attrs={"trial": record.number},
        )
        for record in complete
    )
    figure = visualization.plot_pareto_front(both, target_names=[metric, "parameters"])
    figure.update_yaxes(type="log")
    return figure


def _drawn(figure: Figure) -> str:
    figure.update_layout(title=None, template="plotly_white", margin={"t": 30})
    to_html: Callable[..., str] = figure.to_html
    return to_html(full_html=False, include_plotlyjs=False, config={"displaylogo": False})
