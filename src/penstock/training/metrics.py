"""What `evaluate` computes. Undefined is None, never NaN. Formulas and sources: docs/models.md.

Shapes: `y` (n,) float64 of 0 and 1, `p` (n,) float64 scores, `w` (n,) float64 weights. Sorting dominates: O(n log n).
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

CLIP = 1e-15
BINS = 10


def metrics(y: Floats, p: Floats, w: Floats | None = None) -> dict[str, float | int | None]:
    """Every metric of the contract but `gauc`. Those of probabilities are None where a score is outside [0, 1]."""
    curve = Curve(y, p, w)
    found: dict[str, float | int | None] = {"auc": curve.auc(), "pr_auc": curve.average_precision()}
    if len(p) and p.min() >= 0 and p.max() <= 1:
        found |= probability_metrics(y, p, w)
    else:
        found |= dict.fromkeys(("logloss", "ne", "calibration", "ece", "accuracy"))
    return {**found, "rows": len(y)}


class Curve:
    """Scores in descending order with weights gathered at each distinct score: ties are one point of every curve."""

    def __init__(self, y: Floats, p: Floats, w: Floats | None = None) -> None:
        order = np.argsort(p, kind="stable")[::-1]
        ranked = p[order]
        ends = np.append(np.flatnonzero(ranked[1:] != ranked[:-1]), len(p) - 1) if len(p) else np.zeros(0, int)
        self.thresholds = ranked[ends]
        if w is None:
            true = np.cumsum(y[order])[ends]
            false = (ends + 1) - true
        else:
            true = np.cumsum((y * w)[order])[ends]
            false = np.cumsum(((1 - y) * w)[order])[ends]
        self.true = np.concatenate([[0.0], true])
        self.false = np.concatenate([[0.0], false])

    def auc(self) -> float | None:
        """Area under the ROC curve by trapezoids: a tie counts one half."""
        positives, negatives = self.true[-1], self.false[-1]
        if positives <= 0 or negatives <= 0:
            return None
        heights = (self.true[1:] + self.true[:-1]) / 2
        return float(np.dot(np.diff(self.false), heights) / (positives * negatives))

    def average_precision(self) -> float | None:
        """Sum of precision x step in recall, no interpolation."""
        if not len(self.thresholds) or self.true[-1] <= 0:
            return None
        taken = self.true[1:] + self.false[1:]
        precision = np.divide(self.true[1:], taken, out=np.zeros_like(taken), where=taken > 0)
        return float(np.dot(np.diff(self.true), precision) / self.true[-1])


def auc(y: Floats, p: Floats, w: Floats | None = None) -> float | None:
    """The exact AUC, ties one half; None where a class is missing."""
    return Curve(y, p, w).auc()


def probability_metrics(y: Floats, p: Floats, w: Floats | None) -> dict[str, float | int | None]:
    total = float(len(y)) if w is None else float(w.sum())
    if total <= 0:
        return dict.fromkeys(("logloss", "ne", "calibration", "ece", "accuracy"))

    def mean(values: Floats) -> float:
        return float(values.sum() if w is None else np.dot(values, w)) / total

    loss = logloss(y, p, w)
    base = mean(y)
    entropy = -sum(q * math.log(q) for q in (base, 1 - base) if q > 0)
    return {
        "logloss": loss,
        "ne": loss / entropy if entropy > 0 else None,
        "calibration": mean(p) / base if base > 0 else None,
        "ece": ece(y, p, w),
        "accuracy": mean(((p >= 0.5) == (y == 1)).astype(np.float64)),
    }


def logloss(y: Floats, p: Floats, w: Floats | None = None) -> float:
    """Mean of -log of the probability given to what happened, scores clipped to [1e-15, 1 - 1e-15]."""
    clipped = np.clip(p, CLIP, 1 - CLIP)
    right = np.where(y == 1, clipped, 1 - clipped)
    np.log(right, out=right)
    return -float(np.average(right, weights=w))


def ece(y: Floats, p: Floats, w: Floats | None = None) -> float:
    """Expected calibration error over ten bins of equal width, the last one closed."""
    table = calibration_bins(y, p, w)
    weights = table["weight"]
    gaps = np.abs(table["predicted"] - table["observed"])
    return float(np.dot(weights, gaps) / weights.sum())


def calibration_bins(y: Floats, p: Floats, w: Floats | None = None) -> Mapping[str, Floats]:
    """Weight, mean score and mean label of each bin that holds rows."""
    bins = np.minimum((p * BINS).astype(np.int64), BINS - 1)
    weight = np.bincount(bins, w, BINS).astype(np.float64)
    predicted = np.bincount(bins, p if w is None else p * w, BINS)
    observed = np.bincount(bins, y if w is None else y * w, BINS)
    held = weight > 0
    return {
        "weight": weight[held],
        "predicted": predicted[held] / weight[held],
        "observed": observed[held] / weight[held],
    }


def gauc(y: Floats, p: Floats, groups: npt.NDArray[np.int64], w: Floats | None = None) -> float | None:
    """Mean of the groups' AUCs, weighted by their rows (or weights), over groups that hold both classes.

    groups: (n,) integer codes. One sort of all rows: no loop over groups.
    """
    if not len(y):
        return None
    weights = np.ones_like(y) if w is None else w
    order = np.lexsort((p, groups))
    y, p, weights, groups = y[order], p[order], weights[order], groups[order]
    new_group = np.append(True, groups[1:] != groups[:-1])
    group = np.cumsum(new_group) - 1
    new_tie = new_group | np.append(True, p[1:] != p[:-1])
    tie = np.cumsum(new_tie) - 1
    positive, negative = y * weights, (1 - y) * weights
    # Per tie of equal scores: a positive wins against the negatives below it in its group and half of its tie's.
    tie_positive, tie_negative = np.bincount(tie, positive), np.bincount(tie, negative)
    tie_group = group[new_tie]
    below = np.cumsum(tie_negative) - tie_negative
    first_tie = np.append(True, tie_group[1:] != tie_group[:-1])
    below -= below[first_tie][tie_group]
    wins = np.bincount(tie_group, tie_positive * (below + tie_negative / 2))
    group_positive, group_negative = np.bincount(group, positive), np.bincount(group, negative)
    both = (group_positive > 0) & (group_negative > 0)
    if not both.any():
        return None
    share = np.bincount(group, weights)[both]
    aucs = wins[both] / (group_positive[both] * group_negative[both])
    return float(np.dot(aucs, share) / share.sum())
