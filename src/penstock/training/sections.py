"""Sections of the run's report: curves of `evaluate`, importances of trees. `operators.report` draws them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from penstock.training.metrics import Curve, calibration_bins

Floats = npt.NDArray[np.float64]
POINTS = 300
BARS = 25


def curves(y: Floats, p: Floats, w: Floats | None) -> Iterator[Mapping[str, Any]]:
    """ROC, precision-recall and calibration, as far as they are defined."""
    curve = Curve(y, p, w)
    positives, negatives = curve.true[-1], curve.false[-1]
    if positives <= 0 or negatives <= 0:
        return
    at = _some(len(curve.true))
    recall, fallout = curve.true[at] / positives, curve.false[at] / negatives
    yield _line("ROC curve", "share of 0s above the threshold", "share of 1s above it", {
        f"AUC {curve.auc():.4f}": (fallout, recall), "by chance": ([0, 1], [0, 1]),
    })  # fmt: skip
    at = at[at > 0]
    taken = curve.true[at] + curve.false[at]
    precision = np.divide(curve.true[at], taken, out=np.ones_like(taken), where=taken > 0)
    base = positives / (positives + negatives)
    yield _line("Precision and recall", "recall", "precision", {
        f"average precision {curve.average_precision():.4f}": (curve.true[at] / positives, precision),
        "by chance": ([0, 1], [base, base]),
    })  # fmt: skip
    if p.min() >= 0 and p.max() <= 1:
        bins = calibration_bins(y, p, w)
        yield _line("Calibration", "mean score", "share of 1s", {
            "scores in ten bins": (bins["predicted"], bins["observed"]), "exact": ([0, 1], [0, 1]),
        })  # fmt: skip


def importances(gains: Mapping[str, float]) -> Mapping[str, Any] | None:
    """A bar a column by its share of the trees' gain; None where nothing was split on."""
    total = sum(gains.values())
    if not total:
        return None
    shown = list(gains.items())[:BARS]
    text = f"the {BARS} greatest of {len(gains)}" if len(gains) > BARS else ""
    return {
        "kind": "bar",
        "title": "What the trees look at (share of gain)",
        "labels": [name for name, _ in shown],
        "values": [gain / total for _, gain in shown],
        "text": text,
    }


def losses(title: str, series: Mapping[str, list[float]]) -> Mapping[str, Any]:
    """A loss by iteration."""
    return _line(title, "iteration", "loss", {name: (range(1, len(v) + 1), v) for name, v in series.items()})


def _some(count: int) -> npt.NDArray[np.int64]:
    """At most POINTS places, ends included."""
    return np.unique(np.linspace(0, count - 1, min(count, POINTS)).round().astype(np.int64))


def _line(title: str, x: str, y: str, series: Mapping[str, Any]) -> Mapping[str, Any]:
    drawn = [
        {"name": name, "x": [float(v) for v in xs], "y": [float(v) for v in ys]} for name, (xs, ys) in series.items()
    ]
    return {"kind": "line", "title": title, "x_label": x, "y_label": y, "series": drawn}
