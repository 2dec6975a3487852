"""`Terms`: what a join means. Two joins with equal terms give equal samples from equal logs."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from typing import Literal

Emit = Literal["at_once", "at_close"]
Weighting = Literal["fake_negative", "none"]

#: Bits of a mask hold which types of feedback have come.
MOST_TYPES = 32


@dataclass(frozen=True)
class Kind:
    """A type of feedback: it counts within `window_ms` of its impression; a positive then weighs `weight`.

    weight None: what the feedback's `value` says.
    """

    name: str
    window_ms: int
    weight: float | None = 1.0


@dataclass(frozen=True)
class Terms:
    """kinds: types of feedback. model: impressions of other models are passed over; "" takes all.

    emit: a sample when the impression is seen and a correction with the feedback, or one when its windows are over.
    lateness_ms: how much later than its window feedback may come, and how long feedback waits for its impression.
    skew_ms: how far an event's own time may be ahead of its writer's clock, and feedback's before its impression's.
    jump_ms: a writer's clock that goes further at once is believed only when others agree (`clock.py`).
    negatives: the share of negatives that are kept, by hash of their ids; each weighs 1/share.
    weighting: at_once: fake-negative weights by the served score, or none.
    """

    kinds: tuple[Kind, ...]
    model: str = ""
    emit: Emit = "at_once"
    lateness_ms: int = 60_000
    skew_ms: int = 300_000
    jump_ms: int = 3_600_000
    negatives: float = 1.0
    weighting: Weighting = "fake_negative"

    @property
    def open_ms(self) -> int:
        """How long an impression is open for feedback."""
        return max(kind.window_ms for kind in self.kinds) + self.lateness_ms

    @property
    def fingerprint(self) -> str:
        """Of all of it: state that was made under other terms is not gone on with."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()
