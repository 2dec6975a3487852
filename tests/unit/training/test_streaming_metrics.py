"""Metrics while a model trains: equal to what `evaluate` computes, resumed bit for bit, and quick to see a failure."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.training.metrics import auc, gauc, metrics
from penstock.training.streaming_metrics import StreamingMetrics


def clicks(seed: int, n: int, base: float = -4.0, spread: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Labels and their true probabilities; a base of -4 is a click rate around .03."""
    rng = np.random.default_rng(seed)
    scores = (1 / (1 + np.exp(-rng.normal(base, spread, n)))).astype(np.float32)
    return (rng.random(n) < scores).astype(np.float32), scores


def feed(found: StreamingMetrics, *columns: np.ndarray | None, batch: int = 1000) -> StreamingMetrics:
    for start in range(0, len(columns[0]), batch):
        found.update(*(None if column is None else column[start : start + batch] for column in columns))
    return found


rows = st.lists(
    st.tuples(
        st.sampled_from([0.0, 1.0]),
        st.one_of(st.floats(0, 1, width=32), st.sampled_from([0.0, 1.0, 0.5, 2**-17, 0.01, 0.010001, 0.999999])),
        st.sampled_from([0.0, 0.5, 1.0, 3.0]),
    ),
    min_size=1,
    max_size=120,
)


@settings(max_examples=300, deadline=None)
@given(rows, st.integers(1, 40), st.booleans(), st.sampled_from([64, 4096]))
def test_they_are_what_evaluate_computes(
    drawn: list[tuple[float, float, float]], batch: int, weighted: bool, buckets: int
) -> None:
    y, p, w = (np.array(column) for column in zip(*drawn, strict=True))
    found = feed(StreamingMetrics(buckets=buckets), y, p, w if weighted else None, batch=batch).values()
    exact = metrics(y, p, w if weighted else None)
    assert found["rows"] == len(y)
    for name in ("logloss", "ne", "calibration"):
        assert found[name] == (None if exact[name] is None else pytest.approx(exact[name], rel=1e-9)), name
    if exact["auc"] is None:
        assert found["auc"] is None
    else:
        assert abs(found["auc"] - exact["auc"]) <= found["auc_error"] + 1e-12


@settings(max_examples=100, deadline=None)
@given(rows, st.integers(1, 40), st.floats(1, 50))
def test_the_decayed_ones_weigh_a_sample_by_its_age(
    drawn: list[tuple[float, float, float]], batch: int, half_life: float
) -> None:
    y, p, w = (np.array(column) for column in zip(*drawn, strict=True))
    found = feed(StreamingMetrics(half_life=half_life), y, p, w, batch=batch).values()
    aged = w * 2.0 ** (-np.arange(len(y))[::-1] / half_life)
    exact = metrics(y, p, aged)
    for name in ("logloss", "ne", "calibration"):
        value = found[f"decayed_{name}"]
        assert value == (None if exact[name] is None else pytest.approx(exact[name], rel=1e-6)), name
    if exact["auc"] is not None:
        assert abs(found["decayed_auc"] - exact["auc"]) <= found["decayed_auc_error"] + 1e-9
    for mask, name in ((np.ones(len(y), bool), "samples"), (y == 1, "positives")):
        squares = (aged[mask] ** 2).sum()
        kish = aged[mask].sum() ** 2 / squares if squares > 0 else 0.0
        assert found[f"decayed_auc_{name}"] == pytest.approx(kish, rel=1e-6)


@pytest.mark.parametrize(("base", "spread"), [(-4.6, 1.0), (-7.0, 1.5), (0.0, 0.1), (2.0, 2.0), (-3.0, 0.02)])
def test_buckets_resolve_click_rates_as_well_as_even_odds(base: float, spread: float) -> None:
    y, p = clicks(1, 300_000, base, spread)
    found = feed(StreamingMetrics(), y, p, batch=4096).values()
    exact = auc(y.astype(float), p.astype(float))
    assert exact is not None and found["auc"] is not None
    assert abs(found["auc"] - exact) <= 0.0005
    assert abs(found["auc"] - exact) <= found["auc_error"]


def test_a_long_run_neither_overflows_nor_forgets_its_scale() -> None:
    """Forty half-lives a batch, so the decayed sums are rescaled many times; a batch longer than a block, too."""
    y, p = clicks(2, 40_000, base=-1.0)
    whole = StreamingMetrics(half_life=25)
    whole.update(y, p)
    parts = feed(StreamingMetrics(half_life=25), y, p, batch=997)
    aged = 2.0 ** (-np.arange(len(y))[::-1] / 25.0)
    exact = auc(y.astype(float), p.astype(float), aged)
    for found in (whole.values(), parts.values()):
        assert all(value is None or math.isfinite(value) for value in found.values())
        assert found["decayed_auc"] == pytest.approx(exact, abs=found["decayed_auc_error"])
        assert found["decayed_auc_samples"] == pytest.approx(2 * 25 / math.log(2), rel=1e-3)


def test_the_decayed_auc_sees_a_failure_ten_times_sooner() -> None:
    """After 300,000 good rows the features are shuffled: scores no longer belong to their rows."""
    good, half_life, batch = 300_000, 15_000, 500
    y, p = clicks(3, 1_000_000, base=-3.0)
    p = np.concatenate([p[:good], np.random.default_rng(4).permutation(p[good:])])
    found = StreamingMetrics(half_life=half_life)
    seen: dict[str, int] = {}
    bound = None
    for start in range(0, len(y), batch):
        if start == good:
            values = found.values()
            bound = (values["auc"] + 0.5) / 2
            assert abs(values["auc"] - values["decayed_auc"]) < 0.02, "healthy so far, by both"
        found.update(y[start : start + batch], p[start : start + batch])
        values = found.values()
        for name in ("auc", "decayed_auc"):
            if bound is not None and name not in seen and values[name] < bound:
                seen[name] = start + batch - good
    assert seen["decayed_auc"] <= 2 * half_life
    assert seen["auc"] >= 10 * seen["decayed_auc"], seen


@pytest.mark.parametrize("weighted", [False, True])
def test_a_restored_one_goes_on_bit_for_bit(weighted: bool) -> None:
    rng = np.random.default_rng(5)
    y, p = clicks(5, 30_000)
    w = rng.random(30_000) if weighted else None
    groups = rng.integers(-(2**62), 2**62, 3_000)[rng.integers(0, 3_000, 30_000)]
    columns = (y, p, w, groups)
    cut = [None if column is None else column[:17_000] for column in columns]
    rest = [None if column is None else column[17_000:] for column in columns]
    found = feed(StreamingMetrics(half_life=200, groups=True, group_rows=5_000), *cut)
    again = StreamingMetrics.restore(found.state())
    assert again.values() == found.values()
    for metric in (found, again):
        feed(metric, *rest)
    assert again.values() == found.values()
    assert again.state() == found.state()


def test_other_bytes_are_not_taken_for_a_state() -> None:
    state = StreamingMetrics().state()
    for wrong in (b"", b"hello", state[:-30], state[: len(state) // 2]):
        with pytest.raises(ValueError, match=r"not the state of streaming metrics"):
            StreamingMetrics.restore(wrong)


def test_with_room_for_all_rows_the_grouped_auc_is_exact() -> None:
    rng = np.random.default_rng(6)
    y, p = clicks(6, 20_000, base=-1.0)
    groups, w = rng.integers(0, 800, 20_000), rng.random(20_000)
    for weights in (None, w):
        found = feed(StreamingMetrics(groups=True, half_life=3_000), y, p, weights, groups).values()
        exact = gauc(y.astype(float), p.astype(float), groups, weights)
        assert found["gauc"] == pytest.approx(exact, rel=1e-9)
        aged = (1.0 if weights is None else weights) * 2.0 ** (-np.arange(20_000)[::-1] / 3_000)
        assert found["decayed_gauc"] == pytest.approx(gauc(y.astype(float), p.astype(float), groups, aged), rel=1e-6)
        assert found["gauc_groups"] > 700


def test_without_room_whole_groups_are_kept_from_their_first_row() -> None:
    rng = np.random.default_rng(7)
    taste = rng.normal(
        0, 1.5, 20_000
    )  # what a user clicks on average: the AUC over all rows sees it, the grouped one not
    groups = rng.integers(0, 20_000, 400_000)
    ranked = rng.normal(0, 1, 400_000)
    p = 1 / (1 + np.exp(-(ranked + taste[groups] - 1)))
    y = (rng.random(400_000) < p).astype(float)
    found = StreamingMetrics(groups=True, group_rows=40_000)
    feed(found, y, p, None, groups, batch=4096)
    sample = found._groups
    assert sample is not None
    kept, numbers, *_ = sample.arrays().values()
    assert 10_000 < len(kept) <= 40_000
    np.testing.assert_array_equal(numbers, np.flatnonzero(np.isin(groups, kept)), "all rows of the groups kept")
    values, exact = found.values(), gauc(y, p, groups)
    assert values["auc"] > exact + 0.05, "the two metrics differ, so that it matters which one is estimated"
    assert values["gauc"] == pytest.approx(exact, abs=0.01)


def test_few_groups_with_many_rows_are_thinned_alike() -> None:
    rng = np.random.default_rng(8)
    y, p = clicks(8, 200_000, base=-1.0)
    groups = rng.integers(0, 3, 200_000)
    found = feed(StreamingMetrics(groups=True, group_rows=20_000), y, p, None, groups, batch=4096)
    values = found.values()
    assert values["gauc_groups"] == 3
    assert values["gauc"] == pytest.approx(gauc(y.astype(float), p.astype(float), groups), abs=0.02)


def test_nothing_is_defined_before_both_classes_are_there() -> None:
    found = StreamingMetrics(groups=True)
    empty = found.values()
    assert {name for name, value in empty.items() if value is not None} == {
        "rows",
        "decayed_auc_samples",
        "decayed_auc_positives",
        "gauc_groups",
    }
    found.update([], [], None, np.zeros(0, np.int64))
    assert found.values() == empty
    found.update([0, 0], [0.25, 0.5], None, np.array([1, 1]))
    assert found.values()["auc"] is None and found.values()["ne"] is None
    assert found.values()["logloss"] == pytest.approx(-(math.log(0.75) + math.log(0.5)) / 2)


@pytest.mark.parametrize(
    ("given", "why"),
    [
        (([0, 2], [0.1, 0.2]), r"label 2\.0 of row 1 is neither 0 nor 1"),
        (([0, math.nan], [0.1, 0.2]), r"label nan of row 1"),
        (([0, 1], [0.1, 1.5]), r"score 1\.5 of row 1 is not in 0\.\.1"),
        (([0, 1], [math.nan, 0.5]), r"score nan of row 0"),
        (([0, 1], [0.1, 0.5], [1, -1]), r"weight -1\.0 of row 1"),
        (([0, 1], [0.1, 0.5], [math.inf, 1]), r"weight inf of row 0"),
        (([0, 1], [0.1]), r"scores have shape \[1\], labels \[2\]"),
        (([0, 1], [0.1, 0.5], None, np.array([1, 2])), r"groups go with StreamingMetrics\(groups=True\)"),
    ],
)
def test_rows_that_mean_nothing_are_refused_and_change_nothing(given: tuple[object, ...], why: str) -> None:
    found = StreamingMetrics()
    before = found.state()
    with pytest.raises(ValueError, match=why):
        found.update(*given)
    assert found.state() == before


def test_settings_that_mean_nothing_are_refused() -> None:
    for wrong in ({"half_life": 0.5}, {"half_life": math.nan}, {"buckets": 1000}, {"groups": True, "group_rows": 1}):
        with pytest.raises(ValueError):
            StreamingMetrics(**wrong)
