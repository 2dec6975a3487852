"""What the trainer's tests train: clicks with a known cause, and an exact record of which sample acted how often."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import torch
from torch import nn

from penstock.training.checkpoints import Checkpoints
from penstock.training.deep.batches import Rows
from penstock.training.deep.models import Inputs, WideDeep
from penstock.training.deep.reading import Reading
from penstock.training.deep.trainer import Settings, Trainer
from penstock.training.embedding import HashEmbedding
from penstock.training.inputs import Layout
from penstock.training.matrices import Encoder
from penstock.training.tables import Adagrad, Constant, EmbeddingTables, Normal, Sgd, Table


def samples(rows: int, seed: int = 0) -> pl.DataFrame:
    """Two slots whose keys have effects of their own, one number, and a key that no other row has."""
    draws = np.random.default_rng(seed)
    user, item = draws.integers(0, 300, rows), draws.integers(0, 100, rows)
    x = draws.normal(size=rows).astype(np.float32)
    effect = np.random.default_rng(1).normal(size=300)[user] + np.random.default_rng(2).normal(size=100)[item] + x
    label = (draws.random(rows) < 1 / (1 + np.exp(-effect))).astype(np.int64)
    return pl.DataFrame(
        {
            "user": [[int(key)] for key in user],
            "item": [[int(key)] for key in item],
            "once": [[key] for key in range(rows)],
            "x": x,
            "label": label,
        }
    )


def execute(frame: pl.LazyFrame) -> Iterator[pa.RecordBatch]:
    for part in frame.collect().iter_slices(1000):
        yield from part.to_arrow().combine_chunks().to_batches()


def reading(frame: pl.DataFrame, **options: Any) -> Reading:
    layout = Layout(numeric=("x",), slots=tuple((name, "") for name in ("user", "item", "once")))
    options = {"batch": 128, **options}
    return Reading(frame.lazy(), execute, Encoder(layout), np.zeros(1), np.ones(1), "label", **options)


class Counted(nn.Module):
    """Wide & deep, and a slot whose gradient is -1 for every sample: at rate 1 its value counts the sample's uses."""

    def __init__(self, tables: EmbeddingTables, dropout: float) -> None:
        super().__init__()
        self.clicks = WideDeep(Inputs(tables, ("user", "item"), 1), [16, 8], dropout)
        self.uses = HashEmbedding(tables, ["once"], "sum")
        self.counted: torch.Tensor | None = None

    def forward(self, keys: Any, numbers: torch.Tensor) -> torch.Tensor:
        self.counted = self.uses(keys)
        return self.clicks(keys, numbers)  # type: ignore[no-any-return]

    def loss(self, logits: torch.Tensor, rows: Rows) -> torch.Tensor:
        assert rows.labels is not None and self.counted is not None
        clicks = nn.functional.binary_cross_entropy_with_logits(logits, torch.from_numpy(rows.labels))
        return clicks - self.counted.sum()


def built(threads: int = 1, dropout: float = 0.2, **table: Any) -> tuple[EmbeddingTables, Counted]:
    torch.manual_seed(3)
    like = {"init": Normal(0.0, 0.1), "optimizer": Adagrad(), **table}
    once = Table("once", 1, Sgd(), 1.0, Constant(0.0))
    tables = EmbeddingTables(
        [Table("user", 5, **like), Table("item", 5, **like), once],
        {"user": "user", "item": "item", "once": "once"},
        threads=threads,
    )
    return tables, Counted(tables, dropout)


def trainer(tables: EmbeddingTables, model: Counted, settings: Settings, **options: Any) -> Trainer:
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    return Trainer(model, tables, optimizer, settings, loss=options.pop("loss", model.loss), **options)


def weights(tables: EmbeddingTables, model: nn.Module) -> dict[str, bytes]:
    """Everything learnt, to the bit."""
    found = {name: value.numpy().tobytes() for name, value in model.state_dict().items()}
    for number, table in enumerate(tables.tables):
        keys, values, state, counts, seen = tables.native.export(number)
        order = np.argsort(np.frombuffer(keys, np.uint64), kind="stable")
        for part, column in (("values", values), ("state", state), ("counts", counts), ("seen", seen)):
            rows = np.frombuffer(column, np.uint8).reshape(len(order), -1)
            found[f"{table.name}.{part}"] = rows[order].tobytes()
    return found


def main(folder: Path, rows: int, threads: int) -> None:
    """Trains from where it was to the end, and says what was learnt; a test kills it on the way."""
    tables, model = built(threads)
    settings = Settings(epochs=2, deterministic=threads == 1, checkpoint_every=1024, threads=threads)
    frame = samples(rows)
    trainer(tables, model, settings).fit(
        reading(frame, shuffle=512), checkpoints=Checkpoints(folder / "cuts", tables, plan="test")
    )
    uses = tables.lookup("once", np.arange(rows))
    np.savez(
        folder / "done.npz", uses=uses, **{k: np.frombuffer(v, np.uint8) for k, v in weights(tables, model).items()}
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
