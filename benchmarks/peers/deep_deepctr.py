"""DeepCTR-Torch's side: its WDL and DeepFM, its fit loop; no regularisation, so that its tables are not read for that.

It has no sparse gradients: each step goes over all rows. They get PyTorch's fastest dense steps (fused=True).
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import version
from typing import Any

import deep_contender
import numpy as np
import torch
from deep_net import ADAGRAD_RATE, ADAM_RATE, DIM, HIDDEN, SPREAD
from deep_reading import BATCH, KEYS, NUMBERS, Ahead, Batch
from deepctr_torch.inputs import DenseFeat, SparseFeat
from deepctr_torch.models import WDL, DeepFM
from torch import nn


class Both:
    """Adagrad for the tables and Adam for what is above them, as one optimizer."""

    def __init__(self, model: nn.Module) -> None:
        tables = [p for name, p in model.named_parameters() if "embedding_dict" in name]
        known = {id(p) for p in tables}
        dense = [p for p in model.parameters() if id(p) not in known]
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


class DeepCtr:
    version = version("deepctr-torch")

    def __init__(self, question: Mapping[str, Any]) -> None:
        torch.set_num_threads(2)
        slots = [SparseFeat(n, size, embedding_dim=DIM) for n, size in zip(KEYS, question["sizes"], strict=True)]
        columns = [*slots, *(DenseFeat(n, 1) for n in NUMBERS)]
        kind = DeepFM if question["model"] == "deepfm" else WDL
        plain = {"l2_reg_linear": 0, "l2_reg_embedding": 0, "init_std": SPREAD}
        self.model = kind(columns, columns, dnn_hidden_units=HIDDEN, **plain)
        # init_std is that of its layers too, whose first would hardly learn: they get PyTorch's usual start.
        for layer in self.model.dnn.modules():
            if isinstance(layer, nn.Linear):
                layer.reset_parameters()
        self.model.compile(Both(self.model), "binary_crossentropy")
        self.batches = Ahead(question["train"], prepare=table)
        self.table_bytes = 3 * sum(question["sizes"]) * (DIM + 1) * 4

    def train(self, batches: int) -> None:
        """One call of `fit`: its loop over what was read for it, as one float array the way it keeps samples."""
        x, y = zip(*(next(self.batches) for _ in range(batches)), strict=True)
        self.model.fit([np.concatenate(x)], np.concatenate(y), batch_size=BATCH, epochs=1, verbose=0, shuffle=False)

    def score(self, ids: Any, dense: Any) -> Any:
        return self.model.predict([table((ids, dense, None))[0]], BATCH)


def table(batch: Batch) -> tuple[Any, Any]:
    ids, dense, labels = batch
    return np.concatenate([ids.T.astype(np.float32), dense], axis=1), labels


if __name__ == "__main__":
    deep_contender.run(DeepCtr)
