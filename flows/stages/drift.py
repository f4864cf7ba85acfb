"""The drift stage: today's data and the champion's score, against those of the champion's own search."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from flows.stages.evaluate import EVALUATION
from flows.stages.experiment import Experiment
from pipeline.data.prepare import Prepared, load_profile
from pipeline.errors import DataError
from pipeline.evaluation.drift import ColumnDrift, Drift, drift
from pipeline.evaluation.finalists import Evaluation
from pipeline.evaluation.intervals import Interval
from pipeline.files import write_atomic
from pipeline.registry.base import ModelRegistry, ModelVersion
from pipeline.search.directory import SearchState
from pipeline.text import markdown
from pipeline.tracking.replay import read_replay

DRIFT = "drift.json"
SHOWN = 20
"""Columns in the report; the file has all."""


class ChampionDrift(BaseModel):
    """What became of the champion and of the data since it was trained."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    champion: int
    metric: str
    then: Interval | None
    """The champion's score on the sealed test of its own search; None where that had another metric, or is gone."""
    n_then: int | None
    now: Interval | None
    """Its score on the rows of today's sealed test that it has not seen; None where it cannot be read there."""
    n_now: int | None
    data: Drift


def drift_stage(
    experiment: Experiment, prepared: Prepared, state: SearchState, evaluation: Evaluation, registry: ModelRegistry
) -> None:
    """Leave ``drift.json`` beside the search, where the data is another than the champion's and that is known here."""
    directory, workspace = experiment.workspace.search(state.id), experiment.workspace
    versions = registry.versions(experiment.config.registered_model)
    champion = next((version for version in versions if version.version == evaluation.champion), None)
    if champion is None or (directory / DRIFT).exists():
        return
    origin = workspace.search(champion.tags.get("automl.search", "unknown"))
    replay = read_replay(origin)
    if replay is None or replay.prepared == prepared.directory.name:
        return
    try:
        then = load_profile(workspace.data / replay.prepared)
    except DataError:  # prepared by an earlier version, or cleared away
        return
    reading = evaluation.champion_reading
    before, n_before = _score_then(origin, champion, evaluation.metric)
    result = ChampionDrift(
        champion=champion.version,
        metric=evaluation.metric,
        then=before,
        n_then=n_before,
        now=None if reading is None else reading.test.get(evaluation.metric),
        n_now=None if reading is None else reading.n_rows,
        data=drift(then, prepared.profile()),
    )
    write_atomic(directory / DRIFT, result.model_dump_json(indent=1).encode())


def read_drift(directory: Path) -> ChampionDrift | None:
    """From a search's directory; None where nothing could be compared."""
    try:
        return ChampionDrift.model_validate_json((directory / DRIFT).read_bytes())
    except FileNotFoundError:
        return None


def drift_markdown(found: ChampionDrift) -> Iterator[str]:
    """A section of the report."""
    yield f"## Since champion v{found.champion} was trained"
    yield ""
    then = "not known here" if found.then is None else f"{found.then} on {found.n_then} rows"
    now = "cannot be read" if found.now is None else f"{found.now} on {found.n_now} rows that are new to it"
    yield f"- Its {found.metric} on its own sealed test: {then}; on today's: {now}."
    yield f"- The data, {found.data.n_then} rows then, {found.data.n_now} now: {markdown(found.data.line)}."
    yield ""
    yield "| column | then | now | PSI | Cramér's V | shift of the mean, sd | p | |"
    yield "|---|---|---|---|---|---|---|---|"
    yield from (_row(column) for column in found.data.columns[:SHOWN])
    hidden = len(found.data.columns) - SHOWN
    if hidden > 0:
        yield ""
        yield f"{hidden} more columns are in `drift.json`."


def _row(column: ColumnDrift) -> str:
    shift = "" if column.mean_shift is None else f"{column.mean_shift:+.2f}"
    name, then, now = (markdown(text) for text in (column.name, column.then, column.now))
    return (
        f"| {name} | {then} | {now} | {column.psi:.3f} | {column.cramers_v:.3f} | {shift} | {column.p:.1g} "
        f"| {column.verdict} |"
    )


def _score_then(origin: Path, champion: ModelVersion, metric: str) -> tuple[Interval | None, int | None]:
    try:
        evaluation = Evaluation.model_validate_json((origin / EVALUATION).read_bytes())
    except FileNotFoundError:
        return None, None
    trial = champion.tags.get("automl.trial")
    score = next((f.test.get(metric) for f in evaluation.finalists if str(f.trial) == trial), None)
    return score, None if score is None else evaluation.n_rows
