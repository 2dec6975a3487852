"""From a frame to batches, in a thread of its own: what is prefetched are raw batches, never embedding rows.

The same frame, epoch and seed give the same batches, and reading can begin at any row: that is what resuming needs.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Generic, Protocol, Self, TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from penstock.training.deep.batches import Rows, join
from penstock.training.faults import LabelError
from penstock.training.labels import read_labels, read_weights
from penstock.training.matrices import Encoder
from penstock.training.online_scorer import scaled

T = TypeVar("T")
Floats = npt.NDArray[np.float64]
#: Record batches that wait, encoded, for the trainer.
AHEAD = 2


@dataclass
class Reading:
    """How a frame is read. `execute` gives a (Polars) frame's record batches, in order.

    `shuffle`: rows are permuted within blocks of so many, a permutation an epoch; 0 keeps their order (of time).
    """

    frame: Any
    execute: Callable[[Any], Iterable[pa.RecordBatch]]
    encoder: Encoder
    means: Floats
    scales: Floats
    label: str
    weight: str = ""
    time: str = ""
    batch: int = 4096
    shuffle: int = 0
    seed: int = 0
    waited_s: float = 0.0
    _signs: set[bool] = field(default_factory=set)

    @property
    def columns(self) -> list[str]:
        named = (self.label, self.weight, self.time)
        return list(dict.fromkeys((*self.encoder.layout.columns, *(name for name in named if name))))

    def batches(self, epoch: int = 1, skip: int = 0) -> Iterator[Rows]:
        """Batches of `batch` rows, the last one shorter, from row `skip` of the epoch on.

        Raises `DataError` for labels, weights and columns that cannot be learnt from.
        """
        ahead = Prefetched(lambda: self._encoded(epoch, skip), AHEAD)
        with ahead:
            yield from _pieces(ahead, self.batch, join)
        self.waited_s += ahead.waited_s

    def _encoded(self, epoch: int, skip: int) -> Iterator[Rows]:
        begin = skip - skip % self.shuffle if self.shuffle else skip
        at = begin
        frame = self.frame.select(self.columns)
        parts: Iterable[pa.RecordBatch] = self.execute(frame.slice(begin) if begin else frame)
        if self.shuffle:
            parts = self._shuffled(parts, epoch, begin)
        for part in parts:
            rows = self._rows(part, at)
            at += part.num_rows
            if at > skip:
                known = max(0, skip - rows.first)
                yield rows.slice(known, rows.count - known) if known else rows

    def _shuffled(self, parts: Iterable[pa.RecordBatch], epoch: int, begin: int) -> Iterator[pa.RecordBatch]:
        blocks = _pieces(parts, self.shuffle, _one)
        for number, block in enumerate(blocks, begin // self.shuffle):
            draws = np.random.default_rng((self.seed, epoch, number))
            yield block.take(pa.array(draws.permutation(block.num_rows)))

    def _rows(self, part: pa.RecordBatch, first: int) -> Rows:
        labels = self._labels(part, first)
        weights = None
        if self.weight:
            column = part.column(self.weight)
            # Zeros in this batch alone are no fault.
            held = pc.any(pc.not_equal(column, 0)).as_py() or column.null_count
            weights = (read_weights(column, self.weight) if held else np.zeros(len(column))).astype(np.float32)
        times = seconds(part.column(self.time)) if self.time else None
        matrix = self.encoder.encode(part.select(list(self.encoder.layout.columns)))
        numbers = scaled(matrix.numbers, self.means, self.scales)
        return Rows(first, self.encoder, type(matrix)(matrix.rows, numbers, matrix.slots), labels, weights, times)

    def _labels(self, part: pa.RecordBatch, first: int) -> npt.NDArray[np.float32]:
        column = part.column(self.label)
        try:
            labels = read_labels(column, self.label, both=False)
        except LabelError as error:
            raise LabelError(f"{error.message} (rows {first:,} and on)", error.hint, error.code) from None
        if not pa.types.is_boolean(column.type) and len(labels) and not labels.all():
            self._signs.add(bool(pc.min(column).as_py() < 0))
            if len(self._signs) > 1:
                raise LabelError(
                    f"label '{self.label}' mixes -1, 0 and 1; labels are 0 and 1, or -1 and 1", "", "TRAIN002"
                )
        return labels.astype(np.float32)


def seconds(column: pa.Array) -> npt.NDArray[np.int64]:
    """Event time in whole seconds since the epoch: of timestamps, dates, or numbers of seconds. Nulls are 0."""
    if pa.types.is_temporal(column.type):
        column = pc.cast(pc.cast(column, pa.timestamp("s"), safe=False), pa.int64())
    return pc.fill_null(pc.cast(column, pa.int64(), safe=False), 0).to_numpy(zero_copy_only=False)  # type: ignore[no-any-return]


class Prefetched(Generic[T]):
    """An iterator that a thread of its own keeps `ahead` items ahead. What it raises is raised where it is read."""

    _END = object()

    def __init__(self, make: Callable[[], Iterator[T]], ahead: int) -> None:
        self._ready: queue.Queue[Any] = queue.Queue(ahead)
        self._stop = threading.Event()
        self._make = make
        self._thread = threading.Thread(target=self._fill, name="penstock-reading", daemon=True)
        #: Seconds that the reader was waited for.
        self.waited_s = 0.0

    def __enter__(self) -> Prefetched[T]:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        while self._thread.is_alive():
            self._drain()
            self._thread.join(0.05)

    def __iter__(self) -> Iterator[T]:
        while True:
            began = time.monotonic()
            item = self._ready.get()
            self.waited_s += time.monotonic() - began
            if item is self._END:
                return
            if isinstance(item, BaseException):
                raise item
            yield item

    def _fill(self) -> None:
        last: object = self._END
        try:
            for item in self._make():
                if not self._put(item):
                    return
        except BaseException as error:
            last = error
        self._put(last)

    def _put(self, item: object) -> bool:
        while not self._stop.is_set():
            try:
                self._ready.put(item, timeout=0.1)
                return True
            except queue.Full:
                continue
        return False

    def _drain(self) -> None:
        try:
            while True:
                self._ready.get_nowait()
        except queue.Empty:
            pass


class Sliced(Protocol):
    """Rows that can be cut: `Rows`, and Arrow's record batches."""

    def __len__(self) -> int: ...
    def slice(self, offset: int, length: int) -> Self: ...


S = TypeVar("S", bound=Sliced)


def _pieces(parts: Iterable[S], size: int, joined: Callable[[list[S]], S]) -> Iterator[S]:
    """The rows of all parts in pieces of `size`, the last one smaller."""
    held: list[S] = []
    count = 0
    for part in parts:
        at = 0
        while at < len(part):
            taken = part.slice(at, min(len(part) - at, size - count))
            held.append(taken)
            count += len(taken)
            at += len(taken)
            if count == size:
                yield joined(held)
                held, count = [], 0
    if held:
        yield joined(held)


def _one(parts: list[pa.RecordBatch]) -> pa.RecordBatch:
    return pa.Table.from_batches(parts).combine_chunks().to_batches()[0]
