"""Series as windows: what a window may see, how windows are divided by time, and what is wrong with times."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from pipeline.data.config import DataConfig, ForecastConfig, SplitConfig
from pipeline.data.forecast.assemble import assemble_forecast
from pipeline.data.forecast.clock import fit_clock
from pipeline.data.forecast.parts import divide, find_cuts
from pipeline.data.prepare import Prepared, prepare
from pipeline.data.preprocess import ForecastPreprocessor
from pipeline.data.readers.request import Request
from pipeline.data.readers.table import to_dataset
from pipeline.data.sealed import unseal
from pipeline.errors import DataError


def table(n: int = 120, *, names: tuple[str, ...] = (), freq: str = "h", seed: int = 0) -> pd.DataFrame:
    """Series that count their own steps, so that a value says where it comes from."""
    rng = np.random.default_rng(seed)
    frames = []
    for place, name in enumerate(names or ("",)):
        when = pd.date_range("2024-01-01", periods=n, freq=freq).strftime("%Y-%m-%d %H:%M:%S")
        values = 10_000.0 * place + np.arange(n) + rng.normal(0, 1e-3, n)
        frame = pd.DataFrame({"when": when, "load": values, "wind": rng.normal(size=n)})
        frames.append(frame.assign(**({"site": name} if name else {})))
    return pd.concat(frames, ignore_index=True)


def config(**forecast: object) -> DataConfig:
    split = SplitConfig.model_validate(forecast.pop("split", {}))
    return DataConfig(
        source="a.csv", target="load", kind="forecast", split=split, forecast=ForecastConfig.model_validate(forecast)
    )


def prepared(frame: pd.DataFrame, folder: Path, **forecast: object) -> Prepared:
    frame.to_csv(folder / "a.csv", index=False)
    return prepare(config(**forecast), folder, folder / "store")


def preprocessor_of(data: Prepared) -> ForecastPreprocessor:
    assert isinstance(data.preprocessor, ForecastPreprocessor)
    return data.preprocessor


@settings(max_examples=15, deadline=None)
@given(
    n=st.integers(60, 150),
    horizon=st.integers(1, 6),
    context=st.integers(2, 8),
    names=st.sampled_from([(), ("a", "b"), ("x", "y", "z")]),
    holes=st.sets(st.integers(1, 149), max_size=3),  # steps are counted from the first row that is there
    shuffled=st.booleans(),
)
def test_no_window_sees_its_future_and_no_part_reaches_into_a_later_one(
    n: int, horizon: int, context: int, names: tuple[str, ...], holes: set[int], shuffled: bool
) -> None:
    frame = table(n, names=names).drop(index=[hole for hole in holes if hole < n])
    frame = frame.sample(frac=1, random_state=0) if shuffled else frame
    settled = config(horizon=horizon, context=context, season=1, series="site" if names else None, covariates=())
    labelled = to_dataset(frame.reset_index(drop=True), Request(Path("a.csv"), "load"), [])
    try:
        made = assemble_forecast(settled, labelled, None)
    except DataError as error:
        if "part must have" not in error.what:
            raise
        return
    spec, fitted, test = made.development.spec, made.preprocessor, made.test
    assert isinstance(fitted, ForecastPreprocessor)
    assert test.origins is not None
    assert test.target is not None
    # The value of a step is its number: inputs end where the origin says, and what is predicted comes after it.
    for window, ahead, origin in zip(test.features, test.target, test.origins.itertuples(), strict=True):
        place = names.index(origin.series) if names else 0
        at = np.round(window[:, 0] - 10_000 * place)
        assert at.tolist() == list(range(origin.step - context + 1, origin.step + 1))
        assert np.round(ahead).tolist() == list(range(1, horizon + 1))
    # The same of the other parts, by their standardised tensors.
    cuts = find_cuts(fitted.layout.clock.steps(frame["when"]), settled.split, horizon, None)
    for part in (made.development.train, made.development.validation):
        last = part.inputs.x[:, :, 0] * fitted.scale
        assert np.round(last[:, 0].numpy()).tolist() == [-(context - 1)] * len(part)
        ahead = part.target.numpy() * spec.target_scale + spec.target_mean
        assert (np.round(ahead) == np.arange(1, horizon + 1)).all()
    assert (test.origins["step"] + 1 >= cuts.test_from).all()
    assert test.origins["step"].is_monotonic_increasing


@settings(max_examples=50, deadline=None)
@given(
    origins=st.lists(st.integers(0, 200), min_size=60, max_size=200, unique=True),
    horizon=st.integers(1, 8),
)
def test_parts_follow_each_other_without_a_shared_target(origins: list[int], horizon: int) -> None:
    at = np.sort(np.array(origins))
    cuts = find_cuts(np.arange(at.max() + horizon + 1), SplitConfig(), horizon, None)
    try:
        split = divide(at, horizon, cuts)
    except DataError:
        return
    for earlier, later in ((split.train, split.validation), (split.validation, split.test)):
        assert at[earlier].max() + horizon < at[later].min() + 1
    everything = np.concatenate([split.train, split.validation, split.test])
    assert len(np.unique(everything)) == len(everything)


def test_scaling_is_fitted_on_the_training_part_only(tmp_path: Path) -> None:
    frame = table(200)
    changed = frame.copy()
    changed.loc[130:, ["load", "wind"]] *= 1000  # validation begins at 120
    (tmp_path / "b").mkdir()
    one = preprocessor_of(prepared(frame, tmp_path, horizon=3, season=1))
    other = preprocessor_of(prepared(changed, tmp_path / "b", horizon=3, season=1))
    assert one == other


def test_values_are_scaled_to_about_one(tmp_path: Path) -> None:
    frame = table(400).assign(load=lambda rows: 1e6 * rows["load"], wind=lambda rows: 100 + 5 * rows["wind"])
    x = prepared(frame, tmp_path, horizon=3, context=9, season=1).development().train.inputs.x
    assert float(x[:, :, 0].square().mean().sqrt()) == pytest.approx(1, abs=0.01)
    assert float(x[:, :, 1].mean()) == pytest.approx(0, abs=0.05)
    assert float(x[:, :, 1].std()) == pytest.approx(1, abs=0.05)


def test_the_sealed_test_comes_back_with_its_origins(tmp_path: Path) -> None:
    data = prepared(table(150, names=("a", "b")), tmp_path, horizon=4, series="site")
    test, target = unseal(data.sealed, "a test", tmp_path / "ledger.jsonl")
    assert test.kind == "forecast"
    assert target.shape == (len(test), 4)
    assert test.origins is not None
    assert test.origins.columns.tolist() == ["series", "step", "time"]
    assert test.origins["time"].iloc[-1] == "2024-01-07 01:00:00"  # 150 hours, 4 of them ahead


def test_the_history_gives_the_same_tensors_as_training_had(tmp_path: Path) -> None:
    frame = table(150, names=("a", "b"))
    data = prepared(frame, tmp_path, horizon=4, series="site")
    fitted = preprocessor_of(data)
    known = pd.concat([rows.iloc[:-4] for _, rows in frame.groupby("site")])
    histories = fitted.histories(known.sample(frac=1, random_state=1))
    test, _ = unseal(data.sealed, "a test", tmp_path / "ledger.jsonl")
    assert histories.names == ["a", "b"]
    assert fitted.times_after(histories.origins)[0].tolist() == frame["when"].iloc[146:150].tolist()
    ours, theirs = fitted.transform(histories.inputs).x, fitted.transform(test.features[-2:]).x
    assert np.allclose(ours, theirs, atol=1e-6)


def test_a_separate_test_continues_the_source(tmp_path: Path) -> None:
    frame = table(150)
    frame.iloc[:120].to_csv(tmp_path / "a.csv", index=False)
    frame.iloc[120:].to_csv(tmp_path / "b.csv", index=False)
    settled = config(horizon=4, context=8).model_copy(update={"test": "b.csv"})
    data = prepare(settled, tmp_path, tmp_path / "store")
    assert len(data.sealed) == 30 - 4 + 1  # the first is made of the source's last rows
    assert data.spec.n_train == 120 - round(0.2 * 120) - 8 - 4 + 1
    frame.iloc[100:].to_csv(tmp_path / "b.csv", index=False)
    with pytest.raises(DataError, match="must come after"):
        prepare(settled, tmp_path, tmp_path / "store")


@pytest.mark.parametrize(
    ("times", "step", "following"),
    [
        (["1949-01", "1949-02", "1949-03", "1949-04"], "1 month", "1949-05"),
        (["2020-01-31", "2020-02-29", "2020-03-31", "2020-04-30"], "1 month", "2020-05-31"),
        (["2019-11-30", "2019-12-31", "2020-01-31"], "1 month", "2020-02-29"),
        (["2020-11-30", "2020-12-30", "2021-01-30"], "1 month", "2021-02-28"),
        (["2019-01-01", "2020-01-01", "2021-01-01", "2022-01-01"], "1 year", "2023-01-01"),
        (["2020-01-01", "2020-04-01", "2020-07-01", "2020-10-01"], "3 months", "2021-01-01"),
        (["01.12.2020", "02.12.2020", "03.12.2020", "04.12.2020"], "1 day", "05.12.2020"),
        (["2020-01-01 00:00", "2020-01-01 00:15", "2020-01-01 00:30"], "15 minutes", "2020-01-01 00:45:00"),
        ([str(day)[:10] for day in pd.bdate_range("2024-03-01", periods=11)], "1 business day", "2024-03-18"),
        ([str(day)[:10] for day in pd.date_range("2024-03-04", periods=12, freq="7D")], "1 week", "2024-05-27"),
        (["1", "2", "3", "4"], "1", 5),
        (["0.1", "0.2", "0.3", "0.4"], "0.1", 0.5),
    ],
)
def test_every_usual_calendar_has_a_step(times: list[str], step: str, following: object) -> None:
    column = pd.Series(times, name="when")
    clock = fit_clock(column, np.zeros(len(times), dtype=np.int64), name="when")
    assert clock.step == step
    assert clock.steps(column).tolist() == list(range(len(times)))
    assert clock.times(clock.steps(column)[-1:] + 1)[0] == pytest.approx(following)


@pytest.mark.parametrize(
    ("times", "between"),
    [
        (["2020-01-31", "2020-02-29", "2020-03-31"], "2020-04-29"),
        (["2020-01-05", "2020-02-05", "2020-03-05"], "2020-04-06"),
        ([str(day)[:10] for day in pd.bdate_range("2024-03-01", periods=11)], "2024-03-16"),
        (["2020-01-01 00:00", "2020-01-01 00:15", "2020-01-01 00:30"], "2020-01-01 00:40"),
        (["1", "3", "5"], "6"),
    ],
)
def test_a_time_between_two_steps_is_refused(times: list[str], between: str) -> None:
    clock = fit_clock(pd.Series(times, name="when"), np.zeros(len(times), dtype=np.int64), name="when")
    with pytest.raises(DataError, match=rf"must go in steps of {clock.step}, but row 2 has '{between}'"):
        clock.steps(pd.Series([times[-1], between], name="when"))


def _with_row(frame: pd.DataFrame, **cells: object) -> pd.DataFrame:
    return pd.concat([frame, frame.iloc[[5]].assign(**cells)], ignore_index=True)


@pytest.mark.parametrize(
    ("frame", "forecast", "message"),
    [
        (_with_row(table()), {}, r"rows 6 and 121 both have '2024-01-01 05:00:00' \(1 repeated times\)"),
        (_with_row(table(), when="2024-01-01 05:20:00"), {}, "no regular distances"),
        (_with_row(table(), when="soon"), {}, "row 121 has 'soon'"),
        (table(names=("a", "b")), {}, "both have '2024-01-01 00:00:00'"),
        (table(names=("a", "b")), {"series": "sit"}, "names 'sit'"),
        (table(), {"time": "wine"}, "names 'wine'"),
        (table().assign(until=table()["when"]), {}, "2 columns are dates"),
        (table().drop(columns="when"), {}, "0 columns are dates"),
        (table(), {"horizon": 100}, "three parts of at least 100 steps"),
        (table(), {"horizon": 2, "context": 100}, "lower data.forecast.context"),
        (table(), {"horizon": 2, "season": 24, "context": 12}, "a whole season"),
        (table().assign(load=1.0), {"horizon": 2}, "same in all"),
        (table().assign(wind="calm"), {"covariates": ["wind"]}, "must be numbers"),
        (table(24), {"horizon": 2}, "10 or more windows"),
        (_with_row(table(), when="9999-01-01 00:00:00"), {}, "correct stray times"),
    ],
)
def test_what_is_wrong_with_series_is_said_in_a_line(
    frame: pd.DataFrame, forecast: dict[str, object], message: str, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match=message) as caught:
        prepared(frame, tmp_path, **forecast)
    assert caught.value.remedy
    assert "\n" not in str(caught.value)
    assert list((tmp_path / "store").iterdir()) == []


def test_gaps_are_said_and_not_crossed_or_filled(tmp_path: Path) -> None:
    gappy = table(150).drop(index=[40, 41, 70])
    crossed = prepared(gappy, tmp_path, horizon=3, context=6)
    (tmp_path / "b").mkdir()
    filled = prepared(gappy, tmp_path / "b", horizon=3, context=6, fill=2)
    said = next(str(f) for f in crossed.findings if "missing" in f.message)
    assert "3 steps are missing in 2 gaps: windows do not reach over them (after 2024-01-02 15:00:00" in said
    assert "data.forecast.fill: 2" in said
    # A window has 9 steps: a gap of k costs 8 + k of them.
    assert filled.spec.n_train - crossed.spec.n_train == (8 + 2) + (8 + 1)
    assert any("2 are filled" in f.message for f in filled.findings)


def test_a_test_of_few_horizons_is_said_to_have_intervals_that_are_too_narrow(tmp_path: Path) -> None:
    few = prepared(table(150), tmp_path, horizon=6, season=1)
    (tmp_path / "b").mkdir()
    enough = prepared(table(150), tmp_path / "b", horizon=2, season=1)
    said = [[f.evidence for f in made.findings if "intervals are too narrow" in f.message] for made in (few, enough)]
    assert said == [["25 windows over 30 steps, 5.0 horizons"], []]


def test_the_season_is_the_one_whose_naive_forecast_is_best_on_the_training_part(tmp_path: Path) -> None:
    rng, n = np.random.default_rng(0), 24 * 20
    daily = table(n).assign(load=10 * np.sin(2 * np.pi * np.arange(n) / 24) + rng.normal(0, 1, n))
    assert prepared(daily, tmp_path, horizon=12).spec.season == 24
    (tmp_path / "b").mkdir()
    assert prepared(table(n), tmp_path / "b", horizon=12).spec.season == 1


@pytest.mark.parametrize("by", ["random", "group", "stratified"])
def test_windows_are_divided_by_time_only(by: str) -> None:
    split = {"by": by, "column": "site"} if by == "group" else {"by": by}
    with pytest.raises(ValidationError, match="divided by their times only"):
        DataConfig.model_validate({"source": "a.csv", "target": "load", "kind": "forecast", "split": split})


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"forecast": {"horizon": 3}}, "need `kind: forecast`"),
        ({"task": "forecast"}, "need `kind: forecast`"),
        ({"kind": "forecast", "task": "regression"}, "the task of `kind: forecast`"),
        ({"kind": "forecast", "target": None}, "needs `target`"),
        ({"kind": "forecast", "types": {"a": "drop"}}, "forecast.covariates"),
        ({"kind": "forecast", "forecast": {"horizon": 0}}, "greater than or equal to 1"),
    ],
)
def test_impossible_forecasts_are_refused(data: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        DataConfig.model_validate({"source": "a.csv", "target": "y", **data})


def test_folds_walk_forward_and_train_on_what_was_over_before_them(tmp_path: Path) -> None:
    data = prepared(table(200, names=("a", "b")), tmp_path, horizon=3, context=8, series="site", split={"by": "kfold"})
    made = data.development()
    assert made.folds is not None
    assert made.moments is not None
    assert data.spec.n_folds == 5
    n_trained = []
    for fold in range(5):
        held, rest = made.moments[made.held(fold)], made.moments[made.rest(fold)]
        assert len(held) > 0
        assert int(rest.max()) + 3 < int(held.min()) + 1, (
            "the last step that was learned is before the first to predict"
        )
        n_trained.append(len(rest))
    assert n_trained == sorted(n_trained)
    assert n_trained[0] > 2 * n_trained[-1] / 5
    assert int(made.folds.min()) == -1, "the first half is only trained on"
    assert made.moments.max() + 3 < 160, "the test's steps are nobody's target"


def test_scaling_under_folds_is_fitted_before_the_first_of_them(tmp_path: Path) -> None:
    frame, split = table(200), {"by": "kfold"}
    changed = frame.copy()
    changed.loc[90:, ["load", "wind"]] *= 1000  # the first fold begins at 80
    (tmp_path / "b").mkdir()
    one = preprocessor_of(prepared(frame, tmp_path, horizon=3, season=1, split=split))
    assert one == preprocessor_of(prepared(changed, tmp_path / "b", horizon=3, season=1, split=split))
