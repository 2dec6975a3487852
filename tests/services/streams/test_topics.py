"""What every topic promises, whatever keeps it: the log, Redis, Kafka."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import pytest

from penstock.errors import PenstockError
from penstock.streams import BacklogFull, BeyondEnd, Record, Topic, TopicTrimmed, Unreachable

from .conftest import Backend
from .worker import GROUP

WORKER = Path(__file__).with_name("worker.py")


def everything(topic: Topic, partition: int, offset: int | None = None, **most: int) -> list[Record]:
    found: list[Record] = []
    offset = topic.start(partition) if offset is None else offset
    while True:
        batch = topic.read(partition, offset, **most)
        if not batch.records:
            return found
        assert batch.next > batch.records[-1].offset
        found += batch.records
        offset = batch.next


def test_what_is_appended_reads_back_in_order_from_any_offset(backend: Backend) -> None:
    topic = backend.open()
    assert topic.partitions == 1 and (topic.start(0), topic.end(0)) == (0, 0)
    assert topic.read(0, 0).records == []
    values = [b"", b"\x00\xff", "Grüße".encode(), b"x" * 100_000, *[b"%d" % n for n in range(300)]]
    keys = [None, b"", b"k", *[b"%d" % (n % 3) for n in range(len(values) - 3)]]
    times = [1_700_000_000_000 + n for n in range(len(values))]
    ends = topic.append(values[:4], keys=keys[:4], times_ms=times[:4])
    assert ends == {0: 4}
    assert topic.append(values[4:], keys=keys[4:], times_ms=times[4:]) == {0: len(values)}
    found = everything(topic, 0)
    assert [(r.offset, r.time_ms, r.key, r.value) for r in found] == list(
        zip(range(len(values)), times, keys, values, strict=True)
    )
    for offset in (1, 77, 250, len(values) - 1):
        assert everything(topic, 0, offset) == found[offset:]
    few = topic.read(0, 5, records=3)
    assert (few.records, few.next) == (found[5:8], 8)
    assert topic.read(0, 2, size_bytes=50).records == found[2:3]
    assert topic.read(0, 3, size_bytes=50).records == found[3:4], "one record always"
    assert everything(backend.open(create=False), 0) == found


def test_records_of_a_key_share_a_partition_that_is_the_same_everywhere(backend: Backend) -> None:
    topic = backend.open(partitions=3)
    keys = [b"user-%d" % (n % 20) for n in range(200)]
    ends = topic.append([b"%d" % n for n in range(200)], keys=keys)
    assert {where: topic.end(where) for where in ends} == ends and sum(ends.values()) == 200
    assert [topic.partition_of(key) for key in (b"", b"a", b"user-1")] == [1, 1, 2]
    for partition in range(3):
        found = everything(topic, partition)
        assert all(topic.partition_of(record.key or b"") == partition for record in found)
        numbers = [int(record.value) for record in found]
        assert numbers == sorted(numbers)
    assert topic.append([b"here"], keys=[b"user-1"], partition=2) == {2: topic.end(2)}
    spread = {where for _ in range(6) for where in topic.append([b"no key"])}
    assert spread == {0, 1, 2}
    assert set(topic.poll({0: 0, 1: topic.end(1), 2: 0})) == {0, 2}
    with pytest.raises(PenstockError, match="no partition 3") as wrong:
        topic.read(3, 0)
    assert wrong.value.code == "STRM021"


def test_a_time_finds_the_first_record_as_late(backend: Backend) -> None:
    topic = backend.open()
    numbers = random.Random(3)
    times = [1000 + 10 * n + numbers.randrange(200) for n in range(300)]
    topic.append([b"x"] * 300, times_ms=times)
    for wanted in [1, 1000, *range(1500, 4200, 333), 10_000]:
        expected = next((n for n, time_ms in enumerate(times) if time_ms >= wanted), 300)
        assert topic.seek(0, wanted) == expected, wanted


def test_a_group_goes_on_where_it_committed(backend: Backend) -> None:
    topic = backend.open(partitions=2)
    for partition in (0, 1):
        topic.append([b"%d" % n for n in range(10)], partition=partition)
    assert topic.committed("joiner") == {} and topic.lag("joiner") == 20
    topic.commit("joiner", {1: 4})
    topic.commit("joiner", {0: 10, 1: 5})
    topic.commit("other", {0: 1})
    again = backend.open(create=False)
    assert again.committed("joiner") == {0: 10, 1: 5} and again.lag("joiner") == 5
    with pytest.raises(BeyondEnd) as beyond:
        topic.commit("joiner", {0: 11})
    assert beyond.value.end == 10
    assert again.committed("joiner") == {0: 10, 1: 5}
    with pytest.raises(PenstockError, match="cannot be"):
        topic.commit("no/name", {0: 1})


def test_what_is_trimmed_is_said_to_be_gone_and_what_is_not_there_yet_too(backend: Backend) -> None:
    small = {"segment": "4KiB"} if backend.name == "log" else {}
    topic = backend.open(**small)
    for n in range(0, 200, 10):
        topic.append([b"%d" % m + b"." * 90 for m in range(n, n + 10)], times_ms=[1000 + m for m in range(n, n + 10)])
    reader = backend.open()
    assert len(reader.read(0, 0, records=5).records) == 5
    topic.trim(0, 150)
    start = topic.start(0)
    assert 50 < start <= 150 and topic.end(0) == 200
    with pytest.raises(TopicTrimmed) as gone:
        for _ in range(50):  # what was fetched before may still be given
            reader.read(0, 3, records=5)
            reader.read(0, 60, records=5)
            time.sleep(0.05)
    assert gone.value.start == start
    assert [record.offset for record in everything(reader, 0, start)] == list(range(start, 200))
    assert topic.seek(0, 1) == start and topic.seek(0, 1199) == 199
    with pytest.raises(BeyondEnd) as beyond:
        topic.read(0, 201)
    assert beyond.value.end == 200
    assert topic.append([b"more"]) == {0: 201}


def test_reading_waits_for_a_record_and_no_longer_than_told(backend: Backend) -> None:
    topic, writer = backend.open(), backend.open()
    started = time.monotonic()
    assert topic.read(0, 0, wait_s=0.3).records == []
    assert 0.25 < time.monotonic() - started < 20
    later = threading.Timer(0.3, lambda: writer.append([b"at last"]))
    later.start()
    found = topic.read(0, 0, wait_s=30).records
    later.join()
    assert [record.value for record in found] == [b"at last"]
    later = threading.Timer(0.2, lambda: writer.append([b"again"]))
    later.start()
    assert topic.poll({0: 1}, wait_s=30)[0].records[0].value == b"again"
    later.join()


def test_threads_may_share_a_topic(backend: Backend) -> None:
    topic = backend.open(partitions=2)

    def write(name: bytes) -> None:
        for number in range(30):
            topic.append([b"%d" % number], keys=[name])

    threads = [threading.Thread(target=write, args=(b"thread %d" % n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    found = [record for partition in (0, 1) for record in everything(topic, partition)]
    for n in range(4):
        assert [int(r.value) for r in found if r.key == b"thread %d" % n] == [*range(30)]


def test_sizes_have_bounds_which_are_said(backend: Backend) -> None:
    topic = backend.open()
    large = bytes(16 << 20)
    for values, keys in [([large + b"x"], None), ([b"v"], [bytes((64 << 10) + 1)]), ([large] * 4, None)]:
        with pytest.raises(PenstockError, match=r"bytes") as refused:
            topic.append(values, keys=keys)
        assert refused.value.code == "STRM006"
    for wrong in (0, -5, 1 << 60):
        with pytest.raises(PenstockError, match="no time"):
            topic.append([b"v"], times_ms=[wrong])
    with pytest.raises(ValueError, match="as many"):
        topic.append([b"a", b"b"], keys=[b"k"])
    assert topic.end(0) == 0 and topic.append([]) == {}
    topic.append([b"small", large, b"small"])
    assert [len(record.value) for record in everything(topic, 0)] == [5, 16 << 20, 5]


def test_appends_wait_for_a_reader_that_is_behind(backend: Backend) -> None:
    topic = backend.open(backlog=100, backlog_of="slow", timeout="0.5s")
    topic.append([b"x"] * 60)
    topic.append([b"x"] * 40)
    with pytest.raises(BacklogFull, match="slow is 100 records behind") as full:
        topic.append([b"x"] * 60)
    assert full.value.code == "STRM016" and topic.end(0) == 100
    other = backend.open()
    later = threading.Timer(0.2, lambda: other.commit("slow", {0: 90}))
    later.start()
    assert topic.append([b"x"] * 60) == {0: 160}
    later.join()


def test_a_topic_is_what_it_was_made_as(backend: Backend) -> None:
    with pytest.raises(PenstockError) as absent:
        backend.open(create=False)
    assert absent.value.code == "STRM004"
    assert backend.open(partitions=2).partitions == 2
    assert backend.open().partitions == 2
    with pytest.raises(PenstockError, match="2 partitions, not 3") as other:
        backend.open(partitions=3)
    assert other.value.code == "STRM005"


def test_what_an_acknowledgement_is_worth_is_said_and_checked(backend: Backend) -> None:
    topic = backend.open()
    assert "survive" in topic.durability
    assert topic.append([b"1"], ack="written") == {0: 1}
    topic.append([b"2"], ack="none")
    topic.sync()
    assert topic.end(0) == 2
    if backend.name == "log":
        assert topic.append([b"3"], ack="synced") == {0: 3}
    else:  # neither syncs before it acknowledges, as they run here
        with pytest.raises(PenstockError, match="ack=synced") as refused:
            topic.append([b"3"], ack="synced")
        assert refused.value.code == "STRM019"


@pytest.mark.parametrize("name", ["redis", "kafka"])
def test_a_broker_that_is_away_is_waited_for_and_then_given_up(made: Callable[[str], Backend], name: str) -> None:
    backend = made(name)
    assert backend.broker is not None
    patient = backend.open(timeout="60s")
    hasty = backend.open(timeout="1s")
    assert patient.append([b"before"]) == {0: 1} and hasty.read(0, 0).next == 1
    assert backend.broker.process is not None
    pid = backend.broker.process.pid
    if name == "redis":
        backend.broker.kill()
    else:  # it takes long to start; one that hangs is away as well
        os.kill(pid, signal.SIGSTOP)
    try:
        with pytest.raises(Unreachable) as away:
            hasty.append([b"lost"])
        assert away.value.code == "STRM017"
        with pytest.raises(Unreachable):
            hasty.end(0)
        appended: list[dict[int, int]] = []
        waiting = threading.Thread(target=lambda: appended.append(patient.append([b"during"])))
        waiting.start()
        time.sleep(1)
        assert waiting.is_alive()
    finally:
        if name == "redis":
            backend.broker.start()
        else:
            os.kill(pid, signal.SIGCONT)
    waiting.join(60)
    assert len(appended) == 1
    values = [record.value for record in everything(patient, 0)]
    assert values[0] == b"before" and values.count(b"during") == 1


class Life:
    """A worker that is killed and started again."""

    def __init__(self, role: str, address: str, file: Path) -> None:
        self.role, self.address, self.file, self.life = role, address, file, 0
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self.life += 1
        command = [sys.executable, str(WORKER), self.role, self.address, str(self.file), str(self.life)]
        self.process = subprocess.Popen(command)

    def kill(self) -> None:
        assert self.process is not None
        assert self.process.poll() is None, f"the {self.role} ended by itself"
        self.process.kill()
        self.process.wait()

    def lines(self) -> list[bytes]:
        """What it said, but for a last line that was cut."""
        return self.file.read_bytes().split(b"\n")[:-1] if self.file.exists() else []

    def until_more(self, lines: int) -> None:
        wanted, deadline = len(self.lines()) + lines, time.monotonic() + 60
        while len(self.lines()) < wanted:
            assert time.monotonic() < deadline and self.process is not None and self.process.poll() is None
            time.sleep(0.02)


def killed_again_and_again(backend: Backend, tmp_path: Path, kills: int, broker_kills: int) -> None:
    """Nothing acknowledged is lost, nothing is seen out of order within a key, however often who is killed."""
    small = {"segment": "16KiB"} if backend.name == "log" else {}
    topic = backend.open(partitions=2, **small)
    address = backend.address(timeout="60s", **small)
    writer, reader = (Life(role, address, tmp_path / role) for role in ("write", "read"))
    writer.start()
    reader.start()
    for number in range(kills):
        for life in (writer, reader):
            life.until_more(60)
            life.kill()
            life.start()
        if backend.broker is not None and number < broker_kills:
            writer.until_more(20)
            backend.broker.kill()
            backend.broker.start()
    writer.until_more(60)
    writer.kill()
    acknowledged = {tuple(line.split()) for line in writer.lines()}
    deadline = time.monotonic() + 60
    while topic.lag(GROUP):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    reader.kill()

    there: list[tuple[bytes, bytes]] = []
    for partition in range(2):
        found = [(record.key or b"", record.value) for record in everything(topic, partition)]
        order = defaultdict(list)
        for key, value in found:
            order[key].append(int(value))
        assert all(numbers == sorted(set(numbers)) for numbers in order.values()), "doubled, or out of order"
        there += found
    assert len(acknowledged) > 100 and acknowledged <= set(there)
    seen, order = set(), defaultdict(int)
    for line in reader.lines():
        key, value = line.split()
        if key == b"life":
            order.clear()
            continue
        assert int(value) > order[key], "seen out of order"
        order[key] = int(value)
        seen.add((key, value))
    assert acknowledged <= seen


def test_kills_of_writer_reader_and_broker_lose_nothing(backend: Backend, tmp_path: Path) -> None:
    killed_again_and_again(backend, tmp_path, kills=2, broker_kills=1)


@pytest.mark.soak
def test_fifty_kills_lose_nothing(backend: Backend, tmp_path: Path) -> None:
    killed_again_and_again(backend, tmp_path, kills=50, broker_kills=10)
