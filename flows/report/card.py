"""The model card of a search's winner, in Markdown: what it is, what it was measured on, and what nobody has measured.
After Mitchell et al., Model Cards for Model Reporting, 2019 (arXiv 1810.03993)."""

from __future__ import annotations

from typing import Any

import yaml

from flows.report.errs import card_section
from flows.report.material import Material
from pipeline.data.prepare import Prepared
from pipeline.evaluation.finalists import Evaluation, Finalist
from pipeline.evaluation.mistakes import Confusion
from pipeline.objective import COSTS, METRICS
from pipeline.redaction import redacted
from pipeline.text import markdown

MOST_COLUMNS = 40
WORST = 5


def model_card(material: Material) -> str:
    """The card; the search has been evaluated."""
    evaluation = material.evaluation
    assert evaluation is not None, "a card is of a winner"
    sections = (
        _head(material, evaluation.winner),
        _use(material),
        _data(material),
        _measured(evaluation),
        _classes(evaluation.confusion),
        card_section(evaluation),
        _limits(material, evaluation),
        _load(material),
    )
    return redacted("\n\n".join(filter(None, sections)) + "\n")


def _config(material: Material) -> dict[str, Any]:
    config: dict[str, Any] = yaml.safe_load(material.state.config_yaml)
    return config


def _model(material: Material) -> str:
    return str(_config(material).get("promotion", {}).get("model") or material.state.experiment)


def _head(material: Material, winner: Finalist) -> str:
    said = "" if material.promotion is None else f"{markdown(material.promotion.line)}.\n\n"
    return (
        f"# Model card: {markdown(_model(material))}\n\n{said}"
        f"Trial {winner.trial} of search `{material.state.id}`: {winner.family}, {winner.n_params:,} parameters, "
        f"trained from scratch on this data only."
    )


def _use(material: Material) -> str:
    prepared = material.prepared
    if prepared is None:
        return ""
    spec, data = prepared.spec, _config(material).get("data", {})
    target = data.get("target") or "the target"
    what = {
        "regression": f"the value of {markdown(str(target))}",
        "forecast": f"the next {spec.horizon} values of {markdown(str(target))}",
        "binary": f"which of two classes {markdown(str(target))} has",
        "multiclass": f"which of {len(spec.labels)} classes {markdown(str(target))} has",
    }[spec.task]
    return (
        f"## Intended use\n\nPredicts {what} from {spec.kind} rows that come from where the training rows came from. "
        f"It was measured for nothing else."
    )


def _data(material: Material) -> str:
    prepared = material.prepared
    if prepared is None:
        return f"## Data\n\nFingerprint `{material.state.fingerprint}`; the prepared rows were removed since."
    spec = prepared.spec
    validated = f"{spec.n_folds} folds" if spec.n_folds else f"{spec.n_validation:,} validation"
    lines = [
        f"- source: {markdown(str(_config(material).get('data', {}).get('source')))}",
        f"- rows: {spec.n_train:,} training, {validated}, {len(prepared.sealed):,} sealed test",
        f"- fingerprint: `{prepared.fingerprint}`, split `{prepared.split_hash}`",
        *_columns(prepared),
        *(f"- {markdown(str(finding))}" for finding in prepared.findings),
    ]
    return "## Data\n\n" + "\n".join(lines)


def _columns(prepared: Prepared) -> list[str]:
    if prepared.spec.kind != "tabular":
        return []
    names = [f"{name} ({kind})" for name, kind in prepared.schema.items()]
    more = f" and {len(names) - MOST_COLUMNS} more" if len(names) > MOST_COLUMNS else ""
    return [f"- columns: {markdown(', '.join(names[:MOST_COLUMNS]))}{more}"]


def _measured(evaluation: Evaluation) -> str:
    winner = evaluation.winner
    confidence = winner.test[evaluation.metric].confidence
    lines = [
        f"Read once on {evaluation.n_rows:,} sealed rows after validation had chosen; the validation score "
        f"({winner.score}) flatters by {evaluation.optimism:+.4f}.",
        "",
        f"| metric | sealed test | {confidence:.0%} interval | what it is |",
        "|---|---|---|---|",
        *(
            f"| {name} | {score.value:.4f} | {score.low:.4f} to {score.high:.4f} | {METRICS[name].description} |"
            for name, score in winner.test.items()
        ),
        *(f"| {name} | {value:.4g} | | {COSTS[name]} |" for name, value in winner.costs.items() if name in COSTS),
    ]
    if evaluation.forecast is not None:
        lines += ["", f"It {evaluation.forecast.line}."]
    if winner.coverage is not None:
        lines += ["", f"Conformal {winner.coverage.story}"]
    return "## Metrics\n\n" + "\n".join(lines)


def _classes(counted: Confusion | None) -> str:
    """Recall class by class, the worst first."""
    if counted is None:
        return ""
    recall = [
        (row[place] / sum(row), sum(row), label)
        for place, (label, row) in enumerate(zip(counted.labels, counted.rows, strict=True))
        if sum(row)
    ]
    worst = sorted(recall, key=lambda entry: entry[0])[:WORST]
    rows = "\n".join(f"| {markdown(str(label))} | {share:.4f} | {n} |" for share, n, label in worst)
    return f"## Weakest classes\n\n| class | recall | sealed test rows |\n|---|---|---|\n{rows}"


def _limits(material: Material, evaluation: Evaluation) -> str:
    lines = [
        "- The scores hold for rows like the test's; rows from another time, place or instrument were not tested.",
        "- No score by group of people was computed: whether the model treats groups alike is unknown."
        if evaluation.winner.sliced is None or not evaluation.winner.sliced.slices
        else "- Scores by slice are of the columns above one by one; groups that no column names were not looked at.",
    ]
    if evaluation.n_rows < 1000:
        lines.append(f"- {evaluation.n_rows:,} test rows tell small differences from luck badly: mind the intervals.")
    if evaluation.winner.reliability is not None and evaluation.winner.temperature == 1:
        lines.append("- The probabilities are as the network gives them, not calibrated.")
    if material.prepared is not None and material.prepared.spec.is_quantity:
        coverage = evaluation.winner.coverage
        lines.append(
            "- Predictions come without intervals of their own."
            if coverage is None
            else "- All intervals are equally wide: the model does not say which of its predictions are doubtful."
        )
    return "## Limits\n\n" + "\n".join(lines)


def _load(material: Material) -> str:
    name = _model(material)
    return (
        "## Load\n\n```bash\n"
        f"automl predict {name} INPUT -o predictions.csv\n"
        f"mlflow models serve -m models:/{name}@champion --env-manager local\n```"
    )
