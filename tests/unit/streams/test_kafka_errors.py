"""Which of librdkafka's errors mean that a broker is away: who runs for weeks waits for those, and ends at others."""

from __future__ import annotations

import pytest

from penstock.streams import faults
from penstock.streams.kafka_errors import as_fault, is_away
from penstock.streams.settings import settings

kafka = pytest.importorskip("confluent_kafka")


@pytest.mark.parametrize(
    "name",
    ["_TRANSPORT", "_ALL_BROKERS_DOWN", "_DESTROY", "_DESTROY_BROKER", "_UNKNOWN_PARTITION", "LEADER_NOT_AVAILABLE"],
)
def test_brokers_that_were_killed_are_away(name: str) -> None:
    error = kafka.KafkaError(getattr(kafka.KafkaError, name))
    assert is_away(error)
    assert isinstance(as_fault(error, "t", "reading", settings("kafka", {})), faults.Unreachable)


@pytest.mark.parametrize("name", ["TOPIC_AUTHORIZATION_FAILED", "MSG_SIZE_TOO_LARGE", "_AUTHENTICATION"])
def test_what_no_waiting_mends_is_refused(name: str) -> None:
    error = kafka.KafkaError(getattr(kafka.KafkaError, name))
    assert not is_away(error)
    assert as_fault(error, "t", "reading", settings("kafka", {})).code == "STRM020"
