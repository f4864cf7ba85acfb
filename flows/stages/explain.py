"""The explanation stage: what the winner uses, on validation rows."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from flows.stages.evaluate import Evaluated, load_finalist
from flows.stages.experiment import Experiment, check_against_data
from pipeline.data.prepare import Prepared
from pipeline.evaluation.explanation import Explanation, explain
from pipeline.files import write_atomic
from pipeline.search.directory import SearchState

EXPLANATION: Final = "explanation.json"


def explain_stage(experiment: Experiment, prepared: Prepared, state: SearchState, evaluated: Evaluated) -> None:
    """Keep the winner's explanation in the search's folder, unless it is there or switched off."""
    config, workspace = experiment.config, experiment.workspace
    directory, winner = workspace.search(state.id), evaluated.evaluation.winner.trial
    known = read_explanation(directory)
    if not config.evaluate.explain or (known is not None and known.trial == winner and known.missing is None):
        return
    # captum imports matplotlib, which would keep its list of fonts in the home folder.
    os.environ.setdefault("MPLCONFIGDIR", str(workspace.state / "matplotlib"))
    found = explain(
        winner,
        load_finalist(workspace, prepared, state.id, winner, config.evaluate),
        prepared.development(),
        check_against_data(config, prepared).objective,
        confidence=config.evaluate.confidence,
        seed=config.search.seed,
    )
    write_atomic(directory / EXPLANATION, found.model_dump_json(indent=1).encode())


def read_explanation(directory: Path) -> Explanation | None:
    """A search's explanation; None where it has none."""
    try:
        return Explanation.model_validate_json((directory / EXPLANATION).read_bytes())
    except FileNotFoundError:
        return None
