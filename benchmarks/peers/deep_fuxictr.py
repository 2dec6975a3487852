"""FuxiCTR's side: Wide & Deep and DeepFM of its layers (its wheel leaves them out), its NPZ loader, its train_step.

The loader holds all samples in memory and its worker process collates rows one by one. Tables have dense gradients:
each step goes over all rows, as does its clipping of the norm. Numbers are fields with an embedding, as it has them.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import deep_contender
import numpy as np
import pyarrow.parquet as pq
import torch
from deep_net import ADAGRAD_RATE, ADAM_RATE, DIM, HIDDEN
from deep_reading import BATCH, KEYS, NUMBERS
from fuxictr.features import FeatureMap
from fuxictr.pytorch.dataloaders.npz_dataloader import NpzDataLoader
from fuxictr.pytorch.layers import FactorizationMachine, FeatureEmbedding, LogisticRegression, MLP_Block
from fuxictr.pytorch.models import BaseModel


class Model(BaseModel):
    """The linear part and the MLP; with `fm` the second order too."""

    def __init__(self, features: FeatureMap, fm: bool, root: str) -> None:
        super().__init__(features, verbose=0, model_root=root, metrics=["AUC"])
        self.embedding_layer = FeatureEmbedding(features, DIM)
        self.linear = FactorizationMachine(features) if fm else LogisticRegression(features)
        self.fm = fm
        self.mlp = MLP_Block(input_dim=DIM * features.num_fields, hidden_units=list(HIDDEN), output_dim=1)
        self.compile("Adam", "binary_cross_entropy", ADAM_RATE)
        tables = [p for name, p in self.named_parameters() if p.shape[-1] in (1, DIM) and "embedding_layer" in name]
        known = {id(p) for p in tables}
        dense = [p for p in self.parameters() if id(p) not in known]
        self.optimizer = Both(tables, dense)
        self.reset_parameters()

    def forward(self, inputs: Any) -> dict[str, torch.Tensor]:
        x = self.get_inputs(inputs)
        rows = self.embedding_layer(x)
        logits = (self.linear(x, rows) if self.fm else self.linear(x)) + self.mlp(rows.flatten(start_dim=1))
        return {"y_pred": self.output_activation(logits)}


class Both:
    """Adagrad for the tables and Adam for what is above them, as one optimizer; PyTorch's fastest dense steps."""

    def __init__(self, tables: list[torch.Tensor], dense: list[torch.Tensor]) -> None:
        self.parts = (
            torch.optim.Adagrad(tables, ADAGRAD_RATE, fused=True),
            torch.optim.Adam(dense, ADAM_RATE, fused=True),
        )

    def zero_grad(self) -> None:
        for part in self.parts:
            part.zero_grad()

    def step(self) -> None:
        for part in self.parts:
            part.step()


class FuxiCtr:
    version = version("fuxictr")

    def __init__(self, question: Mapping[str, Any]) -> None:
        torch.manual_seed(0)
        torch.set_num_threads(2)
        self.folder = tempfile.TemporaryDirectory()
        self.features = FeatureMap("bench", self.folder.name)
        for name, size in zip(KEYS, question["sizes"], strict=True):
            self.features.features[name] = {"source": "", "type": "categorical", "vocab_size": size}
        for name in NUMBERS:
            self.features.features[name] = {"source": "", "type": "numeric"}
        self.features.labels = ["label"]
        self.features.num_fields = self.features.get_num_fields()
        self.features.set_column_index()
        self.model = Model(self.features, question["model"] == "deepfm", self.folder.name)
        self.model._max_gradient_norm = 10.0  # as `fit` sets it
        self.model.train()
        self.loader = self._loader(question["train"])
        self.batches = self._round()
        self.table_bytes = 3 * sum(question["sizes"]) * (DIM + 1) * 4

    def _loader(self, parquet: str) -> NpzDataLoader:
        """Its own file of the samples: what FuxiCTR's preprocessing leaves."""
        path = Path(self.folder.name) / "samples.npz"
        columns = pq.read_table(parquet)
        np.savez(path, **{name: columns[name].to_numpy() for name in columns.column_names})
        return NpzDataLoader(self.features, str(path), batch_size=BATCH, shuffle=False, num_workers=1)

    def _round(self) -> Iterator[Any]:
        while True:
            yield from self.loader

    def train(self, batches: int) -> None:
        """What `train_epoch` does for each batch."""
        total = 0.0
        for _ in range(batches):
            total += self.model.train_step(next(self.batches)).item()

    def score(self, ids: Any, dense: Any) -> Any:
        columns = dict(zip([*KEYS, *NUMBERS], [*ids, *dense.T], strict=True))
        self.model.eval()
        with torch.no_grad():
            found = self.model({name: torch.from_numpy(np.array(column)) for name, column in columns.items()})
        self.model.train()
        return found["y_pred"].numpy()


if __name__ == "__main__":
    deep_contender.run(FuxiCtr)
