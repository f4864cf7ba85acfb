"""The report stage: leaderboard, summary, and the end of the parent run."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from flows.leaderboard import leaderboard, to_csv
from flows.stages.drift import DRIFT, ChampionDrift, drift_markdown, read_drift
from flows.stages.evaluate import EVALUATION, Evaluated
from flows.stages.experiment import Experiment
from flows.stages.explain import EXPLANATION, read_explanation
from flows.stages.promote import Promotion
from flows.stores import Stores
from pipeline.evaluation.finalists import Evaluation
from pipeline.files import write_atomic
from pipeline.records import TrialRecord
from pipeline.redaction import redacted
from pipeline.search.directory import SearchState, read_state
from pipeline.text import markdown

if TYPE_CHECKING:
    from flows.report.material import Material

SUMMARY = "summary.md"
HISTORY = "history.svg"
PLOTS = "plots.html"
REPORT = "report.html"
CARD = "model-card.md"


def report_stage(
    experiment: Experiment,
    state: SearchState,
    evaluated: Evaluated,
    promotion: Promotion,
    stores: Stores,
) -> Path:
    """Write leaderboard and summary, and end the parent run with them."""
    from flows.report.material import gather

    directory = experiment.workspace.search(state.id)
    state = read_state(directory) or state  # with the reason why it ended
    material = gather(experiment.workspace, state, experiment.config.registered_model)
    records = material.records
    rows = leaderboard(records)
    write_atomic(directory / "leaderboard.csv", to_csv(rows).encode())
    write_atomic(directory / "leaderboard.json", json.dumps([row.model_dump() for row in rows]).encode())
    moved = read_drift(directory)
    text = redacted(summary_markdown(state, records, evaluated.evaluation, promotion, moved))
    write_atomic(directory / SUMMARY, text.encode())
    evaluation = evaluated.evaluation
    page, card = _write_report(directory, material)
    _write_history(directory, records, f"{state.id}: {evaluation.metric} of {len(records)} trials")
    counts = {s: sum(r.state == s for r in records) for s in ("COMPLETE", "PRUNED", "FAIL")}
    metrics = {
        f"best/{evaluation.metric}": evaluation.winner.validation,
        "n/complete": float(counts["COMPLETE"]),
        "n/pruned": float(counts["PRUNED"]),
        "n/failed": float(counts["FAIL"]),
        "time/train_s": sum(record.train_s for record in records),
        "optimism": evaluation.optimism,
    }
    tags = {"automl.result": promotion.line, "automl.best_trial": str(evaluation.winner.trial)}
    files = {
        "leaderboard/leaderboard.csv": directory / "leaderboard.csv",
        "leaderboard/leaderboard.json": directory / "leaderboard.json",
        "report/summary.md": directory / SUMMARY,
        "report/evaluation.json": directory / EVALUATION,
        "plots/history.svg": directory / HISTORY,
        "report/report.html": page,
        "report/model-card.md": card,
    }
    files |= _write_explanation(directory)
    if experiment.config.tracking.plots:
        files |= _write_plots(directory, material, evaluation.metric)
    if moved is not None:
        files["report/drift.json"] = directory / DRIFT
        tags["automl.drift"] = moved.data.line
    stores.tracker.finish_search(state.id, "FINISHED", metrics, tags, files)
    return directory / SUMMARY


def _write_history(directory: Path, records: Sequence[TrialRecord], heading: str) -> None:
    """The report's chart of all trials, for those who look at it in MLflow or Prefect."""
    from flows.report.charts import history
    from flows.report.page import picture

    write_atomic(directory / HISTORY, picture(history(records, heading)).encode())


def _write_plots(directory: Path, material: Material, metric: str) -> dict[str, Path]:
    """Optuna's plots by artifact path."""
    from pipeline.search.plots import plots

    page = None if material.study is None else plots(material.study, material.records, metric, material.importance)
    if page is None:
        return {}
    write_atomic(directory / PLOTS, page.encode())
    return {"plots/plots.html": directory / PLOTS}


def _write_explanation(directory: Path) -> dict[str, Path]:
    """The winner's explanation by artifact path: as data, and drawn as in the report."""
    from flows.report.explained import drawing
    from flows.report.page import picture

    found = read_explanation(directory)
    if found is None:
        return {}
    files = {"explanation/explanation.json": directory / EXPLANATION}
    drawn = drawing(found)
    if drawn is not None:
        write_atomic(directory / "explanation.svg", picture(drawn).encode())
        files["explanation/explanation.svg"] = directory / "explanation.svg"
    return files


def _write_report(directory: Path, material: Material) -> tuple[Path, Path]:
    """The HTML page and the winner's model card."""
    from flows.report.card import model_card
    from flows.report.page import render

    write_atomic(directory / REPORT, render(material).encode())
    write_atomic(directory / CARD, model_card(material).encode())
    return directory / REPORT, directory / CARD


def summary_markdown(
    state: SearchState,
    records: Sequence[TrialRecord],
    evaluation: Evaluation,
    promotion: Promotion,
    moved: ChampionDrift | None,
) -> str:
    """The result of a search in a page of Markdown: the answer first."""
    metric = evaluation.metric
    lines = [
        f"# {state.experiment}: {markdown(promotion.line.removeprefix(f'{state.experiment}: '))}",
        "",
        f"Search `{state.id}`, {len(records)} trials, ended because: {markdown(state.reason or 'running')}.",
        "",
        f"## Finalists on the sealed test ({evaluation.n_rows} rows, read once)",
        "",
        f"| trial | family | validation {metric} | test {metric} | parameters |",
        "|---|---|---|---|---|",
        *(
            f"| #{f.trial:03d} | {f.family} | {f.score} | {f.test[metric]} | {f.n_params:,} |"
            for f in evaluation.finalists
        ),
        "",
        evaluation.choice,
        "",
        *([] if evaluation.forecast is None else [f"The winner {evaluation.forecast.line}.", ""]),
        *_seeds(evaluation),
        *_coverage(evaluation),
        f"Optimism of the search (validation minus test of the winner): {evaluation.optimism:+.4f}.",
        "",
        "## Gates",
        "",
        *(
            f"- {'passed' if g.passed else 'not passed'}: {markdown(f'{g.gate} ({g.evidence})')}"
            for g in promotion.gates
        ),
        "",
        *([] if moved is None else [*drift_markdown(moved), ""]),
        "## Best trials",
        "",
        "| rank | trial | family | score | epochs | parameters | seconds |",
        "|---|---|---|---|---|---|---|",
        *(
            f"| {r.rank} | #{r.trial:03d} | {r.family} | {r.score:.4f} | {r.epochs} | {r.n_params:,} "
            f"| {r.train_s:.1f} |"
            for r in leaderboard(records)[:10]
            if r.rank is not None
        ),
    ]
    return "\n".join(lines) + "\n"


def _coverage(evaluation: Evaluation) -> list[str]:
    """What the finalists' intervals or sets hold."""
    measured = [finalist for finalist in evaluation.finalists if finalist.coverage is not None]
    if not measured:
        return []
    rows = [f"| #{f.trial:03d} | {f.coverage.held} | {f.coverage.size} |" for f in measured if f.coverage is not None]
    unit = measured[0].coverage.unit if measured[0].coverage is not None else ""
    level = measured[0].coverage.level if measured[0].coverage is not None else 0.0
    head = f"Conformal {'intervals' if unit == 'wide' else 'sets'} that ask for {level:.4g} of the rows:"
    size = "mean width" if unit == "wide" else "mean number of labels"
    return [head, "", f"| trial | sealed test rows held | {size} |", "|---|---|---|", *rows, ""]


def _seeds(evaluation: Evaluation) -> list[str]:
    """What the finalists' seeds reached one by one."""
    trained = [finalist for finalist in evaluation.finalists if finalist.seeds]
    if not trained:
        return []
    rows = [
        f"| #{finalist.trial:03d} | {', '.join(f'{seed.validation:.4f}' for seed in finalist.seeds)} "
        f"| {', '.join(f'{seed.test:.4f}' for seed in finalist.seeds)} |"
        for finalist in trained
    ]
    head = ["Seed by seed, the trial's own first; its model is the one that may be promoted:", ""]
    return [*head, "| trial | validation | test |", "|---|---|---|", *rows, ""]
