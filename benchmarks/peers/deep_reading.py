"""Batches of a Parquet file, read ahead on a thread: one code for ours and for every peer without its own loader."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

BATCH = 4096
AHEAD = 4
SLOTS, DENSE = 26, 13
KEYS = [f"C{i}" for i in range(1, SLOTS + 1)]
NUMBERS = [f"I{i}" for i in range(1, DENSE + 1)]
#: Keys as the file has them, [slots, samples]; numbers float32 [samples, 13]; labels float32 [samples].
Batch = tuple[Any, Any, Any]


def once(path: str, keys: bool = True) -> Iterator[Batch]:
    """The file's samples in order, 4,096 at a time (the last batch is what is left)."""
    columns = [*(KEYS if keys else ()), *NUMBERS, "label"]
    with pq.ParquetFile(path) as file:
        for batch in file.iter_batches(BATCH, columns=columns):
            yield _arrays(batch, keys)


def _arrays(batch: pa.RecordBatch, keys: bool) -> Batch:
    columns = [column.to_numpy(zero_copy_only=True) for column in batch.columns]
    at = SLOTS if keys else 0
    ids = np.stack(columns[:at]) if keys else None
    return ids, np.stack(columns[at : at + DENSE], axis=1), np.array(columns[-1])


class Ahead:
    """The file's batches round and round, a few of them read ahead. `prepare` runs on the reading thread."""

    def __init__(self, path: str, keys: bool = True, prepare: Any = lambda batch: batch) -> None:
        self._waiting: queue.Queue[Any] = queue.Queue(AHEAD)
        self._closed = False

        def read() -> None:
            try:
                while not self._closed:
                    for batch in once(path, keys):
                        self._waiting.put(prepare(batch))
                        if self._closed:
                            return
            except BaseException as error:
                self._waiting.put(error)

        threading.Thread(target=read, daemon=True).start()

    def __next__(self) -> Any:
        found = self._waiting.get()
        if isinstance(found, BaseException):
            raise found
        return found

    def __iter__(self) -> Iterator[Any]:
        return self

    def close(self) -> None:
        self._closed = True
        while not self._waiting.empty():
            self._waiting.get()
