"""Metrics agree with scikit-learn, ties and weights included, and say None where nothing is defined."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn import metrics as sk

from penstock.training.metrics import auc, ece, gauc, metrics


def draw(seed: int, n: int = 3000) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    p = np.round(rng.random(n), 2)  # many ties
    y = (rng.random(n) < p * 0.7).astype(float)
    w = rng.choice([0.0, 0.5, 1.0, 3.0], n)
    return y, p, w


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("weighted", [False, True])
def test_they_agree_with_scikit_learn(seed: int, weighted: bool) -> None:
    y, p, w = draw(seed)
    weights = w if weighted else None
    found = metrics(y, p, weights)
    assert found["auc"] == pytest.approx(sk.roc_auc_score(y, p, sample_weight=weights), rel=1e-12)
    assert found["pr_auc"] == pytest.approx(sk.average_precision_score(y, p, sample_weight=weights), rel=1e-12)
    clipped = np.clip(p, 1e-15, 1 - 1e-15)
    assert found["logloss"] == pytest.approx(sk.log_loss(y, clipped, sample_weight=weights), rel=1e-12)
    assert found["accuracy"] == pytest.approx(sk.accuracy_score(y, p >= 0.5, sample_weight=weights), rel=1e-12)
    weighing = np.ones_like(y) if weights is None else weights
    assert found["calibration"] == pytest.approx((weighing @ p) / (weighing @ y), rel=1e-12)
    base = np.average(y, weights=weights)
    entropy = -base * np.log(base) - (1 - base) * np.log(1 - base)
    assert found["ne"] == pytest.approx(found["logloss"] / entropy, rel=1e-12)
    assert found["rows"] == len(y)


@pytest.mark.parametrize("weighted", [False, True])
def test_gauc_is_the_mean_of_the_groups_that_hold_both_classes(weighted: bool) -> None:
    y, p, w = draw(5)
    w = w + 0.1
    groups = np.random.default_rng(1).integers(0, 700, len(y))
    total = share = 0.0
    for group in np.unique(groups):
        at = groups == group
        if 0 < y[at].sum() < at.sum():
            weight = w[at].sum() if weighted else at.sum()
            total += weight * sk.roc_auc_score(y[at], p[at], sample_weight=w[at] if weighted else None)
            share += weight
    assert gauc(y, p, groups, w if weighted else None) == pytest.approx(total / share, rel=1e-12)


def test_calibration_error_by_hand() -> None:
    y, p = np.array([0.0, 1.0, 1.0, 1.0]), np.array([0.1, 0.15, 0.95, 1.0])
    # Bin 1: mean score .125 against .5; bin 9: .975 against 1.
    assert ece(y, p) == pytest.approx((2 * 0.375 + 2 * 0.025) / 4)


def test_one_class_and_no_rows_are_undefined_not_nan() -> None:
    ones = metrics(np.ones(4), np.array([0.2, 0.4, 0.6, 1.0]))
    assert (ones["auc"], ones["ne"], ones["rows"]) == (None, None, 4)
    zeros = metrics(np.zeros(3), np.array([0.0, 0.5, 0.5]))
    assert (zeros["auc"], zeros["pr_auc"], zeros["calibration"], zeros["ne"]) == (None, None, None, None)
    assert metrics(np.zeros(0), np.zeros(0))["auc"] is None
    assert gauc(np.zeros(0), np.zeros(0), np.zeros(0, np.int64)) is None
    assert gauc(np.ones(3), np.ones(3), np.array([1, 1, 2])) is None


def test_margins_have_an_auc_but_no_logloss() -> None:
    found = metrics(np.array([0.0, 1.0]), np.array([-3.0, 2.0]))
    assert (found["auc"], found["logloss"], found["ece"]) == (1.0, None, None)


def test_a_certain_mistake_costs_what_the_clip_says() -> None:
    assert metrics(np.array([1.0, 0.0]), np.array([0.0, 0.0]))["logloss"] == pytest.approx(-np.log(1e-15) / 2)


def test_all_scores_equal_is_one_half() -> None:
    assert auc(np.array([0.0, 1.0, 1.0]), np.full(3, 0.3)) == 0.5
