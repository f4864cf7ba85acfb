"""Gates: each one passed or not, with the numbers that say so."""

from __future__ import annotations

import pytest

from pipeline.config import Gate
from pipeline.data.slicing import Cut, Slicing
from pipeline.errors import ConfigError
from pipeline.evaluation.calibration import Reliability
from pipeline.evaluation.cost import Cost
from pipeline.evaluation.finalists import Evaluation, Finalist
from pipeline.evaluation.gates import check_gates, judge
from pipeline.evaluation.intervals import Comparison, Interval, OverSeeds
from pipeline.evaluation.slices import Slice, Sliced

SLICING = Slicing(cuts=(Cut(column="town", kind="levels", levels=("Lyon",)),), target="buys", labels=("no", "yes"))


def interval(value: float) -> Interval:
    return Interval(value=value, low=value - 0.02, high=value + 0.02, confidence=0.95)


def evaluation(difference: float | None = None, probability: float = 0.5, **changes: object) -> Evaluation:
    """A winner at accuracy 0.90 and log loss 0.30; against champion v3 where there is a difference."""
    winner = Finalist(
        trial=4, family="mlp", validation=0.92, n_params=10,
        test={"accuracy": interval(0.90), "log_loss": interval(0.30)}, reliability=Reliability(ece=0.02, bins=()),
        cost=Cost(latency_ms_p50=1.0, latency_ms_p95=3.5, rows_per_s=1e5, size_mb=0.4),
    )  # fmt: skip
    versus = None
    if difference is not None:
        versus = Comparison(difference=interval(difference), probability_better=probability)
        changes = {"champion": 3, **changes}
    return Evaluation.model_validate(
        {"metric": "accuracy", "n_rows": 100, "finalists": (winner,), "versus_champion": versus, **changes}
    )


def over(difference: float, probability: float) -> OverSeeds:
    return OverSeeds(n=3, difference=interval(difference), probability_better=probability)


def by_seeds(own: float, mean: OverSeeds) -> Evaluation:
    """A winner that was trained three times: its own lead, and their mean's."""
    versus = Comparison(difference=interval(own), probability_better=0.999 if own > 0 else 0.001, over_seeds=mean)
    return evaluation(0.0, versus_champion=versus)


def by_town(**scores: float) -> dict[str, object]:
    """A winner whose accuracy was read by town."""
    slices = tuple(
        Slice(column="town", level=town, n_rows=40, test={"accuracy": interval(score)}, metric="accuracy", p=None,
              worse=False)
        for town, score in scores.items()
    )  # fmt: skip
    winner = evaluation().winner.model_copy(update={"sliced": Sliced(slices=slices, n_small=1, n_columns_left_out=0)})
    return {"finalists": (winner,)}


TOWN = Gate(slice="town", metric="accuracy", min=0.8)
BEATS = Gate(beats="champion", confidence=0.9)
CASES = {
    "floor passed": (Gate(metric="accuracy", min=0.9), evaluation(), True, "0.9000 [0.8800, 0.9200]"),
    "floor not passed": (Gate(metric="accuracy", min=0.901), evaluation(), False, "0.9000"),
    "ceiling passed": (Gate(metric="log_loss", max=0.3), evaluation(), True, "0.3000"),
    "ceiling not passed": (Gate(metric="log_loss", max=0.29), evaluation(), False, "0.3000"),
    "both, one not passed": (Gate(metric="accuracy", min=0.5, max=0.8), evaluation(), False, "0.9000"),
    "undefined on these rows": (Gate(metric="roc_auc", min=0.1), evaluation(), False, "undefined"),
    "fast enough": (Gate.model_validate({"latency_ms_p95": 10}), evaluation(), True, "measured: 3.5"),
    "too slow": (Gate.model_validate({"latency_ms_p95": 2}), evaluation(), False, "measured: 3.5"),
    "too large": (Gate(metric="size_mb", max=0.1), evaluation(), False, "measured: 0.4"),
    "not calibrated": (Gate.model_validate({"ece": 0.01}), evaluation(), False, "measured: 0.02"),
    "few parameters": (Gate.model_validate({"n_params": 10}), evaluation(), True, "measured: 10"),
    "above the floor in every town": (
        TOWN, evaluation(**by_town(Lyon=0.95, Porto=0.81)), True, "2 of 2 slices with 30 test rows or more",
    ),
    "below the floor in one town": (
        TOWN, evaluation(**by_town(Lyon=0.95, Porto=0.79)), False, "lowest town = Porto: 0.79",
    ),
    "above a ceiling in one town": (
        Gate(slice="town", metric="accuracy", max=0.9), evaluation(**by_town(Lyon=0.95, Porto=0.7)), False, "highest",
    ),
    "no town with rows enough": (TOWN, evaluation(**by_town()), False, "no slice of town has 30 test rows"),
    "evaluated before there were slices": (TOWN, evaluation(), False, "the slices were not read"),
    "undefined in a town": (
        Gate(slice="town", metric="roc_auc", min=0.1), evaluation(**by_town(Lyon=0.9)), False, "on town = Lyon",
    ),
    "no champion yet": (BEATS, evaluation(), True, "no champion yet"),
    "champion beaten": (BEATS, evaluation(0.01, 0.96), True, "96.0% of resamples"),
    "one end of the interval is not enough": (BEATS, evaluation(0.01, 0.94), False, "94.0% of resamples"),
    "an interval that touches 0": (BEATS, evaluation(0.01, 0.95), False, "95.0%"),
    "better only by resampling": (BEATS, evaluation(0.0, 0.97), False, "difference to v3"),
    "champion beaten over seeds": (BEATS, by_seeds(0.01, over(0.01, 0.96)), True, "over 3 seeds 0.0100"),
    "champion beaten by a lucky training": (BEATS, by_seeds(0.05, over(0.01, 0.94)), False, "better in 94.0%"),
    "champion beaten by all but the model itself": (BEATS, by_seeds(0.0, over(0.05, 0.99)), False, "0.0000 ["),
    "champion that cannot be compared": (
        BEATS, evaluation(champion=3, champion_problem="it knows other labels"), False, "it knows other labels",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("gate", "on", "passed", "evidence"), CASES.values(), ids=CASES.keys())
def test_a_gate_is_judged_with_its_evidence(gate: Gate, on: Evaluation, passed: bool, evidence: str) -> None:
    (result,) = judge([gate], on)
    assert result.passed is passed
    assert evidence in result.evidence


def test_every_gate_is_judged_even_after_one_that_is_not_passed() -> None:
    gates = [Gate(metric="accuracy", min=0.99), Gate(metric="accuracy", min=0.5), BEATS]
    assert [result.passed for result in judge(gates, evaluation())] == [False, True, True]


def test_a_gate_on_another_tasks_metric_is_found_before_anything_is_trained() -> None:
    check_gates([Gate(metric="accuracy", min=0.5), BEATS], "multiclass", SLICING)
    check_gates([Gate.model_validate({"latency_ms_p95": 1})], "regression", SLICING)
    with pytest.raises(ConfigError, match="'ece'"):
        check_gates([Gate.model_validate({"ece": 0.1})], "regression", SLICING)
    with pytest.raises(ConfigError, match=r"promotion.gates.*'rmse'; use one of accuracy"):
        check_gates([Gate(metric="rmse", max=1)], "multiclass", SLICING)


def test_a_gate_on_a_column_that_is_not_there_is_found_before_anything_is_trained() -> None:
    check_gates([TOWN, Gate(slice="buys", metric="accuracy", min=0.5)], "binary", SLICING)
    with pytest.raises(ConfigError, match="'twon'; did you mean town"):
        check_gates([Gate(slice="twon", metric="accuracy", min=0.5)], "binary", SLICING)
    with pytest.raises(ConfigError, match="'ocean'; they are town, buys"):
        check_gates([Gate(slice="ocean", metric="accuracy", min=0.5)], "binary", SLICING)
    with pytest.raises(ValueError, match="a gate on the slices of 'town' must have one of accuracy"):
        Gate(slice="town", metric="size_mb", max=1)
