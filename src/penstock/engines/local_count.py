"""Counting rows as they pass, without holding anything back.

A counter is a streaming map that returns each morsel untouched; columns that nobody needs are still pruned through
it, filters are not, so it stands only where that costs nothing (see `engines.local`).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from penstock.data.frames import source_of, with_source

if TYPE_CHECKING:
    import polars as pl

#: Seconds between two progress events of one step.
INTERVAL_S = 0.5


@dataclass
class Counter:
    """The rows that passed one point in the latest execution, and the most in any (a later one may stop early)."""

    execution: int = 0
    rows: int = 0
    most: int = 0
    told_at: float = 0.0


@dataclass
class Counters:
    """All counters of a node's run. Morsels arrive from several threads, so every count is under one lock."""

    tell: Callable[[str, int], None]
    execution: int = 0
    _counters: dict[str, Counter] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def next_execution(self) -> None:
        """Rows counted from here on belong to another execution: a frame read twice is not twice as long."""
        with self._lock:
            self.execution += 1

    def through(self, name: str, frame: pl.LazyFrame) -> pl.LazyFrame:
        """The same frame, counted under `name` when it is executed."""
        counter = self._counters.setdefault(name, Counter(told_at=time.monotonic()))

        def add(height: int) -> None:
            now = time.monotonic()
            with self._lock:
                if counter.execution != self.execution:
                    counter.execution, counter.rows = self.execution, 0
                counter.rows += height
                counter.most = max(counter.most, counter.rows)
                due = now - counter.told_at >= INTERVAL_S
                if due:
                    counter.told_at = now
                rows = counter.rows
            if due:
                self.tell(name, rows)

        def count(morsel: pl.DataFrame) -> pl.DataFrame:
            add(morsel.height)
            return morsel

        counted = frame.map_batches(count, streamable=True, projection_pushdown=True, validate_output_schema=False)
        source = source_of(frame)
        return counted if source is None else with_source(counted, source.watched(lambda batch: add(batch.num_rows)))

    def set(self, name: str, rows: int) -> None:
        """Record a count known by other means."""
        with self._lock:
            self._counters.setdefault(name, Counter()).most = rows

    @property
    def rows(self) -> Mapping[str, int]:
        with self._lock:
            return {name: counter.most for name, counter in self._counters.items()}
