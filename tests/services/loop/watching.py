"""What publishing and serving look like from outside: how soon answers cover what was appended, what processes take."""

from __future__ import annotations

import threading
import time
import urllib.request
from bisect import bisect_left
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl

from penstock.registry.chain_records import Assembler, Whole
from penstock.serving.client import Client
from penstock.streams import open_topic

ASK_EVERY_S = 0.02
MB = 1e6


class Freshness:
    """Reads the chain of model "m" and asks its host for `row` over and over, in two threads, until `stop`."""

    def __init__(self, chain: str, port: int, row: pl.DataFrame) -> None:
        self._chain, self._url, self._row = chain, f"http://127.0.0.1:{port}", row
        #: Of each delta: (generation, sequence), and the offset before which it has learnt from all samples.
        self._deltas: list[tuple[tuple[int, int], int]] = []
        self._replies: list[tuple[tuple[int, int], float]] = []
        #: Of all deltas so far.
        self.rows = self.gone = 0
        self._ends = threading.Event()
        self._faults: list[BaseException] = []
        self._threads = [threading.Thread(target=self._guarded, args=(run,)) for run in (self._read, self._ask)]
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        self._ends.set()
        for thread in self._threads:
            thread.join(60)

    def _guarded(self, run: Callable[[], None]) -> None:
        try:
            run()
        except BaseException as error:
            self._faults.append(error)

    def _read(self) -> None:
        assembler = Assembler("m")
        with open_topic(self._chain) as topic:
            at = topic.start(0)
            while not self._ends.is_set():
                batch = topic.read(0, at, wait_s=0.05)
                at = batch.next
                for record in batch.records:
                    found = assembler.take(record)
                    if isinstance(found, Whole):
                        self.rows += sum(part.rows for part in found.records)
                        self.gone += sum(part.gone for part in found.records)
                        reached = int(found.more["positions"]["samples"]["0"])
                        self._deltas.append(((found.generation, found.to), reached))

    def _ask(self) -> None:
        with Client(self._url, timeout_s=60.0) as client:
            while not self._ends.wait(ASK_EVERY_S):
                position = client.infer("m", self._row).position
                assert position is not None
                self._replies.append((position, time.time()))

    def _delta(self, offset: int) -> tuple[int, int] | None:
        """The first delta that has learnt from all before an offset."""
        at = bisect_left(self._deltas, offset, key=lambda delta: delta[1])
        return self._deltas[at][0] if at < len(self._deltas) else None

    def wait_for(self, offset: int, patience_s: float) -> None:
        """Until an answer has learnt from all before an offset."""
        self._until(lambda: self._delta(offset) is not None, patience_s)
        self.wait_for_head(self._delta(offset) or (0, 0), patience_s)

    def wait_for_head(self, head: tuple[int, int], patience_s: float) -> None:
        """Until the host is at a delta, or beyond it."""
        self._until(lambda: bool(self._replies) and self._replies[-1][0] >= head, patience_s)

    def _until(self, holds: Callable[[], bool], patience_s: float) -> None:
        ends = time.monotonic() + patience_s
        while not holds():
            if self._faults:
                raise self._faults[0]
            assert time.monotonic() < ends, f"published: {self._deltas[-1:]}, served: {self._replies[-1:]}"
            time.sleep(0.02)

    def of(self, appended: Sequence[tuple[int, float]]) -> npt.NDArray[np.float64]:
        """Seconds from each append (the offset after it, when it was begun) to the first answer that covers it."""
        heads = [head for head, _ in self._replies]
        found = []
        for offset, when in appended:
            head = self._delta(offset)
            assert head is not None
            found.append(self._replies[bisect_left(heads, head)][1] - when)
        return np.array(found)


def metrics(port: int) -> dict[str, float]:
    """What a process tells, by name; the values of a name with several labels together."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=30) as reply:
        lines = reply.read().decode().splitlines()
    found: dict[str, float] = {}
    for line in lines:
        if line and not line.startswith("#"):
            name, _, value = line.rpartition(" ")
            name = name.partition("{")[0]
            found[name] = found.get(name, 0.0) + float(value)
    return found


def own_memory_mb(pid: int) -> float:
    """Resident, without the files that a process has mapped: those pages are the system's to take back."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("RssAnon:")[2].split()[0]) * 1024 / MB


def size_mb(*folders: Path) -> float:
    """Of the files in them, each once whatever its names."""
    sizes = {}
    for path in (path for folder in folders for path in folder.rglob("*")):
        with suppress(FileNotFoundError):  # it went meanwhile
            found = path.stat()
            sizes[found.st_ino] = found.st_size if path.is_file() else 0
    return sum(sizes.values()) / MB
