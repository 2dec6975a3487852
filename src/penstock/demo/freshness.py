"""How long it takes from a click to an answer that knows of it.

Measured from the click's own time, as the client stamped it, to the first reply whose place in the chain (generation,
sequence) covers the click: its delta was learnt from the sample topic beyond the offset of the click's sample.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from threading import Lock

from penstock.streams import Record

Position = tuple[int, int]


def corrections(found: Iterable[tuple[int, Record]]) -> list[tuple[str, int, int]]:
    """Of records of a topic of samples, by partition: what feedback became. Id, partition, offset."""
    return [
        (record.key.decode(), partition, record.offset)
        for partition, record in found
        if record.key and b'"_kind":"correction"' in record.value
    ]


class Freshness:
    """Told of clicks, samples, deltas and replies by two threads; times are milliseconds of one clock.

    A delta is told after every sample that it covers.
    """

    def __init__(self) -> None:
        self._lock = Lock()
        self._clicks: dict[str, float] = {}
        self._samples: dict[int, deque[tuple[int, float]]] = {}
        self._deltas: deque[tuple[Position, Mapping[int, int]]] = deque()
        self._replies: deque[tuple[Position, float]] = deque()
        self._found: list[tuple[float, float]] = []

    def clicked(self, id_: str, at_ms: float) -> None:
        with self._lock:
            self._clicks[id_] = at_ms

    def sampled(self, id_: str, partition: int, offset: int) -> None:
        """The click became the record at an offset of the sample topic."""
        with self._lock:
            at_ms = self._clicks.pop(id_, None)
            if at_ms is not None:
                self._samples.setdefault(partition, deque()).append((offset, at_ms))

    def published(self, position: Position, learnt: Mapping[int, int]) -> None:
        """A delta holds what was learnt from the samples before these offsets, by partition."""
        with self._lock:
            self._deltas.append((position, learnt))
            self._resolve()

    def replied(self, position: Position, at_ms: float) -> None:
        """A reply came that was scored at a place in the chain."""
        with self._lock:
            if not self._replies or position > self._replies[-1][0]:
                self._replies.append((position, at_ms))
                self._resolve()

    @property
    def waiting(self) -> int:
        """Clicks that no reply has covered."""
        with self._lock:
            return len(self._clicks) + sum(map(len, self._samples.values()))

    def take(self) -> list[tuple[float, float]]:
        """(the click's time in ms, seconds until it was covered), of those since it was last asked."""
        with self._lock:
            found, self._found = self._found, []
        return found

    def _resolve(self) -> None:
        while self._deltas:
            position, learnt = self._deltas[0]
            while self._replies and self._replies[0][0] < position:
                self._replies.popleft()
            if not self._replies:
                return
            at_ms = self._replies[0][1]
            for partition, samples in self._samples.items():
                while samples and samples[0][0] < learnt.get(partition, 0):
                    clicked_ms = samples.popleft()[1]
                    self._found.append((clicked_ms, (at_ms - clicked_ms) / 1000))
            self._deltas.popleft()
