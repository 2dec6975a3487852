"""How often a slot has nothing to say, as a model trains: rows without a key, and keys without a row."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

import numpy as np

from penstock.errors import did_you_mean

LAYOUT = 1


class MissingRates:
    """Counts of each slot, over all rows and decayed by `half_life` (in rows), so that a feature that dries up shows.

    *missing*: the share of rows that carry no key of the slot: a column that was null. *unknown*: the share of its keys
    that have no row in the table yet (or any more): new, not yet admitted, or evicted.
    """

    def __init__(self, slots: Sequence[str], half_life: float = 100_000.0) -> None:
        if not half_life >= 1:
            raise ValueError(f"a half-life is at least 1 row, not {half_life}")
        self.slots = tuple(slots)
        self.half_life = float(half_life)
        self._numbers = {slot: number for number, slot in enumerate(self.slots)}
        #: Rows without a key, rows, keys without a row, keys: f64 [cumulative and decayed, slots, 4].
        self._counts = np.zeros((2, len(self.slots), 4))

    def update(
        self,
        rows: int,
        without_key: Mapping[str, int] | None = None,
        unknown: Mapping[str, tuple[int, int]] | None = None,
    ) -> None:
        """Take in a batch of `rows`: how many of them had no key of a slot, and of a slot's keys (how many had no row
        in the table, how many keys). A slot that a mapping leaves out is not counted. Raises `ValueError`, and takes in
        nothing, for a slot that is not there or a part larger than its whole."""
        batch = np.zeros((len(self.slots), 4))
        for slot, part in (without_key or {}).items():
            batch[self._number(slot), :2] = _part(slot, part, rows)
        for slot, (part, keys) in (unknown or {}).items():
            batch[self._number(slot), 2:] = _part(slot, part, keys)
        self._counts[1] *= 2.0 ** (-rows / self.half_life)
        self._counts += batch

    def values(self) -> dict[str, dict[str, float | None]]:
        """Of each slot: missing, unknown, decayed_missing, decayed_unknown; None where nothing was counted."""
        found: dict[str, dict[str, float | None]] = {}
        for slot, number in self._numbers.items():
            rates = found[slot] = {}
            for prefix, counts in zip(("", "decayed_"), self._counts[:, number], strict=True):
                for name, (part, whole) in (("missing", counts[:2]), ("unknown", counts[2:])):
                    rates[prefix + name] = float(part / whole) if whole > 0 else None
        return found

    def state(self) -> bytes:
        """All of it, for a checkpoint: restored, it goes on bit for bit."""
        head = {"layout": LAYOUT, "half_life": self.half_life, "slots": self.slots}
        return json.dumps(head, ensure_ascii=False).encode() + b"\n" + self._counts.astype("<f8").tobytes()

    @staticmethod
    def restore(state: bytes) -> MissingRates:
        """The rates whose `state` this is. Raises `ValueError` for anything else."""
        try:
            head, _, counts = state.partition(b"\n")
            settings = json.loads(head)
            if settings["layout"] != LAYOUT:
                raise ValueError(f"layout {settings['layout']}; this version reads {LAYOUT}")
            found = MissingRates(settings["slots"], settings["half_life"])
            found._counts[:] = np.frombuffer(counts, "<f8").reshape(found._counts.shape)
        except (ValueError, KeyError, TypeError) as why:
            raise ValueError(f"this is not the state of missing rates: {why}") from why
        return found

    def _number(self, slot: str) -> int:
        if slot not in self._numbers:
            hint = did_you_mean(slot, list(self.slots), f"the slots are {', '.join(self.slots)}")
            raise ValueError(f"there is no slot '{slot}'; {hint}")
        return self._numbers[slot]


def _part(slot: str, part: int, whole: int) -> tuple[int, int]:
    if not 0 <= part <= whole:
        raise ValueError(f"slot '{slot}': {part} of {whole} cannot be")
    return part, whole
