"""TPE with scipy's normal distribution suggests what Optuna's own suggests."""

from __future__ import annotations

import numpy as np
import optuna
import pytest
from optuna.samplers._tpe import _truncnorm
from scipy.special import log_ndtr

from pipeline.search.tpe import vectorise


def by_python(a: np.ndarray) -> np.ndarray:
    """As Optuna computes it."""
    return np.frompyfunc(_truncnorm._log_ndtr_single, 1, 1)(a).astype(float)


@pytest.fixture(autouse=True)
def optunas_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """Other tests may have replaced it in this process; afterwards it is what it was."""
    monkeypatch.setattr(_truncnorm, "_log_ndtr", by_python)


def suggestions(n: int) -> list[tuple[float, int]]:
    """Of a search whose values depend on what is suggested."""
    sampler = optuna.samplers.TPESampler(seed=0, n_startup_trials=5, multivariate=True)
    study = optuna.create_study(sampler=sampler)
    study.optimize(lambda t: (t.suggest_float("x", 0, 1) - 0.3) ** 2 + t.suggest_int("n", 1, 64, log=True) / 64, n)
    return [(trial.params["x"], trial.params["n"]) for trial in study.get_trials()]


def test_the_two_functions_agree_wherever_a_kernel_may_be_cut_off() -> None:
    x = np.concatenate([np.linspace(-40, 10, 10_001), -np.logspace(1.7, 4, 50)])
    np.testing.assert_allclose(log_ndtr(x), by_python(x), rtol=1e-7)


def test_a_search_goes_the_same_way() -> None:
    before = suggestions(30)
    vectorise()
    assert _truncnorm._log_ndtr is log_ndtr
    for (x, n), (same_x, same_n) in zip(before, suggestions(30), strict=True):
        assert same_x == pytest.approx(x, abs=1e-5)
        assert same_n == n


def test_an_optuna_without_the_function_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(_truncnorm, "_log_ndtr")
    vectorise()
    assert not hasattr(_truncnorm, "_log_ndtr")
