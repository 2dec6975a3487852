"""Metrics of a model while it trains, fed batch by batch in bounded memory, cumulative and decayed.

A cumulative AUC of a long run hardly moves when a model breaks: its history outvotes it. The decayed one weighs a
sample that is `half_life` samples old by one half, and says on how many samples it so rests. Both are read off two
histograms of scores, one a class; `GroupSample` does the grouped AUC.
"""

from __future__ import annotations

import io
import json
import math
import zipfile
from typing import Any

import numpy as np
import numpy.typing as npt

from penstock.training.group_sample import GroupSample
from penstock.training.metrics import CLIP

Floats = npt.NDArray[np.float64]
Indices = npt.NDArray[np.intp]

LAYOUT = 1
#: Each half of the scores has this many octaves: buckets resolve scores from 2^-17 to 1 - 2^-17.
OCTAVES = 16
#: Rows that are taken in one go, so that their decay is one array made once.
BLOCK = 8_192
#: The decayed sums grow by 2 every half-life; after so many they are divided by 2^RISE, which is exact.
RISE = 64


class StreamingMetrics:
    """Fed with labels and probabilities in training order: progressive validation if scores come before the update.

    half_life: in samples. buckets: of the score, a power of two from 64 to 2^20. With `groups`, `update` takes each
    row's group and up to `group_rows` rows are kept for the grouped AUC.

    Buckets divide p and 1 - p into octaves and these evenly, by the bits of the float: 4,096 are .4 to .8 % of p (or
    of 1 - p) wide all the way to 2^-17, so that click rates of .01 resolve as well as .5, no logarithm is taken, and
    every machine agrees. A bucket's scores count as tied: the AUC is off by at most `auc_error`, half the share of
    (positive, negative) pairs that share a bucket, and typically by a hundredth of that.
    """

    def __init__(
        self,
        *,
        half_life: float = 100_000.0,
        buckets: int = 4096,
        groups: bool = False,
        group_rows: int = 131_072,
    ) -> None:
        if not (half_life >= 1 and math.isfinite(half_life)):
            raise ValueError(f"a half-life is at least 1 sample, not {half_life}")
        if buckets < 64 or buckets > 1 << 20 or buckets & (buckets - 1):
            raise ValueError(f"buckets are a power of two from 64 to 1048576, not {buckets}")
        self.half_life = float(half_life)
        self.buckets = buckets
        self.rows = 0
        self._since_scaled = 0.0
        self._total, self._decayed = _Tally(buckets), _Tally(buckets)
        self._groups = GroupSample(group_rows) if groups else None
        self._block = min(BLOCK, int(RISE * half_life))
        self._ramp = np.exp2(np.arange(self._block) / self.half_life)

    def update(self, labels: npt.ArrayLike, scores: npt.ArrayLike, weights: Any = None, groups: Any = None) -> None:
        """Take in rows: labels [n] of 0 and 1, scores [n] in 0..1, weights [n] >= 0 or None, groups int64 [n] or None.

        Raises `ValueError`, and takes in nothing, for lengths that differ, a label, score or weight out of its range
        or NaN, or groups given where they were not asked for (or the other way round).
        """
        y, p = np.asarray(labels, dtype=np.float64), np.asarray(scores, dtype=np.float64)
        w = None if weights is None else np.asarray(weights, dtype=np.float64)
        codes = None if groups is None else np.asarray(groups)
        self._check(y, p, w, codes)
        for start in range(0, len(y), self._block):
            part = slice(start, start + self._block)
            self._add(y[part], p[part], None if w is None else w[part])
        if self._groups is not None and codes is not None:
            self._groups.add(codes, y, p, w)

    def values(self) -> dict[str, float | None]:
        """Everything by name; what is undefined so far is None.

        rows; auc, logloss, ne (logloss / entropy of the base rate), calibration (sum wp / sum wy), auc_error (see
        above), each also as decayed_...; decayed_auc_samples: Kish's effective sample size (sum w)^2 / sum w^2 (Survey
        Sampling, 1965), at most 2.9 half-lives, and decayed_auc_positives: that of the positives, which limits an AUC
        where clicks are rare. With groups: gauc, decayed_gauc, and gauc_groups: how many of the groups kept hold both
        classes.
        """
        found: dict[str, float | None] = {"rows": float(self.rows), **self._total.values("")}
        found |= self._decayed.values("decayed_")
        found["decayed_auc_samples"] = self._decayed.effective(slice(None))
        found["decayed_auc_positives"] = self._decayed.effective(slice(1, 2))
        if self._groups is not None:
            found |= self._groups.values(self.half_life)
        return found

    def state(self) -> bytes:
        """All of it, for a checkpoint: restored, it goes on bit for bit."""
        settings: dict[str, Any] = {"layout": LAYOUT, "half_life": self.half_life, "buckets": self.buckets}
        settings |= {"rows": self.rows, "groups": self._groups.settings() if self._groups is not None else None}
        arrays: dict[str, Any] = {"settings": np.frombuffer(json.dumps(settings).encode(), np.uint8)}
        arrays |= {"total": self._total.array, "decayed": self._decayed.array, "since": np.array(self._since_scaled)}
        if self._groups is not None:
            arrays |= self._groups.arrays()
        out = io.BytesIO()
        np.savez(out, **arrays)
        return out.getvalue()

    @staticmethod
    def restore(state: bytes) -> StreamingMetrics:
        """The metrics whose `state` this is. Raises `ValueError` for anything else."""
        try:
            with np.load(io.BytesIO(state), allow_pickle=False) as held:
                settings = json.loads(held["settings"].tobytes())
                if settings["layout"] != LAYOUT:
                    raise ValueError(f"layout {settings['layout']}; this version reads {LAYOUT}")
                found = StreamingMetrics(half_life=settings["half_life"], buckets=settings["buckets"])
                found.rows, found._since_scaled = settings["rows"], float(held["since"])
                found._total.array[:], found._decayed.array[:] = held["total"], held["decayed"]
                if settings["groups"] is not None:
                    found._groups = GroupSample.restore(settings["groups"], held)
        except (ValueError, KeyError, TypeError, EOFError, OSError, zipfile.BadZipFile) as why:
            raise ValueError(f"this is not the state of streaming metrics: {why}") from why
        return found

    def _add(self, y: Floats, p: Floats, w: Floats | None) -> None:
        cells = self._cells(y, p)
        # The probability given to what happened: p or 1 - p.
        log = np.abs((1 - y) - np.minimum(np.maximum(p, CLIP), 1 - CLIP))
        np.log(log, out=log)
        self._total.add(cells, y, p, log, w)
        if self._since_scaled >= RISE * self.half_life:
            self._decayed.shrink(RISE)
            self._since_scaled -= RISE * self.half_life
        rising = self._ramp[: len(y)] * 2 ** (self._since_scaled / self.half_life)
        self._decayed.add(cells, y, p, log, rising if w is None else rising * w)
        self._since_scaled += len(y)
        self.rows += len(y)

    def _cells(self, y: Floats, p: Floats) -> Indices:
        """Each row's cell of the histogram: the bucket, which never falls as scores rise, in the row of its label."""
        single = p.astype(np.float32)
        half = self.buckets // 2
        # An octave's share of a half, as bits of the mantissa; 126 is the exponent of [.5, 1).
        fine = (half // OCTAVES).bit_length() - 1
        bucket = np.minimum(single, 1 - single).view(np.int32) >> (23 - fine)
        bucket -= (126 - OCTAVES) << fine
        np.maximum(bucket, 0, out=bucket)
        np.minimum(bucket, half - 1, out=bucket)
        # Above .5 the buckets lie mirrored: all bits turned over.
        bucket ^= (single > 0.5) * np.int32(self.buckets - 1)
        bucket += y.astype(np.int32) * np.int32(self.buckets)
        return bucket.astype(np.intp)

    def _check(self, y: Floats, p: Floats, w: Floats | None, codes: Any) -> None:
        for name, given in (("scores", p), ("weights", w), ("groups", codes)):
            if given is not None and given.shape != y.shape:
                raise ValueError(f"{name} have shape {list(given.shape)}, labels {list(y.shape)}")
        if y.ndim != 1:
            raise ValueError(f"labels are [n], not of shape {list(y.shape)}")
        if (codes is None) != (self._groups is None):
            raise ValueError("groups go with StreamingMetrics(groups=True), and with every update")
        if codes is not None and codes.dtype != np.int64:
            raise ValueError(f"groups are int64, not {codes.dtype}")
        if not (y * y == y).all():
            raise ValueError(_first("label", y, y * y != y, "is neither 0 nor 1"))
        if len(p) and not (p.min() >= 0 and p.max() <= 1):
            raise ValueError(_first("score", p, ~((p >= 0) & (p <= 1)), "is not in 0..1"))
        if w is not None and len(w) and not (w.min() >= 0 and w.max() < math.inf):
            raise ValueError(_first("weight", w, ~((w >= 0) & (w < math.inf)), "is not a number from 0 up"))


class _Tally:
    """Weighted sums over rows: a histogram of scores a class, and four sums. One array, so that it is scaled as one."""

    def __init__(self, buckets: int) -> None:
        self.array = np.zeros(2 * buckets + 4)
        #: Weight in each bucket, f64 [2, buckets]: of negatives, of positives.
        self.histogram = self.array[:-4].reshape(2, buckets)
        #: Squared weights of negatives, of positives; weighted scores; weighted log of what happened.
        self.sums = self.array[-4:]

    def add(self, cells: Indices, y: Floats, p: Floats, log: Floats, w: Floats | None) -> None:
        self.array[:-4] += np.bincount(cells, w, len(self.array) - 4)
        if w is None:
            positives = float(y.sum())
            self.sums += np.array([len(y) - positives, positives, p.sum(), log.sum()])
        else:
            positive = w * y
            squares = positive @ positive
            self.sums += np.array([max(w @ w - squares, 0.0), squares, p @ w, log @ w])

    def shrink(self, powers: int) -> None:
        """Divide all weights by 2^powers."""
        self.array *= 2.0**-powers
        self.sums[:2] *= 2.0**-powers

    def effective(self, classes: slice) -> float:
        squares = float(self.sums[:2][classes].sum())
        return float(self.histogram[classes].sum()) ** 2 / squares if squares > 0 else 0.0

    def values(self, prefix: str) -> dict[str, float | None]:
        negative, positive = self.histogram
        negatives, positives = float(negative.sum()), float(positive.sum())
        total = negatives + positives
        found: dict[str, float | None] = dict.fromkeys(("auc", "auc_error", "logloss", "ne", "calibration"))
        if negatives > 0 and positives > 0:
            below = np.cumsum(negative) - negative
            pairs = positives * negatives
            found["auc"] = float((positive * (below + negative / 2)).sum()) / pairs
            found["auc_error"] = float((positive * negative).sum()) / 2 / pairs
        if total > 0:
            base = positives / total
            entropy = -sum(share * math.log(share) for share in (base, 1 - base) if share > 0)
            loss = -float(self.sums[3]) / total
            found["logloss"], found["ne"] = loss, loss / entropy if entropy > 0 else None
            found["calibration"] = float(self.sums[2]) / positives if positives > 0 else None
        return {prefix + name: value for name, value in found.items()}


def _first(what: str, given: Floats, wrong: npt.NDArray[np.bool_], why: str) -> str:
    row = int(wrong.argmax())
    return f"{what} {given[row]} of row {row} {why}"
