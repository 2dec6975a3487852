"""Addresses and options of topics: what is wrong is said by name, before anything is opened."""

from __future__ import annotations

from pathlib import Path

import pytest

from penstock.errors import RequestError
from penstock.streams import open_topic
from penstock.streams.addresses import without_secrets
from penstock.streams.settings import duration_s, settings, size_bytes


@pytest.mark.parametrize(
    ("address", "code", "said"),
    [
        ("", "STRM001", "no address"),
        ("/data/topic", "STRM001", "no address"),
        ("kafak://h:1/t", "STRM001", "did you mean 'kafka'"),
        ("log:", "STRM001", "names no folder"),
        ("kafka://h:9092", "STRM001", "names no topic"),
        ("kafka:///t", "STRM001", "names no topic"),
        ("redis://h:1/a/b", "STRM001", "names no topic"),
        ("redis://user:secret@h:1/..", "STRM001", "***@h"),
        ("log:x?partition=3", "STRM002", "did you mean 'partitions'"),
        ("log:x?partitions=0", "STRM002", "from 1 to 1024"),
        ("log:x?partitions=two", "STRM002", "from 1 to 1024"),
        ("log:x?partitions=1&partitions=2", "STRM002", "twice"),
        ("log:x?retention=week", "STRM002", "7d"),
        ("log:x?retention=3fortnights", "STRM002", "7d"),
        ("log:x?ack=maybe", "STRM002", "none, written or synced"),
        ("log:x?segment=1", "STRM002", "4KiB"),
        ("log:x?transactional_id=a", "STRM002", "no option"),
        ("log:x?backlog=10", "STRM002", "belong together"),
        ("log:x?backlog=10&backlog_of=a/b", "STRM002", "cannot be"),
        ("redis://h:1/t?retention_bytes=1GB", "STRM002", "no option"),
        ("redis://h:1/t?client.id=x", "STRM002", "no option"),
    ],
)
def test_a_wrong_address_is_refused_by_name(address: str, code: str, said: str) -> None:
    with pytest.raises(RequestError) as refused:
        open_topic(address)
    assert refused.value.code == code and said in str(refused.value)
    assert "secret" not in str(refused.value)


def test_times_and_sizes_have_units() -> None:
    assert [duration_s(text) for text in ("50ms", "1.5s", "2h", "7d")] == [0.05, 1.5, 7200, 604_800]
    assert [size_bytes(text) for text in ("4096", "64MB", "1GiB", "1.5KiB")] == [4096, 64_000_000, 1 << 30, 1536]
    chosen = settings("log", {"sync": "system", "retention": "7d", "backlog": "5", "backlog_of": "a, b"})
    assert (chosen.sync_s, chosen.retention_s, chosen.backlog_of) == (None, 604_800, ("a", "b"))
    kafka = settings("kafka", {"sasl.username": "u", "replication": "3"})
    assert (kafka.client, kafka.replication) == ({"sasl.username": "u"}, 3)


def test_messages_show_no_secrets() -> None:
    assert without_secrets("redis://u:p@h:1/t?x=p") == "redis://***@h:1/t"


def test_a_log_is_where_the_address_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with open_topic("log:a%20topic/of mine?partitions=2") as topic:
        assert topic.name == f"log:{tmp_path / 'a topic' / 'of mine'}"
    assert (tmp_path / "a topic" / "of mine" / "topic.json").is_file()
