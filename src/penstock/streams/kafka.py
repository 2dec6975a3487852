"""Topics of a Kafka cluster, by librdkafka: idempotent or transactional producer, read_committed consumers.

An append without `transactional_id` is each record once, whatever the connection does; with one it is a transaction:
all partitions or none, and a producer that comes later with the same name fences this one.
"""

from __future__ import annotations

import atexit
import contextlib
import threading
import time
import weakref
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from typing import Any

from . import faults
from .kafka_cluster import CALL_S, Cluster
from .kafka_reader import PartitionReader
from .settings import Settings, check_group
from .topic import MOST_KEY_BYTES, MOST_VALUE_BYTES, Ack, Batch, Topic

#: What librdkafka is told here; an address may not say otherwise.
_OURS = {
    "bootstrap.servers",
    "enable.idempotence",
    "acks",
    "isolation.level",
    "transactional.id",
    "group.id",
    "enable.auto.commit",
    "auto.offset.reset",
}
_MOST_MESSAGE_BYTES = MOST_VALUE_BYTES + MOST_KEY_BYTES + 4096

_open: weakref.WeakSet[KafkaTopic] = weakref.WeakSet()


@atexit.register
def _let_go() -> None:
    """librdkafka's threads call back into Python, and must not do so into an interpreter that ends."""
    for topic in list(_open):
        topic.let_go()


class KafkaTopic(Topic):
    """`kafka://HOST:PORT[,HOST:PORT]/TOPIC`."""

    def __init__(self, servers: str, topic: str, settings: Settings, create: bool) -> None:
        if find_spec("confluent_kafka") is None:
            raise faults.missing_extra("confluent-kafka", "kafka")
        import confluent_kafka
        import confluent_kafka.admin

        if wrong := sorted(_OURS & set(settings.client)):
            raise faults.AddressError(
                f"option '{wrong[0]}' is not the address's to say", "docs/streams.md has what is set", "STRM002"
            )
        super().__init__(f"kafka://{servers}/{topic}", 1, settings)
        self._kafka: Any = confluent_kafka
        self._topic, self._closed = topic, False
        self._appending, self._opening = threading.Lock(), threading.Lock()
        where = {"bootstrap.servers": servers, "reconnect.backoff.ms": 50, "reconnect.backoff.max.ms": 1000}
        self._cluster = Cluster(self._kafka, {**where, **settings.client}, topic, self.name, settings)
        _open.add(self)
        self._producer: Any = None
        self._failed: Any = None
        self._keyless = 0
        self._readers: dict[int, PartitionReader] = {}
        self._groups: dict[str, Any] = {}
        self.partitions = self._cluster.partitions(create, _MOST_MESSAGE_BYTES)
        self._flushes = self._cluster.setting("flush.messages") == "1"
        self._in_sync = self._cluster.setting("min.insync.replicas")
        if settings.ack == "synced":
            self._refuse_unsynced()

    @property
    def durability(self) -> str:
        copies = f"{self._in_sync} in-sync replica{'s' if self._in_sync != '1' else ''}"
        power = "and power cuts (flush.messages=1)" if self._flushes else "and, once brokers sync, power cuts"
        return f"acknowledged records are held by {copies} at least; they survive killed brokers {power}"

    # --- writing -----------------------------------------------------------------------------------------------

    def _append(
        self,
        values: Sequence[bytes],
        keys: Sequence[bytes | None] | None,
        times_ms: Sequence[int],
        partition: int | None,
        ack: Ack,
    ) -> dict[int, int]:
        if ack == "synced":
            self._refuse_unsynced()
        with self._appending:  # a producer has one transaction at a time
            try:
                return self._sent(values, keys, times_ms, partition, ack)
            except BaseException:
                if self.settings.transactional_id is not None and self._producer is not None:
                    with contextlib.suppress(self._kafka.KafkaException):  # it is over, or another's by now
                        self._producer.abort_transaction(CALL_S)
                raise

    def _sent(
        self,
        values: Sequence[bytes],
        keys: Sequence[bytes | None] | None,
        times_ms: Sequence[int],
        partition: int | None,
        ack: Ack,
    ) -> dict[int, int]:
        producer = self._open_producer()
        if self._failed is not None:
            failed, self._failed = self._failed, None
            raise self._cluster.error("appending earlier records, which were not waited for,", failed)
        ends: dict[int, int] = {}
        failures: list[Any] = []
        waiting = len(values)

        def delivered(error: Any, message: Any) -> None:
            nonlocal waiting
            waiting -= 1
            if error is None:
                where = message.partition()
                ends[where] = max(ends.get(where, 0), message.offset() + 1)
            elif ack == "none":
                self._failed = error
            else:
                failures.append(error)

        fenceable = self.settings.transactional_id is not None
        if fenceable:
            self._cluster.called("beginning a transaction", producer.begin_transaction)
        self._keyless = (self._keyless + 1) % self.partitions
        deadline = time.monotonic() + self._patience_s() + CALL_S
        for number, value in enumerate(values):
            key = keys[number] if keys is not None else None
            where = partition if partition is not None else self._keyless if key is None else self.partition_of(key)
            while True:
                try:
                    producer.produce(self._topic, value, key, where, on_delivery=delivered, timestamp=times_ms[number])
                    break
                except BufferError:  # what waits is bounded: let some go first
                    producer.poll(0.05)
                    if time.monotonic() > deadline:
                        raise self._cluster.unreachable("appending") from None
                except self._kafka.KafkaException as error:
                    raise self._cluster.error("appending", error.args[0]) from None
        if fenceable:
            self._commit_transaction(producer)
        if ack == "none" and not fenceable:
            producer.poll(0)
            return {}
        while waiting and not failures:
            producer.poll(0.1)
            if time.monotonic() > deadline:
                raise self._cluster.unreachable("appending")
        if failures:
            raise self._cluster.error("appending", failures[0])
        return {} if ack == "none" else ends

    def _open_producer(self) -> Any:
        if self._producer is not None:
            return self._producer
        configuration = {
            **self._cluster.configuration,
            "enable.idempotence": True,
            "acks": "all",
            "linger.ms": 2,
            "message.max.bytes": _MOST_MESSAGE_BYTES,
            "queue.buffering.max.kbytes": 128 << 10,
            "queue.buffering.max.messages": 1_000_000,
            "delivery.timeout.ms": int(self._patience_s() * 1000),
        }
        name = self.settings.transactional_id
        if name is not None:
            configuration["transactional.id"] = name
            # The broker takes back what a dead producer left open after this long.
            configuration["transaction.timeout.ms"] = min(int(self.settings.timeout_s * 1000), 900_000)
        producer = self._kafka.Producer(configuration)
        if name is not None:
            self._cluster.called("opening transactions", lambda: producer.init_transactions(self.settings.timeout_s))
        self._producer = producer
        return producer

    def _patience_s(self) -> float:
        """How long a record is tried: a cluster that has just made a topic needs some seconds to lead it."""
        return max(self.settings.timeout_s, 5.0)

    def _commit_transaction(self, producer: Any) -> None:
        deadline = time.monotonic() + self.settings.timeout_s
        while True:
            try:
                producer.commit_transaction(max(1.0, deadline - time.monotonic()))
                return
            except self._kafka.KafkaException as error:
                said = error.args[0]
                if said.retriable() and time.monotonic() < deadline:
                    continue
                raise self._cluster.error("committing a transaction", said) from None

    def sync(self) -> None:
        if self._producer is None:
            return
        try:
            left = self._producer.flush(self.settings.timeout_s)
        except self._kafka.KafkaException as error:  # one that was fenced says so again
            raise self._cluster.error("appending", error.args[0]) from None
        if left:
            raise self._cluster.unreachable("appending")
        if self._failed is not None:
            failed, self._failed = self._failed, None
            raise self._cluster.error("appending", failed)

    def trim(self, partition: int, before: int) -> None:
        self._known(partition)
        self._cluster.trim(partition, before)

    # --- reading -----------------------------------------------------------------------------------------------

    def _read(self, partition: int, offset: int, records: int, size_bytes: int, wait_s: float) -> Batch:
        found = self._reader(partition).read(offset, records, size_bytes, wait_s)
        if found is None:
            start, end = self.start(partition), self.end(partition)
            if offset > end:
                raise faults.BeyondEnd(self.name, partition, offset, end)
            raise faults.TopicTrimmed(self.name, partition, offset, start)
        return found

    def _reader(self, partition: int) -> PartitionReader:
        with self._opening:
            if partition not in self._readers:
                self._readers[partition] = self._new_reader(partition)
            return self._readers[partition]

    def _new_reader(self, partition: int) -> PartitionReader:
        configuration = {
            **self._cluster.configuration,
            "group.id": "penstock",
            "enable.auto.commit": False,
            "isolation.level": "read_committed",
            "auto.offset.reset": "error",
            "enable.partition.eof": True,
            "queued.max.messages.kbytes": 16 << 10,
            "fetch.error.backoff.ms": 50,
            # A seek waits for the fetch that is under way.
            "fetch.wait.max.ms": 100,
            "fetch.message.max.bytes": 1 << 20,
        }
        consumer = self._kafka.Consumer(configuration)
        return PartitionReader(self._kafka, consumer, self._topic, partition, self.settings.timeout_s, self._broken)

    def _broken(self, error: Any) -> Exception:
        return self._cluster.unreachable("reading") if error is None else self._cluster.error("reading", error)

    def start(self, partition: int) -> int:
        self._known(partition)
        return self._bounds(partition)[0]

    def end(self, partition: int) -> int:
        self._known(partition)
        return self._bounds(partition)[1]

    def _bounds(self, partition: int) -> tuple[int, int]:
        consumer = self._reader(partition).consumer
        where = self._kafka.TopicPartition(self._topic, partition)
        low, high = self._cluster.called(
            "asking for offsets", lambda: consumer.get_watermark_offsets(where, timeout=5.0)
        )
        return int(low), int(high)

    def seek(self, partition: int, time_ms: int) -> int:
        self._known(partition)
        consumer = self._reader(partition).consumer
        where = self._kafka.TopicPartition(self._topic, partition, max(time_ms, 0))
        found = self._cluster.called("seeking", lambda: consumer.offsets_for_times([where], timeout=5.0))[0]
        if found.error is not None:
            raise self._cluster.error("seeking", found.error)
        return int(found.offset) if found.offset >= 0 else self.end(partition)

    # --- positions ---------------------------------------------------------------------------------------------

    def commit(self, group: str, positions: Mapping[int, int]) -> None:
        consumer = self._group(group)
        for partition, offset in positions.items():
            end = self.end(partition)
            if offset > end:
                raise faults.BeyondEnd(self.name, partition, offset, end)
        wanted = [self._kafka.TopicPartition(self._topic, where, offset) for where, offset in positions.items()]
        if not wanted:
            return
        done = self._cluster.called("committing", lambda: consumer.commit(offsets=wanted, asynchronous=False))
        for where in done:
            if where.error is not None:
                raise self._cluster.error("committing", where.error)

    def committed(self, group: str) -> dict[int, int]:
        consumer = self._group(group)
        wanted = [self._kafka.TopicPartition(self._topic, partition) for partition in range(self.partitions)]
        found = self._cluster.called("asking for positions", lambda: consumer.committed(wanted, timeout=5.0))
        return {where.partition: int(where.offset) for where in found if where.offset >= 0}

    def _group(self, group: str) -> Any:
        check_group(group)
        if group not in self._groups:
            self._groups[group] = self._kafka.Consumer(
                {**self._cluster.configuration, "group.id": group, "enable.auto.commit": False}
            )
        return self._groups[group]

    def close(self) -> None:
        if self._closed:
            return
        try:
            self.sync()
        finally:
            self._closed = True
            for consumer in [*(reader.consumer for reader in self._readers.values()), *self._groups.values()]:
                consumer.close()
            self.let_go()

    def let_go(self) -> None:
        """Ends librdkafka's threads, whatever waits to be sent."""
        self._readers, self._groups, self._producer = {}, {}, None
        self._cluster.let_go()

    def _refuse_unsynced(self) -> None:
        if not self._flushes:
            raise faults.not_durable(
                self.name,
                "ack=synced, but brokers acknowledge before they sync (flush.messages is not 1)",
                "kafka-configs --alter --add-config flush.messages=1, or say ack=written and trust replicas",
            )
