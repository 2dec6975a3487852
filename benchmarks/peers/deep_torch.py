"""The hand-written PyTorch peers; `peer` in the first question says which.

`mlp`: the dense part alone, over 416 numbers that never change (with their gradient, which the dense part owes to
whatever is below it) and the 13 that are read; `mlp_fixed`: the same, without that gradient. `torch`: one
EmbeddingBag(sparse=True) for all slots and Adagrad's sparse steps. `torchrec`: a FusedEmbeddingBagCollection on the
CPU, Adagrad fused into its backward pass (FBGEMM's); row-wise Adagrad is as quick here and ranks .01 worse.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import deep_contender
import deep_net
import numpy as np
import torch
from deep_net import ADAGRAD_RATE, DIM, SLOTS, SPREAD
from deep_reading import BATCH, Ahead, Batch
from torch import nn


class Dense:
    """`mlp` and `mlp_fixed`."""

    version = torch.__version__
    table_bytes = 0
    keys = False

    def __init__(self, question: Mapping[str, Any]) -> None:
        torch.manual_seed(0)
        torch.set_num_threads(2)
        self.net = deep_net.Net(question["model"])
        self.adam = deep_net.adam(self.net)
        self.fixed = (torch.rand(BATCH, SLOTS * DIM) - 0.5) * 2 * SPREAD
        self.fixed.requires_grad_(question["peer"] == "mlp")
        self.begin(question)
        self.batches = Ahead(question["train"], self.keys, self.prepare)

    def begin(self, question: Mapping[str, Any]) -> None:
        self.wide = torch.zeros(BATCH)

    def prepare(self, batch: Batch) -> tuple[Any, torch.Tensor, torch.Tensor]:
        """On the reading thread: the batch as this contender takes it."""
        ids, dense, labels = batch
        return self.ids(ids), torch.from_numpy(dense), torch.from_numpy(labels)

    def ids(self, ids: Any) -> Any:
        return ids

    def logits(self, ids: Any, dense: torch.Tensor) -> torch.Tensor:
        self.fixed.grad = None
        logits: torch.Tensor = self.net(self.fixed, self.wide, dense)
        return logits

    def zero_grad(self) -> None:
        self.adam.zero_grad()

    def step(self) -> None:
        self.adam.step()

    def train(self, batches: int) -> None:
        for _ in range(batches):
            ids, dense, labels = next(self.batches)
            loss = deep_net.loss_of(self.logits(ids, dense), labels)
            self.zero_grad()
            loss.backward()
            self.step()

    def score(self, ids: Any, dense: Any) -> Any:
        with torch.no_grad():
            return self.logits(self.ids(ids), torch.from_numpy(dense)).numpy()


class Sparse(Dense):
    """`torch`: all slots in one table of 17 columns, so that gradients are coalesced and stepped once."""

    keys = True

    def begin(self, question: Mapping[str, Any]) -> None:
        sizes = np.array(question["sizes"])
        self.starts = (np.cumsum(sizes) - sizes).astype(np.int64)[:, None]
        self.rows = nn.EmbeddingBag(
            int(sizes.sum()), DIM + 1, mode="sum", sparse=True, _weight=spread(int(sizes.sum()), DIM + 1)
        )
        self.adagrad = torch.optim.Adagrad(self.rows.parameters(), ADAGRAD_RATE)
        self.table_bytes = 2 * self.rows.weight.numel() * 4
        self.bags = torch.arange(BATCH * SLOTS)

    def ids(self, ids: Any) -> Any:
        return torch.from_numpy((ids + self.starts).T.reshape(-1))

    def logits(self, ids: Any, dense: torch.Tensor) -> torch.Tensor:
        return self.net.on(self.rows(ids, self.bags[: len(ids)]).view(len(dense), -1), dense)

    def zero_grad(self) -> None:
        self.adam.zero_grad()
        self.adagrad.zero_grad()

    def step(self) -> None:
        self.adam.step()
        self.adagrad.step()


class Fused(Dense):
    """`torchrec`: a table a slot, its rows stepped in the backward pass."""

    keys = True

    def begin(self, question: Mapping[str, Any]) -> None:
        from importlib.metadata import version

        from torchrec import EmbeddingBagConfig
        from torchrec.modules.fused_embedding_modules import FusedEmbeddingBagCollection

        self.version = f"{version('torchrec')}, fbgemm {version('fbgemm-gpu-cpu')}"
        # FBGEMM's widths are multiples of four: the wide part's weight is the first of the last four columns.
        self.width = DIM + 4
        self.names = [f"C{i}" for i in range(1, SLOTS + 1)]
        tables = [
            EmbeddingBagConfig(
                name=f"t{name}", embedding_dim=self.width, num_embeddings=size, feature_names=[name],
                weight_init_min=-SPREAD, weight_init_max=SPREAD,
            )
            for name, size in zip(self.names, question["sizes"], strict=True)
        ]  # fmt: skip
        options = {"lr": ADAGRAD_RATE, "eps": 1e-10}
        self.rows = FusedEmbeddingBagCollection(tables, torch.optim.Adagrad, options, device=torch.device("cpu"))
        self.table_bytes = sum(question["sizes"]) * self.width * 2 * 4
        self.lengths = torch.ones(BATCH * SLOTS, dtype=torch.int64)
        self.offsets = torch.arange(BATCH * SLOTS + 1)

    def ids(self, ids: Any) -> Any:
        from torchrec import KeyedJaggedTensor

        values = torch.from_numpy(ids.astype(np.int64).reshape(-1))
        n = len(values)
        return KeyedJaggedTensor(self.names, values, lengths=self.lengths[:n], offsets=self.offsets[: n + 1])

    def logits(self, ids: Any, dense: torch.Tensor) -> torch.Tensor:
        return self.net.on(self.rows(ids).values(), dense)


def spread(rows: int, width: int) -> torch.Tensor:
    return torch.empty(rows, width).uniform_(-SPREAD, SPREAD)


if __name__ == "__main__":
    kinds = {"mlp": Dense, "mlp_fixed": Dense, "torch": Sparse, "torchrec": Fused}
    deep_contender.run(lambda question: kinds[question["peer"]](question))
