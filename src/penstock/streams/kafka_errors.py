"""What librdkafka's error codes mean for whoever reads or writes a topic."""

from __future__ import annotations

from typing import Any

from . import faults
from .settings import Settings


def is_away(error: Any) -> bool:
    """Whether brokers are not there, or not yet again: it may work a moment later."""
    return error.code() in _away() or bool(error.retriable())


def as_fault(error: Any, topic: str, doing: str, settings: Settings) -> faults.StreamError:
    """A `KafkaError` as this package's."""
    codes = _codes()
    if error.code() in (codes._FENCED, codes.INVALID_PRODUCER_EPOCH, codes.PRODUCER_FENCED):
        return faults.Fenced(topic, settings.transactional_id or "")
    if is_away(error):
        return faults.Unreachable(topic, doing, settings.timeout_s, error.str())
    return faults.refused(topic, doing, error.str())


def _away() -> set[int]:
    codes = _codes()
    return {
        codes._TRANSPORT,
        codes._ALL_BROKERS_DOWN,
        codes._TIMED_OUT,
        codes._TIMED_OUT_QUEUE,
        codes._MSG_TIMED_OUT,
        codes._RESOLVE,
        # The client gave up a connection that this waited on, for one to the broker that came back.
        codes._DESTROY,
        getattr(codes, "_DESTROY_BROKER", codes._DESTROY),  # librdkafka 2.12
        codes._NODE_UPDATE,
        codes._WAIT_COORD,
        # The topic was there when it was opened: who leads it is not known yet, or again.
        codes._UNKNOWN_PARTITION,
        codes.UNKNOWN_TOPIC_OR_PART,
        codes.REQUEST_TIMED_OUT,
        codes.COORDINATOR_NOT_AVAILABLE,
        codes.COORDINATOR_LOAD_IN_PROGRESS,
        codes.NOT_COORDINATOR,
        codes.LEADER_NOT_AVAILABLE,
        codes.NOT_LEADER_FOR_PARTITION,
        codes.BROKER_NOT_AVAILABLE,
    }


def _codes() -> Any:
    from confluent_kafka import KafkaError

    return KafkaError
