"""Appending to a topic: MB/s and records/s, synced every 50 ms, against Kafka and a bare sequential write.

Ours is `Topic.append` of `log:`, batches of 1 MB; Kafka gets the same batches through librdkafka's `produce_batch` into
one partition of one broker with `log.flush.interval.ms=50`, all acknowledged; raw is `write` and `fdatasync` of the
same bytes. Every measurement ends when the last byte is synced (Kafka: acknowledged). Processor time is both sides'.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import confluent_kafka
import harness
import psutil

from penstock.streams import open_topic

sys.path.insert(0, str(harness.HERE.parent / "tests"))
from services.streams.brokers import Kafka

SIZES = (256, 4096)
BATCH_BYTES = 1 << 20
SYNC_S = 0.05


def batches(size: int, mebibytes: int) -> tuple[list[bytes], int]:
    """One batch of records that differ, and how often it is appended."""
    return [os.urandom(size) for _ in range(BATCH_BYTES // size)], mebibytes


def timed(work: Callable[[], None], mebibytes: int, size: int, others: psutil.Process | None) -> dict[str, float]:
    def spent() -> float:
        own = sum(os.times()[:2])
        return own if others is None else own + sum(others.cpu_times()[:2])

    os.sync()
    cpu, started = spent(), time.perf_counter()
    work()
    seconds, cpu = time.perf_counter() - started, spent() - cpu
    megabytes = mebibytes * BATCH_BYTES / 1e6
    return {f"mb_{size}": megabytes / seconds, f"mb_per_cpu_second_{size}": megabytes / max(cpu, 1e-3)}


def raw(path: Path, batch: list[bytes], times: int) -> None:
    block = b"".join(batch)
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    synced = time.perf_counter()
    for _ in range(times):
        os.write(file, block)
        if time.perf_counter() - synced >= SYNC_S:
            os.fdatasync(file)
            synced = time.perf_counter()
    os.fdatasync(file)
    os.close(file)
    path.unlink()


def ours(path: Path, batch: list[bytes], times: int) -> None:
    with open_topic(f"log:{path}?sync={SYNC_S * 1000:g}ms") as topic:
        for _ in range(times):
            topic.append(batch)
        topic.sync()
    shutil.rmtree(path)


class Peer:
    """A broker, and a producer that stays connected."""

    def __init__(self, folder: Path) -> None:
        every = str(int(SYNC_S * 1000))
        flush = {"log.flush.interval.ms": every, "log.flush.scheduler.interval.ms": every}
        self.broker = Kafka(folder, flush, java=("-Xmx1g",))
        self.broker.start()
        assert self.broker.process is not None
        self.process = psutil.Process(self.broker.process.pid)
        self.producer: Any = confluent_kafka.Producer(
            {
                "bootstrap.servers": f"127.0.0.1:{self.broker.port}",
                "acks": "all",
                "enable.idempotence": True,
                "linger.ms": 5,
                "batch.size": 1_000_000,
                "queue.buffering.max.messages": 1_000_000,
                "queue.buffering.max.kbytes": 256 << 10,
            }
        )
        self.number = 0

    def write(self, batch: list[bytes], times: int) -> None:
        self.number += 1
        name = f"bench{self.number}"
        with open_topic(f"{self.broker.address}/{name}"):
            pass
        for _ in range(times):
            sent = 0
            while sent < len(batch):
                sent += self.producer.produce_batch(name, [{"value": value} for value in batch[sent:]], partition=0)
                if sent < len(batch):
                    self.producer.poll(0.01)
            while len(self.producer) > 100_000:
                self.producer.poll(0.01)
        if self.producer.flush(120):
            raise SystemExit("error: Kafka did not acknowledge within two minutes")

    def same_as(self, folder: Path) -> None:
        """Raise SystemExit unless both give back what they were given."""
        batch = [os.urandom(300) for _ in range(2000)]
        with open_topic(f"{self.broker.address}/same") as theirs, open_topic(f"log:{folder}") as mine:
            found = []
            for topic in (theirs, mine):
                topic.append(batch, times_ms=range(1, 2001))
                records, offset = [], 0
                while len(records) < len(batch):
                    read = topic.read(0, offset, wait_s=5)
                    records, offset = records + read.records, read.next
                found.append(records)
        if found[0] != found[1] or [record.value for record in found[0]] != batch:
            raise SystemExit("error: the log and Kafka do not give back the same records")
        shutil.rmtree(folder)


def main() -> None:
    options = harness.arguments(__doc__)
    mebibytes = {256: 64 if options.quick else 256, 4096: 256 if options.quick else 1024}
    # On a disk, where the working tree is: /tmp may be memory.
    with tempfile.TemporaryDirectory(dir=harness.HERE, prefix=".streams-") as name:
        folder = Path(name)
        peer = Peer(folder / "kafka")
        try:
            peer.same_as(folder / "same")
            given = {size: batches(size, mebibytes[size]) for size in SIZES}

            def each(write: Callable[[list[bytes], int], None], process: psutil.Process | None = None) -> Any:
                def measured() -> dict[str, float]:
                    found: dict[str, float] = {}
                    for size, (batch, times) in given.items():
                        found |= timed(lambda batch=batch, times=times: write(batch, times), times, size, process)
                    return found

                return measured

            contenders = {
                "ours": each(lambda batch, times: ours(folder / "log", batch, times)),
                "raw": each(lambda batch, times: raw(folder / "raw", batch, times)),
                "kafka": each(peer.write, peer.process),
            }
            for write in contenders.values():
                write()  # Java compiles what runs often
            rounds = harness.alternate(contenders, options.rounds)
        finally:
            peer.broker.kill()
    versions = {"raw": "write+fdatasync", "kafka": f"4.1.0, confluent-kafka {version('confluent-kafka')}"}
    found = harness.document("streams", "MB/s", rounds, versions)
    records = {f"records_{size}": harness.figure(found["ours"][f"mb_{size}"] * 1e6 / size) for size in SIZES}
    harness.finish({**found, "records_per_s": records, "mebibytes": mebibytes}, options)


if __name__ == "__main__":
    main()
