"""Intervals cover as often as they say, and paired comparisons see what both models share."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from scipy.stats import binomtest, bootstrap
from torch import Tensor

from pipeline.data.spec import DataSpec
from pipeline.evaluation.intervals import Resampling, _balanced, compare, score_intervals, wilson
from pipeline.objective import METRICS

REGRESSION = DataSpec(kind="tabular", task="regression", n_numeric=1, target_scale=3.0, n_train=1, n_validation=1)
BINARY = DataSpec(kind="tabular", task="binary", n_numeric=1, labels=(0, 1), n_train=1, n_validation=1)


def logits(right: int, wrong: int) -> tuple[Tensor, Tensor]:
    """Outputs for rows whose labels alternate, of which the last `wrong` are misclassified."""
    target = torch.arange(right + wrong) % 2
    predicted = target.clone()
    predicted[right:] = 1 - predicted[right:]
    return torch.nn.functional.one_hot(predicted, 2).double(), target


@pytest.mark.parametrize(("right", "n"), [(0, 10), (8, 10), (10, 10), (95, 100), (1, 1), (499_999, 500_000)])
@pytest.mark.parametrize("confidence", [0.8, 0.95, 0.999])
def test_wilson_equals_scipys(right: int, n: int, confidence: float) -> None:
    interval = wilson(right / n, n, confidence)
    theirs = binomtest(right, n).proportion_ci(confidence, method="wilson")
    assert (interval.low, interval.high) == pytest.approx((theirs.low, theirs.high), abs=1e-12)


def test_wilson_covers_a_true_share_as_often_as_it_says() -> None:
    """Exact coverage over all outcomes of a binomial, no simulation: mean over shares within 1 % of nominal."""
    n, coverages = 60, []
    for share in np.linspace(0.02, 0.98, 49):
        odds = [math.comb(n, k) * share**k * (1 - share) ** (n - k) for k in range(n + 1)]
        bounds = [wilson(k / n, n, 0.95) for k in range(n + 1)]
        coverages.append(sum(p for p, b in zip(odds, bounds, strict=True) if b.low <= share <= b.high))
    assert np.mean(coverages) == pytest.approx(0.95, abs=0.01)
    assert min(coverages) > 0.85


def test_a_faultless_model_is_not_certain_to_stay_faultless() -> None:
    outputs, target = logits(right=50, wrong=0)
    accuracy = score_intervals(outputs, target, BINARY, Resampling(0.95, 100, 0))["accuracy"]
    assert accuracy.value == accuracy.high == 1.0
    assert accuracy.low == pytest.approx(1 / (1 + 1.959964**2 / 50), abs=1e-6)


def test_the_bootstrap_of_a_difference_equals_a_slow_reference() -> None:
    generator = torch.Generator().manual_seed(1)
    ours, theirs = torch.randn(2, 40, 1, generator=generator)
    target = torch.randn(40, generator=generator)
    how = Resampling(0.9, 200, 7)
    interval = compare(ours, theirs, target, REGRESSION, METRICS["rmse"], how).difference

    rows = torch.randint(40, (200, 40), generator=torch.Generator().manual_seed(7))
    slow = []
    for sample in rows.tolist():
        means = [sum(float(model[i, 0] - target[i]) ** 2 for i in sample) / 40 for model in (theirs, ours)]
        slow.append(3.0 * (math.sqrt(means[0]) - math.sqrt(means[1])))
    low, high = np.quantile(slow, [0.05, 0.95])
    assert (interval.low, interval.high) == pytest.approx((low, high), rel=1e-6)


def test_an_accelerated_interval_is_scipys() -> None:
    """Of a share of explained variance that one row in forty decides. The ends of 20,000 resamples vary by 0.01."""
    generator = torch.Generator().manual_seed(1)
    target = torch.randn(40, generator=generator).exp()
    outputs = (target + 0.5 * torch.randn(40, generator=generator))[:, None]
    interval = score_intervals(outputs, target, REGRESSION, Resampling(0.9, 20_000, 7))["r2"]
    theirs = bootstrap(
        (outputs[:, 0].double().numpy(), target.double().numpy()),
        lambda x, y, axis: 1 - ((x - y) ** 2).mean(axis) / y.var(axis), n_resamples=20_000, confidence_level=0.9,
        method="BCa", paired=True, rng=np.random.default_rng(0),
    ).confidence_interval  # fmt: skip
    assert (interval.low, interval.high) == pytest.approx((theirs.low, theirs.high), abs=0.03)
    assert interval.low < interval.value < interval.high


def test_more_rows_than_groups_hardly_change_the_acceleration(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = torch.Generator().manual_seed(1)
    target = torch.randn(1_003, generator=generator).exp()
    outputs = (target + torch.randn(1_003, generator=generator))[:, None]
    how = Resampling(0.9, 2_000, 7)
    grouped = score_intervals(outputs, target, REGRESSION, how)["r2"]
    monkeypatch.setattr("pipeline.evaluation.intervals.GROUPS", 2_000)
    every = score_intervals(outputs, target, REGRESSION, how)["r2"]
    assert (grouped.low, grouped.high) == pytest.approx((every.low, every.high), abs=0.01)


def test_a_mean_loss_has_the_studentised_interval_of_its_logarithm() -> None:
    """Against the textbook's formula, one resample at a time."""
    generator = torch.Generator().manual_seed(1)
    outputs, target = torch.randn(40, 1, generator=generator).exp(), torch.zeros(40)
    intervals = score_intervals(outputs, target, REGRESSION, Resampling(0.9, 300, 7))
    for name, power, losses in (("rmse", 2, 9 * outputs[:, 0] ** 2), ("mae", 1, 3 * outputs[:, 0])):
        x = losses.double().numpy()
        error = x.std(ddof=1) / math.sqrt(40) / x.mean()
        t = []
        for rows in torch.randint(40, (300, 40), generator=torch.Generator().manual_seed(7)).numpy():
            drawn = x[rows]
            t.append(math.log(drawn.mean() / x.mean()) / (drawn.std(ddof=1) / math.sqrt(40) / drawn.mean()))
        low, high = (x.mean() * math.exp(-q * error) for q in np.quantile(t, [0.95, 0.05]))
        found = intervals[name]
        assert (found.low**power, found.high**power) == pytest.approx((low, high), rel=1e-6)
        assert found.value**power == pytest.approx(x.mean(), rel=1e-6)


@pytest.mark.parametrize("outputs", [torch.zeros(10, 1), torch.ones(10, 1), torch.zeros(1, 1)])
def test_losses_that_do_not_vary_have_an_interval_without_width(outputs: Tensor) -> None:
    found = score_intervals(outputs, torch.zeros(len(outputs)), REGRESSION, Resampling(0.95, 100, 0))["rmse"]
    assert (found.low, found.high) == (found.value, found.value) == pytest.approx([3.0 * float(outputs[0])] * 2)


def test_balanced_accuracy_covers_a_true_mean_of_shares_as_often_as_it_says() -> None:
    """Exact coverage over all outcomes of 30 rows of one class and 12 of the other, no simulation."""
    counts, shares, covered = (30, 12), (0.9, 0.7), 0.0
    for right in itertools.product(range(31), range(13)):
        odds = math.prod(
            math.comb(n, k) * p**k * (1 - p) ** (n - k) for n, k, p in zip(counts, right, shares, strict=True)
        )
        hits = torch.cat([torch.arange(n) < k for n, k in zip(counts, right, strict=True)])
        target = torch.tensor([0] * counts[0] + [1] * counts[1])
        outputs = torch.nn.functional.one_hot(torch.where(hits, target, 1 - target), 2).float()
        interval = _balanced(outputs, target, 0.95)
        covered += odds * (interval.low <= sum(shares) / 2 <= interval.high)
    assert covered == pytest.approx(0.95, abs=0.015)


def test_the_bootstrap_covers_a_true_error_about_as_often_as_it_says() -> None:
    """200 data sets of 100 rows with mean absolute error sqrt(2/pi), intervals at 90 %.

    The percentile interval of a mean of 100 covers about 89 %. With true coverage 0.88, 200 draws show less than 0.78
    once in 40,000; with the two tails confused or resampling without replacement the share is near 0.
    """
    true, covered = math.sqrt(2 / math.pi), 0
    for seed in range(200):
        generator = torch.Generator().manual_seed(seed)
        outputs, target = torch.zeros(100, 1), torch.randn(100, generator=generator)
        spec = REGRESSION.model_copy(update={"target_scale": 1.0})
        mae = score_intervals(outputs, target, spec, Resampling(0.9, 200, seed))["mae"]
        covered += mae.low <= true <= mae.high
    assert 0.78 <= covered / 200 <= 0.97


def test_a_metric_that_the_rows_do_not_define_is_left_out() -> None:
    outputs, target = torch.zeros(10, 2), torch.zeros(10, dtype=torch.long)
    assert "roc_auc" not in score_intervals(outputs, target, BINARY, Resampling(0.95, 100, 0))


@pytest.mark.parametrize(("metric", "spec"), [("accuracy", BINARY), ("log_loss", BINARY)])
def test_the_better_model_has_the_positive_difference_whatever_the_direction(metric: str, spec: DataSpec) -> None:
    (good, target), (bad, _) = logits(right=90, wrong=10), logits(right=60, wrong=40)
    how = Resampling(0.95, 300, 0)
    ahead = compare(good, bad, target, spec, METRICS[metric], how)
    behind = compare(bad, good, target, spec, METRICS[metric], how)
    assert ahead.difference.low > 0
    assert ahead.probability_better == 1.0
    assert behind.difference.value == pytest.approx(-ahead.difference.value)
    assert behind.probability_better == 0.0


def test_pairing_cancels_what_both_models_get_wrong() -> None:
    """The challenger repeats the champion's errors but for 3 rows of 400. Unpaired, the standard error is 0.035."""
    champion, target = logits(right=200, wrong=200)
    challenger = champion.clone()
    challenger[200:203] = champion[200:203].flip(1)
    comparison = compare(challenger, champion, target, BINARY, METRICS["accuracy"], Resampling(0.95, 1000, 0))
    assert comparison.difference.value == pytest.approx(3 / 400)
    assert comparison.difference.high - comparison.difference.low < 0.03
    # No sample draws any of the 3 rows with odds (1 - 3/400)^400 = 0.049; then there is no difference.
    assert 0.91 < comparison.probability_better < 0.98


def test_a_model_does_not_beat_itself() -> None:
    outputs, target = logits(right=70, wrong=30)
    comparison = compare(outputs, outputs, target, BINARY, METRICS["accuracy"], Resampling(0.95, 200, 0))
    assert comparison.difference.value == 0.0
    assert comparison.probability_better == 0.0


def test_a_lead_over_seeds_counts_luck_in_training_besides_that_of_the_rows() -> None:
    """Three trainings that are right in 75, 70 and 65 of 100 rows, against a champion that is in 60."""
    (first, target), (second, _), (third, _), (champion, _) = (logits(n, 100 - n) for n in (75, 70, 65, 60))
    how = Resampling(0.95, 4000, 0)
    comparison = compare(first, champion, target, BINARY, METRICS["accuracy"], how, [second, third])
    alone = compare(first, champion, target, BINARY, METRICS["accuracy"], how)
    assert comparison.difference == alone.difference
    assert comparison.probability_better == alone.probability_better
    over = comparison.over_seeds
    assert over is not None
    assert over.n == 3
    assert over.difference.value == pytest.approx(0.10)
    # The rows: how many of three disjoint groups of 5 rows, right by 3, 2 and 1 of the trainings, are drawn.
    rows = (sum(0.05 * k**2 for k in (1, 2 / 3, 1 / 3)) - 0.10**2) / 100
    spread = math.sqrt(rows + 0.05**2 * (1 + 1 / 3))
    assert over.difference.high - over.difference.low == pytest.approx(2 * 1.96 * spread, rel=0.05)
    assert over.probability_better == pytest.approx(0.5 * math.erfc(-0.10 / spread / math.sqrt(2)), abs=0.01)
    assert alone.difference.low > 0 > over.difference.low


def test_a_comparison_tells_both_in_a_sentence() -> None:
    (one, target), (champion, _) = logits(75, 25), logits(60, 40)
    how = Resampling(0.95, 100, 0)
    alone = compare(one, champion, target, BINARY, METRICS["accuracy"], how).told("accuracy", " of 100 rows")
    assert alone.startswith("0.1500 [")
    assert alone.endswith("] accuracy, better in 100.0% of resamples of 100 rows")
    over = compare(one, champion, target, BINARY, METRICS["accuracy"], how, [one]).told("accuracy")
    assert "; over 2 seeds 0.1500 [" in over
