"""What is learnt goes out as it is learnt: changed rows every `every_ms`, dense weights every `dense_every_ms`.

Nothing goes out while the gate is shut: the tables remember what has changed, and the next delta has all of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from penstock import native
from penstock.registry.generations import Lease
from penstock.training.live.learners import Learner
from penstock.training.live.settings import Publish


class Published(Protocol):
    """What a publisher says of one delta. `last`: the offset of its commit record."""

    @property
    def sequence(self) -> int: ...
    @property
    def last(self) -> int: ...
    @property
    def rows(self) -> int: ...
    @property
    def gone(self) -> int: ...
    @property
    def bytes(self) -> int: ...


class Publisher(Protocol):
    """Writes deltas of one generation: `penstock.registry.chain.Publisher` is one."""

    def publish(
        self,
        tables: native.Tables,
        *,
        dense: Mapping[str, npt.NDArray[np.float32]] | None,
        positions: Mapping[str, Mapping[int, int]],
        event_time_ms: int,
    ) -> Published: ...


@dataclass(frozen=True)
class Head:
    """Where the trainer is when a delta is made: samples learnt from, positions by input, the newest event's time."""

    samples: int
    positions: Mapping[str, Mapping[int, int]]
    event_time_ms: int


@dataclass
class Publishing:
    """The timer, and what went out. `sequence`: of the newest delta, 0 before the first; `offset`: of its commit."""

    settings: Publish
    publisher: Publisher
    lease: Lease
    learner: Learner
    sequence: int = 0
    offset: int = -1
    rows: int = 0
    bytes: int = 0
    _next: float = 0.0
    _next_dense: float = 0.0
    _samples: int = -1
    _dense_samples: int = field(default=-1)

    def due(self, now: float) -> bool:
        """Whether it is time; `now`: monotonic seconds."""
        return now >= self._next

    def later(self, now: float) -> None:
        """Look again after one interval."""
        self._next = now + self.settings.every_ms / 1000

    def publish(self, now: float, head: Head, *, whole: bool = False) -> bool:
        """Send what has changed; whether there was anything. `whole`: dense weights too, whatever their turn.

        Raises `Superseded` (LIVE011) before anything is written where a later generation has begun.
        """
        self.later(now)
        dense_due = (whole or now >= self._next_dense) and head.samples != self._dense_samples
        if head.samples == self._samples and not dense_due:
            return False
        tables = self.learner.tables
        assert tables is not None
        dense = self.learner.dense() if dense_due else None
        self.lease.check()
        done = self.publisher.publish(tables, dense=dense, positions=head.positions, event_time_ms=head.event_time_ms)
        self.sequence, self.offset = done.sequence, done.last
        self.rows += done.rows + done.gone
        self.bytes += done.bytes
        self._samples = head.samples
        if dense_due:
            self._next_dense, self._dense_samples = now + self.settings.dense_every_ms / 1000, head.samples
        return True

    def counters(self) -> dict[str, float | None]:
        return {"published_rows_total": self.rows, "published_bytes_total": self.bytes, "sequence": self.sequence}

    def summary(self) -> dict[str, Any]:
        return {"sequence": self.sequence, "rows": self.rows, "bytes": self.bytes}
