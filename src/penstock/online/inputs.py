"""Input topics, partition by partition: records become events in the order in which they happen there.

Nothing here looks at the machine's clock: where a partition stands is decided by what it holds (`clock.py`).
"""

from __future__ import annotations

import base64
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from operator import itemgetter
from typing import Any, NamedTuple

from penstock.streams import Record, RecordsLost, Topic, TopicTrimmed

from .clock import Clock, Held, stepped, ticked
from .events import Event, Passed, Poison, feedback, impression, tick_ms
from .terms import Terms

#: A partition that is so far ahead of the others is not read on.
MOST_WAITING, MOST_WAITING_BYTES = 40_000, 64 << 20
_READ, _READ_BYTES = 10_000, 16 << 20
#: Before the first record.
_UNKNOWN = Clock()
_FUTURE = "it is from the future: its stamp is far ahead of its partition's clock, and of what came after it"


class Refused(NamedTuple):
    """A record that is no event."""

    source: str
    partition: int
    record: Record
    reason: str


class _Waiting(NamedTuple):
    """What was read and does not happen yet. next: the offset behind it; clock: as of there."""

    happens_ms: int
    next: int
    clock: Clock
    event: Event | None
    refused: tuple[Refused, ...]
    counts_as: str


@dataclass
class Partition:
    """One partition of an input. position, clock: behind what has been taken, which is what a restart begins with."""

    source: str
    topic: Topic
    number: int
    position: int
    clock: Clock = _UNKNOWN
    read_to: int = 0
    read_clock: Clock = _UNKNOWN
    waiting: list[_Waiting] = field(default_factory=list)
    waiting_bytes: int = 0

    def __post_init__(self) -> None:
        self.read_to, self.read_clock = self.position, self.clock


class Taken(NamedTuple):
    """What happens before the frontier, sorted; what was refused, and counts of what was read and passed over."""

    events: list[Event]
    refused: list[Refused]
    counts: Counter[str]


class Inputs:
    """Both input topics. told: hears of records that are lost, a line each."""

    def __init__(self, partitions: list[Partition], terms: Terms, told: Callable[[str], None]) -> None:
        self.partitions, self.terms, self.told = partitions, terms, told
        self.lost: Counter[str] = Counter()
        self._numbers = {kind.name: number for number, kind in enumerate(terms.kinds)}

    def read(self) -> int:
        """Read what is there, of each partition that is not too far ahead. How many records came."""
        came = 0
        for partition in self.partitions:
            if len(partition.waiting) < MOST_WAITING and partition.waiting_bytes < MOST_WAITING_BYTES:
                came += self._read(partition)
        return came

    @property
    def frontier_ms(self) -> int:
        """Whatever is read later happens then or after; -1 while some partition has said nothing."""
        return min(partition.read_clock.now_ms for partition in self.partitions)

    def slowest(self) -> Partition:
        """The partition that the others wait for."""
        return min(self.partitions, key=lambda partition: partition.read_clock.now_ms)

    def take(self, frontier_ms: int) -> Taken:
        """What happens before the frontier and was not yet taken."""
        events: list[Event] = []
        refused: list[Refused] = []
        counts: Counter[str] = Counter()
        for partition in self.partitions:
            waiting = partition.waiting
            count = bisect_left(waiting, frontier_ms, key=itemgetter(0))
            if not count:
                continue
            taken, partition.waiting = waiting[:count], waiting[count:]
            partition.waiting_bytes = partition.waiting_bytes * (len(waiting) - count) // len(waiting)
            partition.position, partition.clock = taken[-1].next, taken[-1].clock
            counts[f"{partition.source}_records"] += count
            for one in taken:
                if one.event is not None:
                    events.append(one.event)
                elif one.counts_as:
                    counts[one.counts_as] += 1
                if one.refused:
                    refused += one.refused
        events.sort()
        counts["poison"] += len(refused)
        return Taken(events, refused, counts)

    def _read(self, partition: Partition) -> int:
        at = partition.read_to
        try:
            batch = partition.topic.read(partition.number, at, records=_READ, size_bytes=_READ_BYTES)
        except TopicTrimmed as error:
            return self._skip(partition, error.start, "were trimmed before they were read")
        except RecordsLost as error:
            return self._skip(partition, error.next, "are damaged")
        clock, jump_ms, waiting = partition.read_clock, self.terms.jump_ms, partition.waiting
        for record in batch.records:
            tick = tick_ms(record)
            step = stepped(clock, record, jump_ms) if tick is None else ticked(clock, tick, jump_ms)
            clock, behind = step.clock, record.offset + 1
            refused = tuple(Refused(partition.source, partition.number, one, _FUTURE) for one in step.refused)
            for happens_ms, one in step.decided:
                event, said = self._event(partition, one, happens_ms)
                poison = said if isinstance(said, Refused) else None
                count = said if isinstance(said, str) else ""
                more = (poison,) if poison is not None else ()
                waiting.append(_Waiting(happens_ms, behind, clock, event, more, count))
            if refused or not step.decided:
                waiting.append(_Waiting(clock.now_ms, behind, clock, None, refused, "ticks" if tick else ""))
            partition.waiting_bytes += len(record.value)
        partition.read_to, partition.read_clock = batch.next, clock
        return len(batch.records)

    def _event(self, partition: Partition, record: Record, happens_ms: int) -> tuple[Event | None, str | Refused]:
        """The event; or None, and what it counts as, or why it is none."""
        try:
            if partition.source == "impressions":
                shown = impression(record, happens_ms, partition.number, self.terms)
                return shown, ""
            return feedback(record, happens_ms, partition.number, self.terms, self._numbers), ""
        except Passed as passed:
            return None, f"passed_{passed}"
        except Poison as poison:
            return None, Refused(partition.source, partition.number, record, str(poison))

    def _skip(self, partition: Partition, to: int, what: str) -> int:
        lost = to - partition.read_to
        where = f"{partition.topic.name}, partition {partition.number}"
        self.told(f"{where}: {lost} records from offset {partition.read_to} on {what}; going on from {to}")
        self.lost[partition.source] += lost
        partition.read_to = to
        return 0


def opened(
    source: str, topic: Topic, saved: Mapping[str, Any] | None, start: Callable[[Topic, int], int]
) -> list[Partition]:
    """A topic's partitions where they were left; new ones where `start` says."""
    found = []
    for number in range(topic.partitions):
        place = (saved or {}).get(str(number))
        if place is None:
            found.append(Partition(source, topic, number, start(topic, number)))
        else:
            held = tuple(Held(_record(one["record"]), one["passed"]) for one in place["held"])
            found.append(Partition(source, topic, number, place["offset"], Clock(place["clock_ms"], held)))
    return found


def saved(partitions: list[Partition]) -> dict[str, dict[str, Any]]:
    """What `opened` goes on from."""
    found: dict[str, dict[str, Any]] = {}
    for partition in partitions:
        held = [{"record": _plain(one.record), "passed": one.passed} for one in partition.clock.held]
        place = {"offset": partition.position, "clock_ms": partition.clock.now_ms, "held": held}
        found.setdefault(partition.source, {})[str(partition.number)] = place
    return found


def _plain(record: Record) -> list[Any]:
    key = None if record.key is None else base64.b64encode(record.key).decode()
    return [record.offset, record.time_ms, key, base64.b64encode(record.value).decode()]


def _record(plain: list[Any]) -> Record:
    offset, time_ms, key, value = plain
    return Record(offset, time_ms, None if key is None else base64.b64decode(key), base64.b64decode(value))
