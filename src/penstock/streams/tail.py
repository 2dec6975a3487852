"""Reading on where records are appended: what came since one looked last."""

from __future__ import annotations

from collections.abc import Iterable

from .topic import Record, Topic


class Tail:
    """Each `read` gives records that came since the one before, beginning with the oldest that the topic holds.

    partitions: those that are read, all by default.
    """

    def __init__(self, topic: Topic, partitions: Iterable[int] | None = None) -> None:
        self._topic = topic
        self._next = {p: topic.start(p) for p in (range(topic.partitions) if partitions is None else partitions)}

    def read(self, wait_s: float = 0.0) -> list[tuple[int, Record]]:
        """Partition and record, in order within each: as many as one read gives. Raises what `Topic.read` raises.

        wait_s: how long at most for a first one. The backend waits for one partition; several are asked in turn.
        """
        if len(self._next) == 1:
            batches = {p: self._topic.read(p, at, wait_s=wait_s) for p, at in self._next.items()}
        else:
            batches = self._topic.poll(self._next, wait_s=wait_s)
        self._next |= {partition: batch.next for partition, batch in batches.items()}
        return [(partition, record) for partition, batch in batches.items() for record in batch.records]
