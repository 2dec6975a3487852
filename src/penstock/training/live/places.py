"""Where a trainer is in its inputs: the next offset of each partition, and what became of every record before it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Self

import numpy as np
import numpy.typing as npt

#: What becomes of a record: it is learnt from; it only tells the time; it is put aside; the lag policy leaves it out.
SAMPLE, TICK, BAD, SKIPPED = range(4)
FATES = ("samples", "ticks", "quarantined", "skipped")


@dataclass(frozen=True)
class Marks:
    """Records in the order of events: partitions i32, offsets i64, times_ms i64 (never falling within a partition),
    fates u8; each [n]."""

    partitions: npt.NDArray[np.int32]
    offsets: npt.NDArray[np.int64]
    times_ms: npt.NDArray[np.int64]
    fates: npt.NDArray[np.uint8]

    def __len__(self) -> int:
        return len(self.offsets)

    def __getitem__(self, part: slice) -> Marks:
        return Marks(self.partitions[part], self.offsets[part], self.times_ms[part], self.fates[part])

    def take(self, order: npt.NDArray[np.intp]) -> Marks:
        return Marks(self.partitions[order], self.offsets[order], self.times_ms[order], self.fates[order])

    def through(self, samples: int) -> int:
        """How many of the records lie before sample number `samples`; all where there are no more samples."""
        at = np.flatnonzero(self.fates == SAMPLE)
        return int(at[samples]) if samples < len(at) else len(self)

    @staticmethod
    def joined(parts: list[Marks]) -> Marks:
        return Marks(
            np.concatenate([np.zeros(0, np.int32), *(p.partitions for p in parts)]),
            np.concatenate([np.zeros(0, np.int64), *(p.offsets for p in parts)]),
            np.concatenate([np.zeros(0, np.int64), *(p.times_ms for p in parts)]),
            np.concatenate([np.zeros(0, np.uint8), *(p.fates for p in parts)]),
        )


@dataclass
class Place:
    """Consumed positions of one input. `next`: offset to go on from, by partition; `times_ms`: the latest time there.

    `counts`: records by fate. Whatever is counted here has acted; nothing else has.
    """

    next: dict[int, int] = field(default_factory=dict)
    times_ms: dict[int, int] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=lambda: dict.fromkeys(FATES, 0))

    def advance(self, marks: Marks) -> None:
        """Take `marks` as consumed."""
        for partition in np.unique(marks.partitions):
            own = marks.partitions == partition
            self.next[int(partition)] = int(marks.offsets[own].max()) + 1
            self.times_ms[int(partition)] = int(marks.times_ms[own].max())
        for fate, count in enumerate(np.bincount(marks.fates, minlength=len(FATES))):
            self.counts[FATES[fate]] += int(count)

    @property
    def time_ms(self) -> int:
        """The latest time that was consumed; 0 before the first."""
        return max(self.times_ms.values(), default=0)

    def document(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def of(cls, stored: Mapping[str, Any]) -> Self:
        """From a document that went through JSON, where keys are texts."""
        next_, times_ms = ({int(key): n for key, n in stored[name].items()} for name in ("next", "times_ms"))
        return cls(next_, times_ms, dict(stored["counts"]))
