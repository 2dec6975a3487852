"""How good the model is on samples that it has not learnt from yet: decayed AUC, calibration, drift."""

from __future__ import annotations

import json
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from penstock.training.deep.batches import Rows
from penstock.training.live.drift import Drift
from penstock.training.streaming_metrics import StreamingMetrics

Floats = npt.NDArray[np.float64]


class Quality:
    """Fed with each batch and the scores it had before it was learnt from.

    Rows of weight above 0 count for the AUC. Calibration is of signed weights: a sample that is taken back takes its
    share of the expected clicks with it.
    """

    def __init__(self, metrics: StreamingMetrics, drift: Drift) -> None:
        self.metrics, self.drift = metrics, drift
        #: Decayed sums: of weight x score, of weight x label.
        self._expected = self._found = 0.0

    def update(self, rows: Rows, scores: Floats, impressions: npt.NDArray[np.bool_]) -> None:
        assert rows.labels is not None
        labels = rows.labels.astype(np.float64)
        weights = np.ones(rows.count) if rows.weights is None else rows.weights.astype(np.float64)
        counted = weights > 0
        if counted.all():
            self.metrics.update(labels, scores, weights)
        else:
            self.metrics.update(labels[counted], scores[counted], weights[counted])
        age = np.exp2(-np.arange(rows.count, 0, -1) / self.metrics.half_life)
        faded = 0.5 ** (rows.count / self.metrics.half_life)
        self._expected = self._expected * faded + float((weights * scores) @ age)
        self._found = self._found * faded + float((weights * labels) @ age)
        self.drift.update(rows, scores, impressions)

    @property
    def calibration(self) -> float | None:
        """Expected clicks for one that came; None before the first."""
        return self._expected / self._found if self._found > 0 else None

    def values(self) -> dict[str, float | None]:
        """decayed_auc, calibration, their effective numbers of samples and positives, logloss."""
        found = self.metrics.values()
        named = ("auc", "decayed_auc", "decayed_logloss", "decayed_auc_samples", "decayed_auc_positives")
        return {**{name: found[name] for name in named}, "calibration": self.calibration}

    def sections(self) -> dict[str, bytes]:
        sums = json.dumps([self._expected.hex(), self._found.hex()]).encode()
        return {"metrics": self.metrics.state(), "drift": self.drift.state(), "calibration": sums}

    @staticmethod
    def restore(sections: Mapping[str, bytes]) -> Quality:
        found = Quality(StreamingMetrics.restore(sections["metrics"]), Drift.restore(sections["drift"]))
        found._expected, found._found = map(float.fromhex, json.loads(sections["calibration"]))
        return found
