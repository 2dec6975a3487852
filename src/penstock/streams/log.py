"""Topics in a folder of this machine, kept by the Rust log (docs/streams.md has the format)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from penstock import native

from .faults import (
    AddressError,
    BeyondEnd,
    RecordsLost,
    StreamError,
    TopicTrimmed,
    no_partition,
    no_topic,
    other_partitions,
    too_large,
)
from .settings import Settings, check_group
from .topic import Ack, Batch, Record, Topic

#: Faults that are the same whatever the log was asked: code, and what to do.
_OTHERS = {
    "io": ("STRM010", "what was being appended is not acknowledged; look at the disk, then try again"),
    "full": ("STRM011", "make room: what was acknowledged is there, and appends go on once there is some"),
    "not_synced": ("STRM012", "records that were not yet synced are in doubt: append them again, and look at the disk"),
    "not_a_log": ("STRM013", "is it the folder of a topic? put back what was changed in it"),
    "version": ("STRM014", "read and write this topic with a Penstock as new as the one that wrote it"),
    "locked": ("STRM015", "a process that holds it is stopped or its disk hangs; a dead one lets go by itself"),
}


class LogTopic(Topic):
    """`log:PATH`. Any number of processes of one machine read and append at once."""

    def __init__(self, path: str, settings: Settings, create: bool) -> None:
        self.path = Path(path).expanduser().absolute()
        name = f"log:{self.path}"

        def ms(seconds: float | None) -> int | None:
            return None if seconds is None else int(seconds * 1000)

        with _said(name, settings.partitions):
            self._log = native.Log(
                self.path,
                partitions=settings.partitions,
                create=create,
                segment_bytes=settings.segment_bytes,
                sync_ms=ms(settings.sync_s),
                retention_ms=ms(settings.retention_s),
                retention_bytes=settings.retention_bytes,
                lock_wait_ms=int(settings.timeout_s * 1000),
            )
        super().__init__(name, self._log.partitions, settings)

    @property
    def durability(self) -> str:
        if self.settings.ack == "synced":
            return "acknowledged records survive killed processes and power cuts (fsync before each acknowledgement)"
        every = self.settings.sync_s
        soon = "when the system syncs it" if every is None else f"{every * 1000:g} ms later (fsync)"
        return f"acknowledged records survive killed processes at once, and power cuts {soon}"

    def sync(self) -> None:
        with _said(self.name):
            self._log.sync()

    def trim(self, partition: int, before: int) -> None:
        with _said(self.name, partition=partition):
            self._log.trim(partition, before)

    def start(self, partition: int) -> int:
        with _said(self.name, partition=partition):
            return self._log.start(partition)

    def end(self, partition: int) -> int:
        with _said(self.name, partition=partition):
            return self._log.end(partition)

    def seek(self, partition: int, time_ms: int) -> int:
        with _said(self.name, partition=partition):
            return self._log.seek(partition, time_ms)

    def size(self, partition: int) -> tuple[int, int]:
        """Segments of a partition, and their bytes."""
        with _said(self.name, partition=partition):
            return self._log.size(partition)

    def commit(self, group: str, positions: Mapping[int, int]) -> None:
        check_group(group)
        for partition, offset in positions.items():
            with _said(self.name, partition=partition):
                self._log.commit(group, partition, offset)

    def committed(self, group: str) -> dict[int, int]:
        check_group(group)
        found = {}
        for partition in range(self.partitions):
            with _said(self.name, partition=partition):
                offset = self._log.committed(group, partition)
            if offset is not None:
                found[partition] = offset
        return found

    def groups(self) -> list[str]:
        """The groups that committed positions, by name."""
        with _said(self.name):
            return sorted({name for partition in range(self.partitions) for name in self._log.groups(partition)})

    def forget(self, group: str) -> None:
        """Remove the positions of a group."""
        check_group(group)
        with _said(self.name):
            for partition in range(self.partitions):
                self._log.forget(group, partition)

    def close(self) -> None:
        with _said(self.name):
            self._log.close()

    def _append(
        self,
        values: Sequence[bytes],
        keys: Sequence[bytes | None] | None,
        times_ms: Sequence[int],
        partition: int | None,
        ack: Ack,
    ) -> dict[int, int]:
        with _said(self.name):
            done = self._log.append(values, keys, times_ms, partition, ack == "synced")
        return {where: end for where, _, end in done}

    def _read(self, partition: int, offset: int, records: int, size_bytes: int, wait_s: float) -> Batch:
        with _said(self.name, partition=partition):
            found, next_offset = self._log.read(partition, offset, records, size_bytes, int(wait_s * 1000))
        return Batch([Record._make(record) for record in found], next_offset)


@contextmanager
def _said(name: str, asked: int | None = None, *, partition: int = 0) -> Iterator[None]:
    """The log's faults as this package's errors."""
    try:
        yield
    except native.LogFault as fault:
        kind, message, facts = fault.args
        match kind:
            case "trimmed":
                error: StreamError | AddressError = TopicTrimmed(name, partition, facts["asked"], facts["start"])
            case "beyond":
                error = BeyondEnd(name, partition, facts["asked"], facts["end"])
            case "damaged":
                error = RecordsLost(message, facts["first"], facts["next"])
            case "missing":
                error = no_topic(name)
            case "mismatch":
                error = other_partitions(name, facts["found"], asked or 0)
            case "too_large":
                error = too_large(f"{name}: {message}")
            case "no_partition":
                error = no_partition(name, partition, facts["partitions"])
            case "setting":
                error = AddressError(f"{name}: {message}", "docs/streams.md has what may be chosen", "STRM002")
            case _:
                code, hint = _OTHERS[kind]
                error = StreamError(message, hint, code)
        raise error from None
