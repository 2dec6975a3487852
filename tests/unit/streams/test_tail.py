"""Who looks on gets each record once, from the oldest that is kept."""

from __future__ import annotations

from pathlib import Path

import pytest

from penstock.streams import Tail, open_topic


@pytest.mark.parametrize("partitions", [1, 3])
def test_each_record_comes_once_in_the_order_of_its_partition(tmp_path: Path, partitions: int) -> None:
    with open_topic(f"log:{tmp_path}/t?partitions={partitions}") as topic:
        topic.append([b"%d" % n for n in range(6)], keys=[b"%d" % n for n in range(6)])
        tail = Tail(topic)
        found = tail.read()
        assert sorted(record.value for _, record in found) == [b"%d" % n for n in range(6)]
        assert all(partition == topic.partition_of(record.key or b"") for partition, record in found)
        assert tail.read() == []
        topic.append([b"later", b"last"], partition=partitions - 1)
        assert [(p, record.value) for p, record in tail.read(5)] == [
            (partitions - 1, b"later"),
            (partitions - 1, b"last"),
        ]


def test_partitions_that_were_not_asked_for_are_left_out(tmp_path: Path) -> None:
    with open_topic(f"log:{tmp_path}/t?partitions=2") as topic:
        for partition in (0, 1):
            topic.append([b"%d" % partition], partition=partition)
        assert [record.value for _, record in Tail(topic, [1]).read()] == [b"1"]
