"""How far a partition was read, whatever librdkafka hands over together."""

from __future__ import annotations

from typing import Any

import pytest

from penstock.streams.kafka_reader import PartitionReader

kafka = pytest.importorskip("confluent_kafka")


class Message:
    def __init__(self, offset: int, ends: bool = False) -> None:
        self._offset, self._ends = offset, ends

    def offset(self) -> int:
        return self._offset

    def error(self) -> Any:
        return kafka.KafkaError(kafka.KafkaError._PARTITION_EOF) if self._ends else None

    def timestamp(self) -> tuple[int, int]:
        return 1, 0

    def key(self) -> bytes:
        return b"k"

    def value(self) -> bytes:
        return b"v"


class Consumer:
    """Hands over what it was given, a list a call, then nothing."""

    def __init__(self, *batches: list[Message]) -> None:
        self._batches = list(batches)

    def assign(self, where: object) -> None:
        pass

    def consume(self, records: int, timeout: float) -> list[Message]:
        return self._batches.pop(0) if self._batches else []


@pytest.mark.parametrize(
    "batches",
    [
        [[Message(300), Message(302, ends=True)]],
        [[Message(300)], [Message(302, ends=True)]],
        [[Message(300), Message(301, ends=True)], [Message(302, ends=True)]],
        [[Message(302, ends=True)]],
    ],
)
def test_marks_of_transactions_behind_the_last_record_were_read_too(batches: list[list[Message]]) -> None:
    reader = PartitionReader(kafka, Consumer(*batches), "t", 0, 1.0, lambda error: RuntimeError(error))
    at, found = 300, 0
    for _ in range(3):
        batch = reader.read(at, 100, 1 << 20, 0.0)
        assert batch is not None
        at, found = batch.next, found + len(batch.records)
    assert at == 302 and found == sum(not one._ends for batch in batches for one in batch)
