"""What a Kafka cluster is asked about a topic: whether it is there, what its settings say; and how long it is asked."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from . import faults
from .kafka_errors import as_fault, is_away
from .settings import Settings

CALL_S = 15.0
UNKNOWN = "an unknown number of"


class Cluster:
    """The administrator's view of a topic. configuration: librdkafka's, where and who. name: for messages."""

    def __init__(self, kafka: Any, configuration: dict[str, Any], topic: str, name: str, settings: Settings) -> None:
        self._kafka, self._topic, self._name, self._settings = kafka, topic, name, settings
        self._heard = "no answer"
        self.configuration = {**configuration, "error_cb": self._hear, "log_level": 0}
        try:
            self._admin = kafka.admin.AdminClient(self.configuration)
        except (kafka.KafkaException, ValueError, TypeError) as error:
            raise faults.AddressError(f"{name}: {error}", "docs/streams.md has the options", "STRM002") from None

    def partitions(self, create: bool, most_message_bytes: int) -> int:
        """How many the topic has; made if it is not there and `create` says so."""
        asked = self._settings.partitions
        metadata = self.called("asking for the topic", lambda: self._admin.list_topics(timeout=5.0))
        there = metadata.topics.get(self._topic)
        if there is None and not create:
            raise faults.no_topic(self._name)
        if there is None:
            self._create(asked or 1, most_message_bytes)
            return asked or 1
        found = len(there.partitions)
        if asked is not None and found != asked:
            raise faults.other_partitions(self._name, found, asked)
        return found

    def _create(self, partitions: int, most_message_bytes: int) -> None:
        chosen = self._settings
        kept = {
            "max.message.bytes": str(most_message_bytes),
            "cleanup.policy": "delete",
            "retention.ms": "-1" if chosen.retention_s is None else str(int(chosen.retention_s * 1000)),
            "retention.bytes": str(chosen.retention_bytes or -1),
            **({"flush.messages": "1"} if chosen.ack == "synced" else {}),
        }
        new = self._kafka.admin.NewTopic(
            self._topic, num_partitions=partitions, replication_factor=chosen.replication, config=kept
        )
        exists = self._kafka.KafkaError.TOPIC_ALREADY_EXISTS
        self._answered("making the topic", lambda: self._admin.create_topics([new], request_timeout=CALL_S), exists)
        # Brokers hear of it one after the other.
        deadline = time.monotonic() + chosen.timeout_s
        while True:
            metadata = self.called("asking for the topic", lambda: self._admin.list_topics(self._topic, timeout=5.0))
            there = metadata.topics[self._topic]
            if there.error is None and len(there.partitions) == partitions:
                return
            if there.partitions and len(there.partitions) != partitions:
                raise faults.other_partitions(self._name, len(there.partitions), partitions)
            if time.monotonic() > deadline:
                raise self.unreachable("making the topic")
            time.sleep(0.05)

    def setting(self, name: str) -> str:
        """What the topic's configuration says; `UNKNOWN` where that may not be asked."""
        kind = self._kafka.admin.ConfigResource.Type.TOPIC
        resource = self._kafka.admin.ConfigResource(kind, self._topic)

        def ask() -> dict[Any, Any]:
            found: dict[Any, Any] = self._admin.describe_configs([resource], request_timeout=CALL_S)
            return found

        try:
            return str(self._answered("asking for the topic's settings", ask)[name].value)
        except faults.Unreachable:
            raise
        except faults.StreamError:
            return UNKNOWN

    def trim(self, partition: int, before: int) -> None:
        where = self._kafka.TopicPartition(self._topic, partition, before)
        self._answered("trimming", lambda: self._admin.delete_records([where], request_timeout=CALL_S))

    def called(self, doing: str, call: Callable[[], Any]) -> Any:
        """Calls again while brokers are away, for `timeout_s`."""
        deadline = time.monotonic() + self._settings.timeout_s
        while True:
            try:
                return call()
            except self._kafka.KafkaException as error:
                said = error.args[0]
                if not is_away(said) or time.monotonic() > deadline:
                    raise self.error(doing, said) from None
                time.sleep(0.1)

    def error(self, doing: str, error: Any) -> faults.StreamError:
        return as_fault(error, self._name, doing, self._settings)

    def unreachable(self, doing: str) -> faults.StreamError:
        return faults.Unreachable(self._name, doing, self._settings.timeout_s, self._heard)

    def let_go(self) -> None:
        self._admin = None

    def _answered(self, doing: str, ask: Callable[[], dict[Any, Any]], fine: int | None = None) -> Any:
        """The one answer of an administrator's question; None where the error is `fine`."""

        def answer() -> Any:
            try:
                return next(iter(ask().values())).result()
            except self._kafka.KafkaException as error:
                if error.args[0].code() == fine:
                    return None
                raise

        return self.called(doing, answer)

    def _hear(self, error: Any) -> None:
        """librdkafka's own threads say what goes wrong behind calls."""
        self._heard = str(error)
