"""What shuts the gate and opens it again, what proves a version, and what drift means."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from penstock.training.deep.batches import Rows
from penstock.training.live.drift import Drift, psi
from penstock.training.live.gates import EFFECTIVE, Gate
from penstock.training.live.learners import turned
from penstock.training.live.quality import Quality
from penstock.training.matrices import Keys, Matrix
from penstock.training.streaming_metrics import StreamingMetrics

GOOD: dict[str, float | None] = {"decayed_auc": 0.8, "calibration": 1.0, "decayed_auc_positives": 500.0}


def gate(**more: Any) -> Gate:
    bands = {"half_life": 100.0, "auc": 0.7, "calibration": (0.8, 1.25), "positives": 50.0, **more}
    return Gate(SimpleNamespace(**bands))


def test_a_gate_shuts_at_once_and_opens_after_half_a_half_life_within_the_bands() -> None:
    judged = gate()
    assert not judged.judge(GOOD, 10) and judged.open
    assert judged.judge({**GOOD, "decayed_auc": 0.6}, 20) and judged.why == "decayed AUC 0.6000 is below 0.7"
    assert not judged.judge({**GOOD, "calibration": 2.0}, 30), "it is shut already"
    assert not judged.judge(GOOD, 40) and not judged.judge(GOOD, 89) and not judged.open
    assert judged.judge(GOOD, 90) and judged.open
    assert judged.judge({**GOOD, "calibration": 2.0}, 95) and "calibration 2.000" in judged.why


def test_nothing_is_judged_on_a_handful_of_positives() -> None:
    judged = gate()
    assert not judged.judge({**GOOD, "decayed_auc": 0.2, "decayed_auc_positives": 49.0}, 10) and judged.open


def test_a_cut_is_good_after_one_effective_window_of_green_samples() -> None:
    judged = gate()
    window = int(np.ceil(EFFECTIVE * 100))
    judged.judge(GOOD, 50)
    judged.judge(GOOD, 50 + window - 1)
    assert not judged.proved(50)
    judged.judge(GOOD, 50 + window)
    assert judged.proved(50) and not judged.proved(51)
    judged.judge({**GOOD, "decayed_auc": 0.1}, 400)
    assert not judged.proved(50), "not while it is red"
    judged.judge(GOOD, 500)
    judged.judge(GOOD, 500 + window - 1)
    assert not judged.proved(50)
    judged.judge(GOOD, 500 + window)
    assert judged.proved(50) and judged.proved(450)


def test_what_nobody_could_judge_has_not_proved_good() -> None:
    judged, free = gate(), gate(auc=None, calibration=None)
    for samples in range(50, 2000, 50):
        for each in (judged, free):
            each.judge({**GOOD, "decayed_auc_positives": 49.0}, samples)
    assert judged.open and not judged.proved(100)
    assert free.open and free.proved(100), "without bands there is nothing to judge"


def test_a_gate_that_clicks_shut_by_staying_away_stays_shut_until_they_come() -> None:
    """After some 500 half-lives without a positive the decayed weights of the last are too small for a float."""
    judged, metrics = gate(auc=0.6), Quality(StreamingMetrics(half_life=100.0), Drift(((), ()), 10, 100.0))
    draws, samples, opened = np.random.default_rng(0), 0, []

    def live(batches: int, ctr: float) -> None:
        nonlocal samples
        for _ in range(batches):
            scores = draws.random(50)
            labels = (draws.random(50) < scores * ctr).astype(np.float32)
            rows = Rows(0, None, Matrix(50, np.zeros((50, 0), np.float32), ()), labels, np.ones(50, np.float32))  # type: ignore[arg-type]
            metrics.update(rows, scores, np.ones(50, bool))
            samples += 50
            if judged.judge(metrics.values(), samples):
                opened.append((samples, judged.open))

    live(100, 1.0)
    assert judged.open and not opened
    live(1400, 0.0)
    assert [now for _, now in opened] == [False] and not judged.proved(0)
    live(100, 1.0)
    assert judged.open and len(opened) == 2


@pytest.mark.parametrize("label", [0.0, 1.0])
def test_a_turned_weight_has_the_gradient_of_the_negative_one(label: float) -> None:
    scores = np.array([0.2, 0.5, 0.9])
    labels, weights = np.full(3, label, np.float32), np.array([-1.0, -2.0, 1.5], np.float32)
    other, positive = turned(labels, weights, scores)
    assert positive is not None and (positive > 0).all()
    np.testing.assert_allclose(positive * (scores - other), weights * (scores - labels), rtol=1e-6)


def batch(keys: np.ndarray, numbers: np.ndarray, labels: np.ndarray) -> Rows:
    offsets = np.arange(len(keys) + 1, dtype=np.int64)
    slot = Keys(offsets, keys.astype(np.uint64), None)
    matrix = Matrix(len(keys), numbers.astype(np.float32).reshape(-1, 1), (slot,))
    return Rows(0, None, matrix, labels.astype(np.float32), np.ones(len(keys), np.float32))  # type: ignore[arg-type]


def test_drift_names_what_has_changed_and_nothing_else() -> None:
    draws = np.random.default_rng(0)
    drift = Drift((("user",), ("age",)), 4000, 2000.0)
    for step in range(120):
        late = step >= 60
        keys = draws.integers(0, 500, 100)
        numbers = draws.normal(1.5 if late else 0, 1, 100)
        labels, scores = draws.random(100) < 0.3, draws.random(100)
        drift.update(batch(keys, numbers, labels), scores, np.ones(100, bool))
        if step == 59:
            assert max(drift.values().values()) < 0.05
            drift = Drift.restore(drift.state())
    found = drift.values()
    assert found["number:age"] > 0.25 and max(found[n] for n in ("slot:user", "label", "score")) < 0.05
    assert psi(np.array([1.0, 1.0]), np.array([1.0, 3.0])) == pytest.approx(0.25 * np.log(1.5) - 0.25 * np.log(0.5))


def test_calibration_is_of_signed_weights_and_survives_a_cut() -> None:
    quality = Quality(StreamingMetrics(half_life=1e9), Drift((("user",), ("age",)), 10, 1e9))
    rows = batch(np.arange(4), np.zeros(4), np.array([0, 0, 0, 1]))
    weights = np.array([1, 1, -1, 1], np.float32)
    rows = Rows(0, rows.encoder, rows.matrix, rows.labels, weights)
    quality.update(rows, np.array([0.2, 0.4, 0.4, 0.4]), np.ones(4, bool))
    assert quality.calibration == pytest.approx(0.6)  # .2 + .4 - .4 + .4 expected, 1 found
    again = Quality.restore(quality.sections())
    assert again.values() == quality.values()
