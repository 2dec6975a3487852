"""The sample topic: samples appended once each, whatever was killed between the append and the commit.

After a restart the records behind the committed position are read; samples that come again and are among them are not
appended a second time. Their identity is (id, kind, revision), and the time for ids that came back after they closed.
Until all of them have come again, the position that is committed stays before the first that has not: whoever is killed
meanwhile finds them as we did.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

from penstock.streams import Topic, TopicTrimmed

from .joiner import KINDS, Sample

_APPEND_RECORDS, _APPEND_BYTES = 200_000, 32 << 20
_Identity = tuple[bytes, int, int, int]


class Outputs:
    """skipped: samples that were there already."""

    def __init__(self, topic: Topic, positions: dict[int, int]) -> None:
        self.topic = topic
        self.skipped = self.appended = 0
        #: Behind what has been appended, a partition each.
        self._positions = positions
        #: What is behind the committed positions and has not come again: with offsets, as it lies in each partition.
        self._there: set[_Identity] = set()
        self._tails: dict[int, deque[tuple[int, _Identity]]] = {number: deque() for number in positions}
        self._ticked_ms = 0

    def look(self, told: Callable[[str], None]) -> None:
        """Read what a killed process appended behind the committed positions."""
        for partition in range(self.topic.partitions):
            at, end = self._positions[partition], self.topic.end(partition)
            while at < end:
                try:
                    batch = self.topic.read(partition, at)
                except TopicTrimmed as error:
                    told(f"{self.topic.name}, partition {partition}: samples were trimmed before a restart saw them")
                    at = error.start
                    continue
                found = ((record.offset, _identity(record.value)) for record in batch.records)
                self._tails[partition].extend((offset, identity) for offset, identity in found if identity)
                if batch.next == at:
                    break
                at = batch.next
            self._positions[partition] = max(at, self._positions[partition])
            self._there.update(identity for _, identity in self._tails[partition])

    def positions(self, frontier_ms: int) -> dict[int, int]:
        """To be committed with the state that has emitted everything before the frontier: restarts look from there."""
        for tail in self._tails.values():
            while tail and (tail[0][1] not in self._there or tail[0][1][3] < frontier_ms):
                # What is before the frontier and has not come again will not: it was made of records that are gone.
                self._there.discard(tail.popleft()[1])
        first = {partition: tail[0][0] for partition, tail in self._tails.items() if tail}
        return {**self._positions, **first}

    @property
    def unmatched(self) -> int:
        """Samples behind the committed positions that have not come again."""
        return len(self._there)

    def append(self, samples: list[Sample]) -> None:
        """Append what is not there yet, in order."""
        if self._there:
            left = []
            for sample in samples:
                identity = (sample.id, sample.kind, sample.revision, sample.emit_ms)
                if identity in self._there:
                    self._there.discard(identity)
                    self.skipped += 1
                else:
                    left.append(sample)
            samples = left
        at = 0
        while at < len(samples):
            stop, size = at, 0
            while stop < len(samples) and stop - at < _APPEND_RECORDS and (size == 0 or size < _APPEND_BYTES):
                size += len(samples[stop].value)
                stop += 1
            part = samples[at:stop]
            self._append([one.value for one in part], [one.id for one in part], [one.emit_ms for one in part])
            at = stop
        self.appended += len(samples)

    def tick(self, frontier_ms: int) -> None:
        """Tell every partition that nothing is emitted before the frontier any more."""
        if frontier_ms <= self._ticked_ms:
            return
        value = json.dumps({"_tick_ms": frontier_ms}).encode()
        for partition in range(self.topic.partitions):
            done = self.topic.append([value], times_ms=[frontier_ms], partition=partition, ack="written")
            self._positions.update(done)
        self._ticked_ms = frontier_ms

    def _append(self, values: list[bytes], keys: list[bytes], times_ms: list[int]) -> None:
        self._positions.update(self.topic.append(values, keys=keys, times_ms=times_ms, ack="written"))


def _identity(value: bytes) -> _Identity | None:
    """None for ticks, and what others wrote."""
    try:
        found: Mapping[str, Any] = json.loads(value)
        return found["_id"].encode(), KINDS.index(found["_kind"]), found["_revision"], found["_emit_ms"]
    except (ValueError, KeyError, TypeError, AttributeError):
        return None
