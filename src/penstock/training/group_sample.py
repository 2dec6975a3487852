"""The grouped AUC of a stream in bounded memory: all rows of a sample of the groups.

A group's hash alone decides (Cohen and Kaplan, "Summarizing data using bottom-k sketches", 2007): groups whose hash
lies below a bound are kept, and the bound is halved when room runs out. It only falls, so a group that is kept was kept
from its first row on, and its AUC is exact; over groups it is a mean over a uniform sample of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from penstock.training.metrics import gauc

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
#: Groups, row numbers, whether clicked, scores (f32), weights (f64): each [n].
Columns = tuple[npt.NDArray[Any], ...]

#: With no more groups than these, rows are thinned rather than groups dropped.
FEW = 64
#: Batches that wait before they are laid together.
PARTS = 64
#: Older rows, in half-lives, count for nothing.
OLDEST = 64
NAMES = ("group", "number", "label", "score", "weight")
EMPTY: Columns = tuple(np.zeros(0, kind) for kind in (np.int64, np.int64, np.bool_, np.float32, np.float64))


class GroupSample:
    """At most `room` rows of whole groups, 29 bytes each.

    Where a few groups fill all room (64 or less), rows are thinned by a hash of their number instead, all groups
    alike. A group with a large share of all rows makes any sample of groups a poor one: it is in it or it is not.
    """

    def __init__(self, room: int) -> None:
        if room < 2:
            raise ValueError(f"the rows kept for the grouped AUC are at least 2, not {room}")
        self.room = room
        self.rows = 0
        #: Groups, and rows, are kept if these many leading bits of their hash are 0.
        self.group_bits = self.row_bits = 0
        self._parts: list[Columns] = [EMPTY]
        self._kept = 0

    def add(self, groups: Ints, y: Floats, p: Floats, w: Floats | None) -> None:
        """Take in rows; all arrays are [n]."""
        numbers = np.arange(self.rows, self.rows + len(y))
        self.rows += len(y)
        kept = np.flatnonzero(self._keeps(groups, numbers))
        weights = np.ones(len(kept)) if w is None else w[kept]
        self._parts.append((groups[kept], numbers[kept], y[kept] == 1, p[kept].astype(np.float32), weights))
        self._kept += len(kept)
        if len(self._parts) > PARTS:
            self._gather()
        while self._kept > self.room:
            held = self._gather()
            if len(np.unique(held[0])) > FEW:
                self.group_bits += 1
            else:
                self.row_bits += 1
            kept = np.flatnonzero(self._keeps(held[0], held[1]))
            self._parts, self._kept = [tuple(column[kept] for column in held)], len(kept)

    def values(self, half_life: float) -> dict[str, float | None]:
        """gauc and decayed_gauc as `evaluate` defines it (weighted by rows or weights), gauc_groups."""
        groups, numbers, clicked, scores, weights = self._gather()
        y, p = clicked.astype(np.float64), scores.astype(np.float64)
        age = (self.rows - 1 - numbers) / half_life
        recent = age < OLDEST
        decayed = weights[recent] * np.exp2(-age[recent])
        _, codes = np.unique(groups, return_inverse=True)
        both = np.minimum(np.bincount(codes, y), np.bincount(codes, 1 - y))
        return {
            "gauc": gauc(y, p, groups, weights),
            "decayed_gauc": gauc(y[recent], p[recent], groups[recent], decayed),
            "gauc_groups": float((both > 0).sum()),
        }

    def settings(self) -> dict[str, int]:
        return {"room": self.room, "rows": self.rows, "group_bits": self.group_bits, "row_bits": self.row_bits}

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        return dict(zip(NAMES, self._gather(), strict=True))

    @staticmethod
    def restore(settings: Mapping[str, int], arrays: Mapping[str, npt.NDArray[Any]]) -> GroupSample:
        found = GroupSample(settings["room"])
        found.rows, found.group_bits, found.row_bits = (settings[name] for name in ("rows", "group_bits", "row_bits"))
        found._parts = [tuple(arrays[name] for name in NAMES)]
        found._kept = len(found._parts[0][0])
        return found

    def _keeps(self, groups: Ints, numbers: Ints) -> npt.NDArray[np.bool_]:
        kept = np.ones(len(groups), np.bool_)
        # A row's number is turned over, so that it is not the same draw as a group of that number.
        for bits, what in ((self.group_bits, groups), (self.row_bits, ~numbers)):
            if bits:
                kept &= _hash(what.view(np.uint64)) >> np.uint64(64 - bits) == 0
        return kept

    def _gather(self) -> Columns:
        """All rows kept, as one part."""
        if len(self._parts) > 1:
            self._parts = [tuple(np.concatenate(column) for column in zip(*self._parts, strict=True))]
        return self._parts[0]


def _hash(values: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """The finaliser of splitmix64 (Steele, Lea and Flood 2014) over value + its increment: a bijection."""
    mixed = values + np.uint64(0x9E3779B97F4A7C15)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31))
