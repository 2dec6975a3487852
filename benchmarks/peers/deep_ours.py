"""Penstock's side: its own wide & deep and DeepFM (training.deep.models) on raw 64-bit keys, a table a slot."""

from __future__ import annotations

import gc
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import deep_contender
import deep_net
import numpy as np
import torch
from deep_net import DENSE, DIM, HIDDEN, SLOTS, SPREAD
from deep_reading import Ahead, Batch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from deep_samples import keys_of

from penstock.training.deep.models import MODELS, Inputs
from penstock.training.embedding import step_with
from penstock.training.tables import Adagrad, Bag, EmbeddingTables, Table, Uniform

NAMES = [f"C{i}" for i in range(1, SLOTS + 1)]


class Ours:
    """A row is its key's weight in the wide part and then its embedding: 17 values, found once."""

    version = f"torch {torch.__version__}"

    def __init__(self, question: Mapping[str, Any]) -> None:
        torch.manual_seed(0)
        torch.set_num_threads(2)
        init = Uniform(-SPREAD, SPREAD)
        rows = [Table(name, DIM + 1, Adagrad(), deep_net.ADAGRAD_RATE, init) for name in NAMES]
        self.tables = EmbeddingTables(rows, {name: name for name in NAMES}, threads=2)
        inputs = Inputs(self.tables, tuple(NAMES), DENSE, "sum")
        self.model = MODELS[question["model"]](inputs, HIDDEN)
        self.adam = deep_net.adam(self.model)
        step_with(self.tables, self.adam)
        self._warm(question["sizes"])
        self.batches = Ahead(question["train"], prepare=bags_of)
        gc.collect()
        gc.freeze()  # as the trainer does

    def _warm(self, sizes: list[int]) -> None:
        """Every key's row exists, as the peers' do: a gradient of zero makes it and moves nothing."""
        for slot, size in enumerate(sizes):
            for start in range(0, size, 1 << 20):
                keys = keys_of(slot, np.arange(start, min(size, start + (1 << 20))))
                self.tables.update(NAMES[slot], keys, np.zeros((len(keys), DIM + 1), np.float32))

    @property
    def table_bytes(self) -> int:
        return sum(self.tables.bytes.values())

    def train(self, batches: int) -> None:
        for _ in range(batches):
            bags, dense, labels = next(self.batches)
            loss = deep_net.loss_of(self.model(bags, dense), labels)
            self.adam.zero_grad()
            loss.backward()
            self.adam.step()

    def score(self, ids: Any, dense: Any) -> Any:
        with torch.no_grad():
            bags, numbers, _ = bags_of((ids, dense, dense[:, 0]))
            return self.model(bags, numbers).numpy()


def bags_of(batch: Batch) -> tuple[dict[str, Bag], torch.Tensor, torch.Tensor]:
    keys, dense, labels = batch
    assert dense.shape[1] == DENSE
    each = np.arange(keys.shape[1] + 1, dtype=np.int64)
    bags = {name: Bag(np.ascontiguousarray(own), each) for name, own in zip(NAMES, keys, strict=True)}
    return bags, torch.from_numpy(dense), torch.from_numpy(labels)


if __name__ == "__main__":
    deep_contender.run(Ours)
