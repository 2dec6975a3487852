"""Penstock's side: raw 64-bit keys, found in a hash table; the dense part is that of the hand-written PyTorch peers."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import deep_contender
import deep_net
import numpy as np
import torch
from deep_net import DENSE, DIM, SLOTS, SPREAD
from deep_reading import Ahead, Batch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from deep_samples import keys_of

from penstock.training.embedding import HashEmbedding, step_with
from penstock.training.tables import Adagrad, EmbeddingTables, Table, Uniform

NAMES = [f"C{i}" for i in range(1, SLOTS + 1)]


class Ours:
    """A row is its key's embedding and its weight in the wide part: 17 values, found once."""

    version = f"torch {torch.__version__}"

    def __init__(self, question: Mapping[str, Any]) -> None:
        torch.manual_seed(0)
        torch.set_num_threads(2)
        row = Table("rows", DIM + 1, Adagrad(), deep_net.ADAGRAD_RATE, Uniform(-SPREAD, SPREAD))
        # Keys of a feature plan have their slot in the high bits: one table holds all slots and nothing meets.
        self.tables = EmbeddingTables([row], dict.fromkeys(NAMES, "rows"), threads=2)
        self.embed = HashEmbedding(self.tables, NAMES)
        self.net = deep_net.Net(question["model"])
        self.adam = deep_net.adam(self.net)
        step_with(self.tables, self.adam)
        self._warm(question["sizes"])
        self.batches = Ahead(question["train"], prepare=torch_batch)

    def _warm(self, sizes: list[int]) -> None:
        """Every key's row exists, as the peers' do: a gradient of zero makes it and moves nothing."""
        for slot, size in enumerate(sizes):
            for start in range(0, size, 1 << 20):
                keys = keys_of(slot, np.arange(start, min(size, start + (1 << 20))))
                self.tables.update(NAMES[slot], keys, np.zeros((len(keys), DIM + 1), np.float32))

    @property
    def table_bytes(self) -> int:
        return self.tables.bytes["rows"]

    def logits(self, keys: torch.Tensor, dense: torch.Tensor) -> torch.Tensor:
        return self.net.on(self.embed(dict(zip(NAMES, keys, strict=True))), dense)

    def train(self, batches: int) -> None:
        for _ in range(batches):
            keys, dense, labels = next(self.batches)
            loss = deep_net.loss_of(self.logits(keys, dense), labels)
            self.adam.zero_grad()
            loss.backward()
            self.adam.step()

    def score(self, ids: Any, dense: Any) -> Any:
        with torch.no_grad():
            return self.logits(torch.from_numpy(ids), torch.from_numpy(dense)).numpy()


def torch_batch(batch: Batch) -> tuple[torch.Tensor, ...]:
    keys, dense, labels = batch
    assert dense.shape[1] == DENSE
    return torch.from_numpy(keys), torch.from_numpy(dense), torch.from_numpy(labels)


if __name__ == "__main__":
    deep_contender.run(Ours)
