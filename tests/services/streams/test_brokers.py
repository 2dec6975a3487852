"""What only Kafka and Redis have: transactions and fences; settings that keep less than was asked for."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from penstock.errors import PenstockError
from penstock.streams import Fenced, TopicTrimmed, open_topic

from .brokers import Redis
from .conftest import Backend
from .test_topics import everything


def test_a_transaction_is_seen_whole_or_not_at_all_and_a_later_producer_fences(
    made: Callable[[str], Backend],
) -> None:
    kafka = made("kafka")
    import confluent_kafka

    older = kafka.open(partitions=2, transactional_id="joiner-0")
    reader = kafka.open()
    older.append([b"a", b"b"], keys=[b"1", b"2"])
    values = {record.value for partition in (0, 1) for record in everything(reader, partition)}
    assert values == {b"a", b"b"}

    broker, topic = kafka.base.removeprefix("kafka://").split("/")
    open_ended = confluent_kafka.Producer({"bootstrap.servers": broker, "transactional.id": "dead", "log_level": 0})
    open_ended.init_transactions(30)
    open_ended.begin_transaction()
    open_ended.produce(topic, b"never committed", partition=0)
    assert open_ended.flush(30) == 0
    assert b"never committed" not in [record.value for record in everything(reader, 0)]
    open_ended.abort_transaction(30)
    older.append([b"after"], partition=0)
    records = everything(reader, 0)
    assert records[-1].value == b"after" and b"never committed" not in [record.value for record in records]
    # Offsets have gaps where transactions ended; whoever is behind the last mark is at the end.
    batch = reader.read(0, records[-1].offset + 1)
    assert batch.records == [] and batch.next == reader.end(0)

    newer = kafka.open(transactional_id="joiner-0")
    newer.append([b"newer"], partition=1)
    with pytest.raises(Fenced) as fenced:
        older.append([b"zombie"], partition=1)
    assert fenced.value.code == "STRM018"
    assert b"zombie" not in [record.value for record in everything(reader, 1)]


def test_kafka_keeps_what_retention_says_and_syncs_where_asked(made: Callable[[str], Backend]) -> None:
    import confluent_kafka.admin as admin

    kafka = made("kafka")
    topic = kafka.open(retention="7d", retention_bytes="1GB", ack="synced")
    assert topic.append([b"lasting"]) == {0: 1} and "flush.messages=1" in topic.durability
    assert kafka.broker is not None
    client = admin.AdminClient({"bootstrap.servers": f"127.0.0.1:{kafka.broker.port}"})
    resource = admin.ConfigResource(admin.ConfigResource.Type.TOPIC, kafka.base.rpartition("/")[2])
    found = client.describe_configs([resource])[resource].result()
    assert (found["retention.ms"].value, found["retention.bytes"].value) == ("604800000", "1000000000")
    with pytest.raises(PenstockError, match="not the address's") as ours:
        kafka.open(**{"acks.x": "1", "isolation.level": "read_uncommitted"})
    assert ours.value.code == "STRM002"
    with pytest.raises(PenstockError) as unknown:
        kafka.open(**{"no.such.setting": "1"})
    assert unknown.value.code == "STRM002"


@pytest.mark.parametrize(
    ("settings", "ack", "said"),
    [
        ({"appendonly": "no"}, "written", "appendonly no"),
        ({"maxmemory": "50mb", "maxmemory-policy": "allkeys-lru"}, "written", "allkeys-lru"),
        ({"appendfsync": "no"}, "synced", "appendfsync no"),
    ],
)
def test_a_redis_that_keeps_less_than_asked_is_refused_and_taken_when_nothing_is_asked(
    tmp_path: Path, settings: dict[str, str], ack: str, said: str
) -> None:
    redis = Redis(tmp_path / "redis", settings)
    redis.start()
    try:
        with pytest.raises(PenstockError) as refused:
            open_topic(f"{redis.address}/t?ack={ack}")
        assert refused.value.code == "STRM019" and said in str(refused.value)
        with open_topic(f"{redis.address}/t?ack=none") as topic:
            assert topic.append([b"x"]) == {} and topic.end(0) == 1
            assert ("lost" in topic.durability or "evict" in topic.durability) == (ack == "written")
    finally:
        redis.kill()


def test_redis_syncs_before_it_acknowledges_where_it_says_so(tmp_path: Path) -> None:
    redis = Redis(tmp_path / "redis", {"appendfsync": "always"})
    redis.start()
    try:
        with open_topic(f"{redis.address}/t?ack=synced") as topic:
            assert topic.append([b"x"]) == {0: 1} and "always" in topic.durability
    finally:
        redis.kill()


def test_an_append_whose_answer_was_lost_is_done_once(made: Callable[[str], Backend]) -> None:
    redis = made("redis")
    topic = redis.open()
    assert topic.append([b"one"]) == {0: 1}
    # The same call again, as after a connection that died before its answer.
    topic._number -= 1  # type: ignore[attr-defined]
    assert topic.append([b"one"]) == {0: 1}
    assert topic.append([b"two"]) == {0: 2}
    assert [record.value for record in everything(topic, 0)] == [b"one", b"two"]


def test_redis_lets_go_of_what_is_too_old(made: Callable[[str], Backend], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("penstock.streams.redis._TRIM_EVERY_S", 0.0)
    topic = made("redis").open(retention="1h")
    now = int(time.time() * 1000)
    topic.append([b"old", b"older", b"new"], times_ms=[now - 7_200_000, now - 8_000_000, now])
    topic.append([b"newer"])
    assert [record.value for record in everything(topic, 0)] == [b"new", b"newer"]


def test_a_redis_that_lets_go_in_the_middle_of_a_read_is_told_and_nothing_comes_twice(
    made: Callable[[str], Backend], monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = made("redis")
    topic, other = backend.open(), backend.open()
    topic.append([b"%d" % number for number in range(300)])
    asked = topic._client.xrange  # type: ignore[attr-defined]
    calls: list[int] = []

    def then_trimmed(*given: object) -> object:
        calls.append(1)
        if len(calls) == 2:
            other.trim(0, 200)
        return asked(*given)

    monkeypatch.setattr(topic._client, "xrange", then_trimmed)  # type: ignore[attr-defined]
    found = topic.read(0, 0)
    assert len(calls) > 1 and [record.offset for record in found.records] == list(range(found.next)) and found.records
    with pytest.raises(TopicTrimmed, match="200"):
        topic.read(0, found.next)
    assert [record.offset for record in topic.read(0, 200).records] == list(range(200, 300))
