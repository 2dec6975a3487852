"""What the table benchmark and its peers share: the files of keys, batches of them, and how a slice is timed."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

#: Gradients are made for batches up to this size.
LARGEST = 65_536


class Streams:
    """`ids.uniform.npy`, `ids.zipf.npy`: ranks 0..rows in the order drawn; `keys.npy`: the raw key of each rank.

    `hashed` contenders get keys, the others ranks. A stream goes on where its last slice ended.
    """

    def __init__(self, folder: str, hashed: bool = True) -> None:
        self.keys = np.load(Path(folder, "keys.npy"))
        self.grads = np.load(Path(folder, "grads.npy"))
        self.rows, self.dim = len(self.keys), self.grads.shape[1]
        draws = {kind: np.load(Path(folder, f"ids.{kind}.npy")) for kind in ("uniform", "zipf")}
        self._streams = {kind: self.keys[ids] if hashed else ids for kind, ids in draws.items()}
        self._at = dict.fromkeys(self._streams, 0)

    def batches(self, kind: str, batch: int, seconds: float = 0.0) -> Iterator[Any]:
        """Batches without an end."""
        stream = self._streams[kind]
        while True:
            at = self._at[kind] if self._at[kind] + batch <= len(stream) else 0
            self._at[kind] = at + batch
            yield stream[at : at + batch]

    def parts(self, first: int, count: int, batch: int) -> Iterator[Any]:
        """The keys of ranks first..first + count."""
        for at in range(first, first + count, batch):
            yield self.keys[at : min(at + batch, first + count)]


def timed(batches: Iterable[Any], one: Callable[[Any], object], seconds: float | None) -> Mapping[str, float]:
    """Keys, and seconds of processor time of all threads, of a slice that lasts `seconds` (None: to the end)."""
    done = 0
    started = time.process_time()
    taken = 0.0
    for keys in batches:
        one(keys)
        done += len(keys)
        taken = time.process_time() - started
        if seconds is not None and taken >= seconds:
            break
    return {"keys": done, "seconds": taken}
