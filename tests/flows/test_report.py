"""The report: a page that loads nothing, runs nothing and believes nothing, whatever a search is like."""

from __future__ import annotations

import base64
import hashlib
import io
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution
from PIL import Image

from flows.report.card import model_card
from flows.report.material import Material
from flows.report.page import render
from flows.report.svg import compact, scale_of
from flows.stages.promote import PromotionRecord
from pipeline.data.config import DataConfig
from pipeline.data.prepare import prepare
from pipeline.evaluation.attribution import Attribution, Example
from pipeline.evaluation.calibration import Reliability, ReliabilityBin
from pipeline.evaluation.cost import Cost
from pipeline.evaluation.explanation import Explanation
from pipeline.evaluation.finalists import Evaluation, Finalist
from pipeline.evaluation.gates import GateResult
from pipeline.evaluation.importance import ColumnImportance, Importance
from pipeline.evaluation.intervals import Interval
from pipeline.evaluation.mistakes import Confusion, Residuals
from pipeline.evaluation.pictures import Picture, thumbnails
from pipeline.evaluation.slices import Slice, Sliced
from pipeline.registry.ledger import new_move
from pipeline.search.directory import SearchState
from pipeline.search.importance import importances
from tests.tracking.records import SEARCH, record

HOSTILE = '<script>alert(1)</script><img src=x onerror=alert(1)>" onload="'


WEAK = Interval(value=0.7, low=0.6, high=0.8, confidence=0.95)


IMPORTANCE = Importance(
    metric="accuracy", score=0.9, n_rows=50, n_repeats=20, n_left_out=3, confidence=0.95,
    columns=(
        ColumnImportance(column=HOSTILE, drop=0.2, low=0.15, high=0.25),
        ColumnImportance(column="noise", drop=0.0, low=-0.01, high=0.01),
    ),
)  # fmt: skip


class Page(HTMLParser):
    """What a browser would make of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]

    def handle_data(self, data: str) -> None:
        self.text += data


def material(tmp_path: Path, **changes: Any) -> Material:
    """A finished search of thirty trials with hostile words wherever a user's or a library's words go."""
    records = tuple(
        record(number, ("COMPLETE", "PRUNED", "FAIL")[number % 3], error=HOSTILE,
               objective=None if number % 3 == 2 else 0.5 + number / 60,
               params={"mlp.width": number + 1, "optimizer.name": HOSTILE if number % 2 else "sgd"})
        for number in range(30)
    )  # fmt: skip
    score = Interval(value=0.9, low=0.85, high=0.95, confidence=0.95)
    winner = Finalist(
        trial=27, family="mlp", validation=0.92, n_params=1000, test={"accuracy": score, "log_loss": score},
        reliability=Reliability(ece=0.03, bins=(ReliabilityBin(n_rows=9, confidence=0.8, accuracy=0.7),)),
        cost=Cost(latency_ms_p50=0.5, latency_ms_p95=0.9, rows_per_s=5000, size_mb=0.1),
        sliced=Sliced(
            slices=(
                Slice(column="age", level="> 48", is_bin=True, n_rows=50, test={"accuracy": score}, metric="accuracy",
                      p=0.4, worse=False),
                Slice(column=HOSTILE, level=HOSTILE, n_rows=40, test={"accuracy": WEAK}, metric="accuracy", p=0.001,
                      worse=True),
            ), n_small=7, n_columns_left_out=0,
        ),
    )  # fmt: skip
    evaluation = Evaluation(
        metric="accuracy", n_rows=90, finalists=(winner, winner.model_copy(update={"trial": 24, "n_params": 10})),
        confusion=Confusion(labels=(HOSTILE, "b"), rows=((40, 5), (4, 41))),
    )  # fmt: skip
    state = SearchState(
        id=SEARCH, experiment="digits", config_yaml=f"name: digits # {HOSTILE}\n", fingerprint="f", split_hash="s",
        created=0.0, status="finished", reason=HOSTILE,
    )  # fmt: skip
    gate = GateResult(gate=HOSTILE, passed=True, evidence=HOSTILE)
    known: dict[str, Any] = {
        "state": state, "records": records, "evaluation": evaluation,
        "promotion": PromotionRecord(promoted=True, line=HOSTILE, gates=(gate,), version=1),
        "prepared": prepare(DataConfig(source="sklearn:iris"), tmp_path, tmp_path / "data"),
        "explanation": Explanation(trial=27, rows="validation rows", importance=IMPORTANCE),
        "study": None,
        "importance": {"mlp": {"mlp.width": 0.7, "optimizer.name": 0.3}},
        "moves": (new_move("digits", "promote", None, 1, [HOSTILE]),),
    }  # fmt: skip
    return Material(**(known | changes))


def test_the_page_runs_and_loads_nothing_whatever_words_are_in_it(tmp_path: Path) -> None:
    text = render(material(tmp_path))
    page = Page(text)
    assert {"script", "img", "link", "iframe", "object", "form", "a"}.isdisjoint(page.tags)
    assert not [name for name, _ in page.attributes if name.startswith("on") or name in {"src", "href", "style"}]
    assert "url(" not in text
    assert page.text.count("<script>alert(1)</script>") > 5, "the words themselves are there to be read"


def test_the_policy_allows_the_pages_own_style_and_nothing_else(tmp_path: Path) -> None:
    text = render(material(tmp_path))
    (style,) = re.findall("<style>(.*?)</style>", text, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    assert f"default-src 'none'; style-src 'sha256-{digest}'; img-src data:; base-uri 'none'" in text


def test_the_answer_comes_first_and_everything_it_rests_on_after_it(tmp_path: Path) -> None:
    text = Page(render(material(tmp_path))).text
    order = ["digits", "0.9000", "passed", "Data", "Search", "Families", "Finalists on the sealed test", "Mistakes",
             "Where it errs", "What it uses", "Calibration", "Cost of serving", "Best trials", "How to reproduce",
             "Moves of the champion"]  # fmt: skip
    places = [text.index(word, text.index("automl report")) for word in order]
    assert places == sorted(places)
    assert "The smallest of those is #024 mlp with 10 parameters" in text


def test_a_search_that_runs_and_one_without_data_have_a_page_too(tmp_path: Path) -> None:
    running = material(tmp_path, evaluation=None, promotion=None, importance={}, moves=(), prepared=None)
    text = Page(render(running)).text
    assert "nothing has been read on the test" in text
    assert "Finalists" not in text
    none_yet = material(tmp_path, evaluation=None, promotion=None, importance={}, moves=(), records=())
    assert "0 trials so far" in Page(render(none_yet)).text


def test_slices_are_said_with_their_number_and_the_worse_ones_first(tmp_path: Path) -> None:
    given = material(tmp_path)
    text = Page(render(given)).text
    assert "2 slices, by level, by quartile of the training rows, were compared with all rows" in text
    assert f"1 is worse: {HOSTILE} = {HOSTILE} (accuracy 0.7000)" in text
    assert "Left out: 7 with fewer than 30 test rows" in text
    drawn = text[text.index("Where it errs") :]
    assert drawn.index("40 rows") < drawn.index("age > 48")
    card = model_card(given)
    assert "| accuracy 0.7000 [0.6000, 0.8000] | worse |" in card
    assert "| age &gt; 48 | 50 | accuracy 0.9000 [0.8500, 0.9500] |  |" in card


def test_importance_is_shown_with_what_was_not_measured(tmp_path: Path) -> None:
    text = Page(render(material(tmp_path))).text
    assert "falls where one column is shuffled among 50 validation rows, 20 times" in text
    assert "3 columns were not measured" in text
    assert text.index(f"{HOSTILE}: 0.2000 [0.1500, 0.2500]") < text.index("noise: 0.0000")


def pictured(tmp_path: Path, **changes: Any) -> str:
    """The page of a search over images whose classes have hostile names."""
    given = material(tmp_path)
    assert given.evaluation is not None
    (png,) = thumbnails(np.arange(16.0).reshape(1, 1, 4, 4), 0.0, 15.0)
    wrong = (Picture(png=png, true=HOSTILE, predicted="b", probability=0.99),) * 9
    known = {"n_rows": 9, "n_steps": 32, "error": 0.01, "mean": {HOSTILE: CELLS, "b": CELLS}}
    seen = Attribution.model_validate(
        known | {"examples": (Example(png=png, true="b", predicted=HOSTILE, map=CELLS),)} | changes
    )
    return render(
        material(
            tmp_path,
            evaluation=given.evaluation.model_copy(update={"mistaken": wrong}),
            explanation=Explanation(trial=27, rows="validation rows", attribution=seen),
        )
    )


CELLS = ((0.5, 0.25), (0.25, 0.0))


def test_pictures_are_in_the_page_itself_and_their_names_are_words(tmp_path: Path) -> None:
    text = pictured(tmp_path)
    page = Page(text)
    sources = [value for name, value in page.attributes if name in {"href", "src"}]
    assert len(sources) == 9 + 2 + 2 + 2, "mistakes, mean maps, examples, their maps"
    for source in sources:
        head, data = source.split(",", 1)
        assert head == "data:image/png;base64"
        Image.open(io.BytesIO(base64.b64decode(data))).verify()
    assert {"script", "img"}.isdisjoint(page.tags)
    assert f"{HOSTILE} taken for b, 99% sure" in page.text
    assert "What the winner is most wrong about" in page.text
    assert "the integration is off by 1.0%" in page.text


def test_a_sequence_has_its_maps_and_the_shares_of_its_features(tmp_path: Path) -> None:
    example = Example(png=None, true="b", predicted="b", map=CELLS)
    page = Page(pictured(tmp_path, examples=(example,), by_feature=(0.25, 0.75)))
    assert "mean map, from the first step to the last" in page.text
    assert page.text.index("75.0%") < page.text.index("25.0%")


def test_without_captum_the_page_says_how_to_get_it(tmp_path: Path) -> None:
    missing = Explanation(trial=27, rows="validation rows", missing="shown with captum: pip install it")
    assert "shown with captum: pip install it" in Page(render(material(tmp_path, explanation=missing))).text
    of_another = missing.model_copy(update={"trial": 24})
    assert "captum" not in Page(render(material(tmp_path, explanation=of_another))).text


def test_a_regression_shows_its_residuals(tmp_path: Path) -> None:
    given = material(tmp_path)
    assert given.evaluation is not None
    seen = Residuals(true=(1.0, 2.0), predicted=(1.5, 2.5), bias=0.5, error_p50=0.5, error_p95=0.5)
    winner = given.evaluation.winner.model_copy(update={"reliability": None})
    changed = given.evaluation.model_copy(update={"confusion": None, "residuals": seen, "finalists": (winner,)})
    text = Page(render(material(tmp_path, evaluation=changed))).text
    assert "Half of the predictions are off by at most 0.5" in text
    assert "Calibration" not in text


def test_a_model_card_says_what_was_measured_and_what_was_not(tmp_path: Path) -> None:
    given = material(tmp_path)
    card = model_card(given)
    assert "| accuracy | 0.9000 | 0.8500 to 0.9500 |" in card
    assert "| ece | 0.03 | |" in card
    assert given.prepared is not None
    assert f"fingerprint: `{given.prepared.fingerprint}`" in card
    assert "groups that no column names were not looked at" in card
    assert "90 test rows tell small differences from luck badly" in card
    assert "models:/digits@champion" in card
    # The weaker class first, with nothing in it that Markdown or a browser would act on.
    assert card.index("0.8889 | 45") < card.index("| b | 0.9111 | 45 |")
    assert "<script>" not in card


@pytest.mark.parametrize(("log", "values"), [(False, [0.0, 1.0]), (True, [1e-5, 0.1]), (False, [3.0, 3.0])])
def test_an_axis_holds_its_values_and_its_ticks(log: bool, values: list[float]) -> None:
    scale = scale_of([*values, float("nan")], 50, 600, log=log)
    assert all(50 <= scale(value) <= 600 for value in [*values, *scale.ticks()])
    assert scale.ticks()


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (0.95, "0.95"), (12_000, "12k"), (3e-4, "3e-04"), (2.5e6, "2.5M"), (float("nan"), "?")],
)
def test_numbers_on_axes_are_short(value: float, text: str) -> None:
    assert compact(value) == text


def test_importance_finds_the_parameter_that_matters_family_by_family() -> None:
    study = optuna.create_study(direction="maximize")
    records = []
    for number in range(40):
        trial = study.ask(
            {"family": CategoricalDistribution(["mlp"]), "a": FloatDistribution(0, 1), "b": FloatDistribution(0, 1)}
        )
        score = float(trial.params["a"])
        records.append(record(number, "COMPLETE" if number % 2 else "PRUNED", objective=score))
    shares = importances(study, records)
    assert shares.keys() == {"mlp"}
    assert shares["mlp"]["a"] > 0.8
    assert importances(study, records[:9]) == {}, "nine trials say nothing"
