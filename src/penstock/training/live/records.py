"""A topic's records in the order of events: partitions are merged by time, and nobody waits for one that is silent.

The order is that of (latest time so far in the partition, partition, offset). A record goes out once no partition can
bring an earlier one: that is what ticks are for. So the order depends on the records alone, unless a partition is
silent for `idle_s`, after which the others go on without it (never with `idle_s` None).
"""

from __future__ import annotations

import json
import logging
import time
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np

from penstock.errors import RequestError
from penstock.streams import RecordsLost, Topic, TopicTrimmed, Unreachable
from penstock.training.live.places import BAD, SAMPLE, TICK, Marks, Place

#: Records of one read, and those of a partition that may wait for the others.
A_READ, AHEAD = 4_096, 100_000
#: What a tick's value holds; a time after all others.
TOLD, NEVER = b'"_tick_ms"', 1 << 62
#: Numbers from here on are times in ms, smaller ones offsets.
FIRST_TIME = 100_000_000_000
#: Before a topic that does not answer is asked again.
AGAIN_S = 1.0
_log = logging.getLogger("penstock.online")


@dataclass
class _Partition:
    marks: Marks
    next: int
    time_ms: int
    heard: float
    values: deque[bytes] = field(default_factory=deque)


class Records:
    """Reads a topic on from `place`. `parts` gives (marks, values) in order, empty ones where nothing came in time.

    What was trimmed before it was read, or is damaged, is passed over: `lost` has (partition, from, to) of each gap.
    """

    def __init__(self, topic: Topic, place: Place, *, wait_s: float, idle_s: float | None) -> None:
        self.topic, self.wait_s, self.idle_s = topic, wait_s, idle_s
        now = time.monotonic()
        self.lost: list[tuple[int, int, int]] = []
        self._held = {
            p: _Partition(Marks.joined([]), place.next[p], place.times_ms.get(p, 0), now)
            for p in range(topic.partitions)
        }

    def parts(self) -> Iterator[tuple[Marks, list[bytes]]]:
        """Endless. Raises what the topic raises, but waits for a broker that does not answer."""
        while True:
            try:
                heard = self._read()
            except Unreachable as error:
                _log.warning("%s; asking again", error.message)
                time.sleep(AGAIN_S)
                heard = False
            marks, values = self._ready()
            if len(marks) or not heard:
                yield marks, values

    def _read(self) -> bool:
        wanted = {p: held.next for p, held in self._held.items() if len(held.marks) < AHEAD}
        try:
            found = self.topic.poll(wanted, records=A_READ, wait_s=self.wait_s) if wanted else {}
        except (TopicTrimmed, RecordsLost):
            self._pass_over(wanted)
            return True
        for partition, batch in found.items():
            held, records = self._held[partition], batch.records
            held.next, held.heard = batch.next, time.monotonic()
            if not records:
                continue
            offsets = np.array([r.offset for r in records], np.int64)
            times = np.array([held.time_ms, *(r.time_ms for r in records)], np.int64)
            fates = np.full(len(records), SAMPLE, np.uint8)
            for at, record in enumerate(records):
                if not record.key and TOLD in record.value:
                    fates[at], times[at + 1] = _tick(record.value)
            times = np.maximum.accumulate(times)[1:]
            held.time_ms = int(times[-1])
            held.values.extend(r.value for r in records)
            own = Marks(np.full(len(records), partition, np.int32), offsets, times, fates)
            held.marks = Marks.joined([held.marks, own])
        return bool(found)

    def _pass_over(self, wanted: Mapping[int, int]) -> None:
        """Go on behind what cannot be read, in each partition where that is so."""
        for partition, offset in wanted.items():
            try:
                self.topic.read(partition, offset, records=1)
            except TopicTrimmed as error:
                self._lose(partition, error.start, "are no longer kept")
            except RecordsLost as error:
                self._lose(partition, error.next, "are damaged")

    def _lose(self, partition: int, upto: int, why: str) -> None:
        held = self._held[partition]
        _log.warning("offsets %d to %d of partition %d %s, and are passed over", held.next, upto - 1, partition, why)
        self.lost.append((partition, held.next, upto))
        held.next = upto

    def _ready(self) -> tuple[Marks, list[bytes]]:
        """What no partition can come before any more."""
        now = time.monotonic()
        awaited = [
            held.time_ms
            for held in self._held.values()
            if self.idle_s is None or len(held.marks) >= AHEAD or now - held.heard < self.idle_s
        ]
        bound = min(awaited, default=NEVER)
        parts: list[Marks] = []
        values: list[bytes] = []
        for held in self._held.values():
            alone = len(self._held) == 1
            count = len(held.marks) if alone else int(np.searchsorted(held.marks.times_ms, bound))
            parts.append(held.marks[:count])
            held.marks = held.marks[count:]
            values += [held.values.popleft() for _ in range(count)]
        marks = Marks.joined(parts)
        if len(self._held) == 1 or not len(marks):
            return marks, values
        order = np.lexsort((marks.offsets, marks.partitions, marks.times_ms))
        return marks.take(order), [values[at] for at in order]


def _tick(value: bytes) -> tuple[int, int]:
    """Fate and time of what looks like a tick."""
    try:
        return TICK, int(json.loads(value)["_tick_ms"])
    except (ValueError, KeyError, TypeError):
        return BAD, 0


def first_place(topic: Topic, begin: str | int) -> Place:
    """Where a trainer without a checkpoint begins: "start", "end", an offset, or the first record at a time (ms).

    Raises `RequestError` (LIVE003) for an offset where there are several partitions.
    """
    place = Place()
    offset = begin if isinstance(begin, int) and begin < FIRST_TIME else None
    if offset is not None and topic.partitions > 1:
        said = f"{topic.name} has {topic.partitions} partitions: offset {offset} is a place in none of them all"
        raise RequestError(said, "begin at a time, or at start or end", "LIVE003")
    for partition in range(topic.partitions):
        if begin == "start":
            place.next[partition] = topic.start(partition)
        elif begin == "end":
            place.next[partition] = topic.end(partition)
        elif offset is not None:
            place.next[partition] = offset
        else:
            place.next[partition] = topic.seek(partition, int(begin))
    return place
