"""Whether what comes in is still what the model knows: the population stability index of each feature, label and score.

PSI = sum over bins of (now - then) ln(now / then), of shares; below .1 nothing happened, above .25 much did (Siddiqi,
Credit Risk Scorecards, 2006). "Then" are the first `reference` samples of the stream; "now" is decayed as the metrics
are. Numbers have ten bins with as many reference rows in each, scores and labels fixed ones, keys 32 by their hash
and one for rows without any.
"""

from __future__ import annotations

import io
import json
import math
from typing import Any

import numpy as np
import numpy.typing as npt

from penstock.training.deep.batches import Rows

Floats = npt.NDArray[np.float64]
BINS, KEY_BINS = 10, 32
#: Fibonacci hashing: neighbouring keys fall into other bins.
_SPREAD = np.uint64(0x9E3779B97F4A7C15)
#: An empty bin counts as this share, so that a new value has a finite index.
LEAST = 1e-4


class Drift:
    """Fed with batches in order. Bounded memory: until the bins of numbers are known, the first rows' numbers."""

    def __init__(self, names: tuple[tuple[str, ...], tuple[str, ...]], reference: int, half_life: float) -> None:
        """`names`: of the slots, of the numbers."""
        self.slots, self.numbers = names
        self.reference, self.half_life = reference, half_life
        self.rows = 0
        self._first: list[npt.NDArray[np.float32]] = []
        self._edges: npt.NDArray[np.float64] | None = None
        kinds = [("label", 2), ("score", BINS)] + [(f"slot:{name}", KEY_BINS + 1) for name in self.slots]
        self._sizes = dict(kinds + [(f"number:{name}", BINS) for name in self.numbers])
        self._then = {name: np.zeros(size) for name, size in self._sizes.items()}
        self._now = {name: np.zeros(size) for name, size in self._sizes.items()}

    def update(self, rows: Rows, scores: Floats, impressions: npt.NDArray[np.bool_]) -> None:
        """Rows with their scores: labels and scores of all, features of impressions. A batch that passes the
        reference's end belongs to it."""
        if not rows.count:
            return
        assert rows.labels is not None
        reference = self.rows < self.reference
        self.rows += rows.count
        found: dict[str, Any] = {
            "label": np.bincount(rows.labels.astype(np.int64), minlength=2),
            "score": np.bincount(np.minimum((scores * BINS).astype(np.int64), BINS - 1), minlength=BINS),
        }
        for name, keys in zip(self.slots, rows.matrix.slots, strict=True):
            lengths = np.diff(keys.offsets)
            own = keys.keys if impressions.all() else keys.keys[np.repeat(impressions, lengths)]
            bins = ((own * _SPREAD) >> np.uint64(59)).astype(np.int64)
            empty = np.count_nonzero((lengths == 0) & impressions)
            found[f"slot:{name}"] = np.append(np.bincount(bins, minlength=KEY_BINS), empty)
        numbers = rows.numbers if impressions.all() else rows.numbers[impressions]
        if self._edges is not None:
            found |= self._numbers_in(numbers, self._edges)
        elif self.numbers:
            self._first.append(numbers)
        faded = 1.0 if reference else 0.5 ** (rows.count / self.half_life)
        held = self._then if reference else self._now
        for name, counts in found.items():
            held[name] = held[name] * faded + counts
        if reference and self.rows >= self.reference and self.numbers:
            self._bound()

    def values(self) -> dict[str, float]:
        """PSI by name (label, score, slot:NAME, number:NAME); empty until there is something to compare."""
        return {name: psi(self._then[name], now) for name, now in self._now.items() if now.sum() > 0}

    # --- kept in cuts ---

    def state(self) -> bytes:
        out = io.BytesIO()
        facts: dict[str, Any] = {"rows": self.rows, "reference": self.reference, "half_life": self.half_life}
        facts |= {"slots": self.slots, "numbers": self.numbers}
        arrays: dict[str, Any] = {"facts": np.frombuffer(json.dumps(facts).encode(), np.uint8)}
        arrays |= {f"then {name}": counts for name, counts in self._then.items()}
        arrays |= {f"now {name}": counts for name, counts in self._now.items()}
        if self._edges is not None:
            arrays["edges"] = self._edges
        elif self._first:
            arrays["first"] = np.concatenate(self._first)
        np.savez(out, **arrays)
        return out.getvalue()

    @staticmethod
    def restore(state: bytes) -> Drift:
        with np.load(io.BytesIO(state), allow_pickle=False) as held:
            facts = json.loads(held["facts"].tobytes())
            names = tuple(facts["slots"]), tuple(facts["numbers"])
            found = Drift(names, facts["reference"], facts["half_life"])
            found.rows = facts["rows"]
            for name in found._sizes:
                found._then[name], found._now[name] = held[f"then {name}"], held[f"now {name}"]
            found._edges = held.get("edges")
            found._first = [held["first"]] if "first" in held else []
        return found

    # --- numbers ---

    def _bound(self) -> None:
        """The reference is whole: bins of each number with as many of its rows in each."""
        first, self._first = np.concatenate(self._first), []
        if len(first):
            self._edges = np.quantile(first.astype(np.float64), np.arange(1, BINS) / BINS, axis=0).T
            self._then |= self._numbers_in(first, self._edges)

    def _numbers_in(self, numbers: npt.NDArray[np.float32], edges: Floats) -> dict[str, Any]:
        places = (
            (name, np.searchsorted(edges[at], numbers[:, at], side="right")) for at, name in enumerate(self.numbers)
        )
        return {f"number:{name}": np.bincount(bins, minlength=BINS) for name, bins in places}


def psi(then: Floats, now: Floats) -> float:
    """The index of two counts over the same bins; 0 where either is empty."""
    if not then.sum() or not now.sum():
        return 0.0
    a, b = (np.maximum(each / each.sum(), LEAST) for each in (then, now))
    return math.fsum((b - a) * np.log(b / a))
