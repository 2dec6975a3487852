"""One partition of a Kafka topic, read from any offset by a consumer of its own."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

from .topic import Batch, Record

_TURN_S = 0.1


class PartitionReader:
    """Keeps its place: whoever reads on where the last read ended gets what librdkafka has fetched meanwhile.

    broken: makes the error for what librdkafka said, or for silence (None).
    """

    def __init__(
        self,
        kafka: Any,
        consumer: Any,
        topic: str,
        partition: int,
        timeout_s: float,
        broken: Callable[[Any], Exception],
    ) -> None:
        self.consumer, self._lock = consumer, threading.Lock()
        self._kafka, self._topic, self._partition = kafka, topic, partition
        self._timeout_s, self._broken = timeout_s, broken
        #: What was fetched and not given: it did not fit.
        self._left: list[Record] = []
        self._position: int | None = None
        self._at_end = self._assigned = False
        #: Where the end was when it was reached: marks of transactions may lie between the last record and it.
        self._end = 0
        self._heard = time.monotonic()

    def read(self, offset: int, records: int, size_bytes: int, wait_s: float) -> Batch | None:
        """None: the offset is not there. At the end it waits `wait_s`; for what is there, as long as it takes."""
        with self._lock:
            return self._read(offset, records, size_bytes, wait_s)

    def _read(self, offset: int, records: int, size_bytes: int, wait_s: float) -> Batch | None:
        if offset != self._position:
            self._go_to(offset)
            self._left, self._position, self._at_end = [], offset, False
            self._heard = time.monotonic()
        found: list[Record] = []
        size, deadline = 0, time.monotonic() + wait_s
        next_offset = offset
        while True:
            for number, record in enumerate(self._left):
                more = len(record.value) + len(record.key or b"")
                if found and (len(found) >= records or size + more > size_bytes):
                    self._left = self._left[number:]
                    self._position = next_offset
                    return Batch(found, next_offset)
                found.append(record)
                size += more
                next_offset = record.offset + 1
            self._left = []
            if self._at_end:
                next_offset = max(next_offset, self._end)
            left_s = deadline - time.monotonic()
            done = bool(found) or (self._at_end and left_s <= 0)
            timeout_s = 0.0 if done else _TURN_S if not self._at_end else min(left_s, _TURN_S)
            messages = self.consumer.consume(min(records, 5000), timeout=timeout_s)
            for message in messages:
                error = message.error()
                if error is None:
                    self._left.append(_record(message))
                    self._at_end = False
                elif error.code() == self._kafka.KafkaError._PARTITION_EOF:
                    self._at_end, self._end = True, message.offset()
                elif self._is_nowhere(error):
                    self._position = None
                    return None if not found else Batch(found, next_offset)
                elif not error.retriable() and error.fatal():
                    raise self._broken(error)
            if messages:
                self._heard = time.monotonic()
            elif done:
                self._position = next_offset
                return Batch(found, next_offset)
            elif not self._at_end and time.monotonic() - self._heard > self._timeout_s:
                self._position = None
                raise self._broken(None)

    def _go_to(self, offset: int) -> None:
        where = self._kafka.TopicPartition(self._topic, self._partition, offset)
        if self._assigned:
            try:
                self.consumer.seek(where)
            except self._kafka.KafkaException:  # it had stopped fetching: an offset was not there
                self.consumer.assign([where])
        else:
            self.consumer.assign([where])
        self._assigned = True

    def _is_nowhere(self, error: Any) -> bool:
        codes = self._kafka.KafkaError
        return error.code() in (codes._AUTO_OFFSET_RESET, codes.OFFSET_OUT_OF_RANGE)


def _record(message: Any) -> Record:
    return Record(message.offset(), message.timestamp()[1], message.key(), message.value() or b"")
