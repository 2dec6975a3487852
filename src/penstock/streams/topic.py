"""`Topic`: what every backend offers, and what they share: keys, times, sizes, waiting for readers that are behind."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Literal, NamedTuple, Self

from penstock import native

from .faults import BacklogFull, StreamError, no_partition, too_large
from .settings import Settings

#: What an append has seen done when it returns: nothing; what survives killed processes; what survives the power too.
Ack = Literal["none", "written", "synced"]

MOST_KEY_BYTES = 64 << 10
MOST_VALUE_BYTES = 16 << 20
#: Keys and values of one append.
MOST_APPEND_BYTES = 60 << 20
#: Times are milliseconds since the epoch, from 1.
MOST_TIME_MS = 1 << 50
#: Between looks at readers that are behind; how long what was seen of them is believed.
_LOOK_S, _BELIEVED_S = 0.05, 1.0


class Record(NamedTuple):
    """One record as it was read."""

    offset: int
    time_ms: int
    key: bytes | None
    value: bytes


class Batch(NamedTuple):
    """Records in order, and the offset to go on from: offsets may have gaps."""

    records: list[Record]
    next: int


class Topic(ABC):
    """Partitions of records, each in the order of its offsets. Threads may share one; processes open their own.

    name: for messages, without secrets. partitions: how many. durability: what acknowledged records survive, said.
    """

    def __init__(self, name: str, partitions: int, settings: Settings) -> None:
        self.name, self.partitions, self.settings = name, partitions, settings
        self._room, self._looked = 0, 0.0

    @property
    @abstractmethod
    def durability(self) -> str: ...

    # --- writing -----------------------------------------------------------------------------------------------

    def append(
        self,
        values: Sequence[bytes],
        *,
        keys: Sequence[bytes | None] | None = None,
        times_ms: Sequence[int] | None = None,
        partition: int | None = None,
        ack: Ack | None = None,
    ) -> dict[int, int]:
        """Append records; those that share a partition follow one another there in the order given.

        values: bytes each, at most 16 MiB. keys: as many, at most 64 KiB each; records of a key go to one partition,
        the same in every backend (`partition_of`); those without one stay together, in another partition each call.
        times_ms: as many, milliseconds since the epoch, now by default. partition: all go there, whatever their keys.
        ack: the address's by default. At most 60 MiB at once.

        Returns the offset after the records of each partition that got any ({} where `ack="none"` waits for nothing).
        Raises `BacklogFull`, `Unreachable`, `Fenced` and other `StreamError`: none of the records is acknowledged then,
        though some first of them may be there.
        """
        times = [int(time.time() * 1000)] * len(values) if times_ms is None else times_ms
        self._check(values, keys, times, partition)
        if not values:
            return {}
        self._wait_for_readers(len(values))
        return self._append(values, keys, times, partition, ack or self.settings.ack)

    def partition_of(self, key: bytes) -> int:
        """The partition of a key: XXH3-64 of it modulo their number."""
        return native.key_partition(key, self.partitions)

    @abstractmethod
    def sync(self) -> None:
        """Return once all that this handle has appended is acknowledged, on the log's disk too."""

    @abstractmethod
    def trim(self, partition: int, before: int) -> None:
        """Let go of records before an offset. Some of them may stay for a while."""

    # --- reading -----------------------------------------------------------------------------------------------

    def read(
        self,
        partition: int,
        offset: int,
        *,
        records: int = 10_000,
        size_bytes: int = 16 << 20,
        wait_s: float = 0.0,
    ) -> Batch:
        """Records from an offset on: at most so many, of so many bytes, but one at least if it is there in time.

        Raises `TopicTrimmed`, `BeyondEnd`, `RecordsLost` (each says where to go on), `Unreachable`.
        """
        self._known(partition)
        if offset < 0:
            raise StreamError(f"{self.name}: offset {offset} is none", "offsets begin with 0", "STRM021")
        return self._read(partition, offset, max(1, records), max(1, size_bytes), max(0.0, wait_s))

    def poll(
        self,
        positions: Mapping[int, int],
        *,
        records: int = 10_000,
        size_bytes: int = 16 << 20,
        wait_s: float = 0.0,
    ) -> dict[int, Batch]:
        """`read` for several partitions: the batches of those that have records, as soon as one has."""
        deadline, pause_s = time.monotonic() + wait_s, 0.001
        while True:
            found = {}
            for partition, offset in positions.items():
                batch = self.read(partition, offset, records=records, size_bytes=size_bytes)
                if batch.records or batch.next != offset:
                    found[partition] = batch
            left = deadline - time.monotonic()
            if found or left <= 0:
                return found
            time.sleep(min(pause_s, left))
            pause_s = min(pause_s * 2, 0.005)

    @abstractmethod
    def start(self, partition: int) -> int:
        """The offset of the oldest record that is kept."""

    @abstractmethod
    def end(self, partition: int) -> int:
        """The offset after the newest record that readers may see."""

    @abstractmethod
    def seek(self, partition: int, time_ms: int) -> int:
        """The offset of the first record that is kept whose time is `time_ms` or later; the end if there is none."""

    # --- positions of groups -----------------------------------------------------------------------------------

    @abstractmethod
    def commit(self, group: str, positions: Mapping[int, int]) -> None:
        """Remember how far a group has come: partition -> the offset it reads next. Lasting, and so is all before."""

    @abstractmethod
    def committed(self, group: str) -> dict[int, int]:
        """What `commit` remembered; partitions that the group never committed are left out."""

    def lag(self, group: str) -> int:
        """Records from where the group is to the ends of all partitions."""
        done = self.committed(group)
        behind = 0
        for partition in range(self.partitions):
            start = self.start(partition)
            behind += max(0, self.end(partition) - max(start, done.get(partition, start)))
        return behind

    @abstractmethod
    def close(self) -> None:
        """Sync, and let go of files and connections. Nothing happens where it is closed."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # --- what a backend does -----------------------------------------------------------------------------------

    @abstractmethod
    def _append(
        self,
        values: Sequence[bytes],
        keys: Sequence[bytes | None] | None,
        times_ms: Sequence[int],
        partition: int | None,
        ack: Ack,
    ) -> dict[int, int]: ...

    @abstractmethod
    def _read(self, partition: int, offset: int, records: int, size_bytes: int, wait_s: float) -> Batch: ...

    # --- what they share ---------------------------------------------------------------------------------------

    def _known(self, partition: int) -> None:
        if not 0 <= partition < self.partitions:
            raise no_partition(self.name, partition, self.partitions)

    def _check(
        self,
        values: Sequence[bytes],
        keys: Sequence[bytes | None] | None,
        times_ms: Sequence[int],
        partition: int | None,
    ) -> None:
        if partition is not None:
            self._known(partition)
        if len(times_ms) != len(values) or (keys is not None and len(keys) != len(values)):
            raise ValueError("keys and times_ms must be as many as values")
        sizes = list(map(len, values))
        given = [len(key) for key in keys or () if key is not None]
        total = sum(sizes) + sum(given)
        for what, most, longest in (("value", MOST_VALUE_BYTES, sizes), ("key", MOST_KEY_BYTES, given)):
            if max(longest, default=0) > most:
                raise too_large(f"{self.name}: a {what} of {max(longest)} bytes; at most {most} are taken")
        if total > MOST_APPEND_BYTES or len(values) > 1_000_000:
            raise too_large(
                f"{self.name}: {len(values)} records of {total} bytes at once; "
                f"at most 1000000 of {MOST_APPEND_BYTES} bytes are taken"
            )
        if times_ms and (min(times_ms) < 1 or max(times_ms) >= MOST_TIME_MS):
            wrong = next(t for t in times_ms if not 1 <= t < MOST_TIME_MS)
            raise too_large(f"{self.name}: time_ms {wrong} is no time; milliseconds since the epoch are taken, from 1")

    def _wait_for_readers(self, records: int) -> None:
        """Wait until the groups in `backlog_of` are near enough. What was seen of them is believed for a second."""
        most, groups = self.settings.backlog, self.settings.backlog_of
        if most is None:
            return
        now = started = time.monotonic()
        while self._room < records or now - self._looked > _BELIEVED_S:
            lag = max(self.lag(group) for group in groups)
            self._room, self._looked = most - lag, now
            if self._room >= records or lag == 0:
                break
            if now - started >= self.settings.timeout_s:
                raise BacklogFull(self.name, lag, most, groups, now - started)
            time.sleep(_LOOK_S)
            now = time.monotonic()
        self._room -= records
