"""Looks at the loop from outside while it runs: its topics, its metrics; a thread beside the visitors."""

from __future__ import annotations

import http.client
import re
import threading
import time
import urllib.request
from pathlib import Path
from types import TracebackType
from typing import Self

from penstock.demo.freshness import Freshness, Position, corrections
from penstock.errors import PenstockError
from penstock.registry.chain_reading import ChainTail
from penstock.streams import Record, Tail, open_topic

LOOK_S, ASK_S = 0.05, 0.5
#: What the trainer says of itself: rows by table, samples that were learnt from.
ROWS = re.compile(r"^penstock_online_rows\{.*\} (\S+)$", re.MULTILINE)
SAMPLES = re.compile(r"^penstock_online_samples_total\{.*\} (\S+)$", re.MULTILINE)


class Watch:
    """Reads the chain and the topic of samples, and asks the trainer for its metrics, until the context ends.

    `samples`: records of the sample topic; `learnt`: those of them that the trainer has learnt from; `rows`: of its
    table, `first_rows`: when it began; `evicted`: that left it by deltas.
    """

    def __init__(self, topics: Path, model: str, trainer: str, freshness: Freshness) -> None:
        self.samples = self.learnt = self.rows = self.evicted = 0
        self.first_rows: int | None = None
        self.position: Position = (0, 0)
        self._topics, self._model, self._trainer, self._freshness = topics, model, trainer, freshness
        self._over = threading.Event()
        self._failed: Exception | None = None
        self._thread = threading.Thread(target=self._run, name="penstock-demo-watch", daemon=True)

    @property
    def added(self) -> int:
        """Rows that came since it began."""
        return 0 if self.first_rows is None else self.rows - self.first_rows + self.evicted

    def check(self) -> None:
        """Raises what ended the thread."""
        if self._failed is not None:
            raise self._failed

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join()

    def _run(self) -> None:
        try:
            with (
                open_topic(f"log:{self._topics / 'samples'}", create=False) as samples,
                open_topic(f"log:{self._topics / 'chain'}", create=False) as chain,
            ):
                self._look_on(Tail(samples), ChainTail(chain, self._model))
        except (PenstockError, OSError) as error:
            self._failed = error

    def _look_on(self, samples: Tail, chain: ChainTail) -> None:
        asked = 0.0
        while not self._over.wait(LOOK_S):
            # What a delta covers was appended before it: samples are read after deltas, and told before them.
            deltas = chain.read()
            while found := samples.read():
                self._count(found)
            for delta in deltas:
                self.evicted += sum(part.gone for part in delta.records)
                self.position = (delta.generation, delta.to)
                self._freshness.published(self.position, delta.learnt("samples"))
            if time.monotonic() - asked >= ASK_S:
                self._ask()
                asked = time.monotonic()

    def _count(self, found: list[tuple[int, Record]]) -> None:
        self.samples += sum(bool(record.key) for _, record in found)  # a tick has none
        for id_, partition, offset in corrections(found):
            self._freshness.sampled(id_, partition, offset)

    def _ask(self) -> None:
        try:
            with urllib.request.urlopen(self._trainer, timeout=10) as reply:  # noqa: S310  a port of this machine
                said = reply.read().decode()
        except (OSError, http.client.HTTPException):
            return  # where it is gone, the visitors are told; else it is asked again soon
        self.rows = int(sum(float(found) for found in ROWS.findall(said)))
        self.learnt = int(sum(float(found) for found in SAMPLES.findall(said)))
        if self.first_rows is None:
            self.first_rows = self.rows
