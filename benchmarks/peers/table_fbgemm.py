"""FBGEMM's side of the table benchmark: its CPU table-batched embeddings over ids 0..n, with exact row-wise Adagrad."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import fbgemm_gpu
import torch
from fbgemm_gpu.split_table_batched_embeddings_ops_training import (
    ComputeDevice,
    EmbeddingLocation,
    OptimType,
    PoolingMode,
    SplitTableBatchedEmbeddingBagsCodegen,
)

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from harness import serve
from table_streams import LARGEST, Streams, timed

torch.set_num_threads(1)
torch.set_num_interop_threads(1)
held: dict[str, Any] = {}


def setup(question: Mapping[str, Any]) -> str:
    streams = held["streams"] = Streams(question["folder"], hashed=False)
    held["table"] = SplitTableBatchedEmbeddingBagsCodegen(
        [(streams.rows, streams.dim, EmbeddingLocation.HOST, ComputeDevice.CPU)], pooling_mode=PoolingMode.SUM,
        optimizer=OptimType.EXACT_ROWWISE_ADAGRAD, learning_rate=question["rate"], eps=1e-8, device=torch.device("cpu"),
    )  # fmt: skip
    for weights in held["table"].split_embedding_weights():
        weights.zero_()
    held["offsets"] = torch.arange(LARGEST + 1)
    return f"{fbgemm_gpu.__version__} (torch {torch.__version__})"


def lookup(ids: torch.Tensor) -> torch.Tensor:
    return held["table"](ids, held["offsets"][: len(ids) + 1])


def update(ids: torch.Tensor, grads: torch.Tensor) -> None:
    lookup(ids).backward(grads)


def answer(job: str, **question: Any) -> Mapping[str, Any]:
    streams: Streams = held["streams"]
    if job in ("values", "learn"):
        ids = torch.tensor(question["ids"])
        if job == "learn":
            update(ids, torch.tensor(question["grads"]))
        with torch.no_grad():
            return {"values": lookup(ids).tolist()}
    grads = torch.from_numpy(streams.grads)

    def one(ids: Any) -> None:
        if job == "lookup":
            with torch.no_grad():
                lookup(torch.from_numpy(ids))
        else:
            update(torch.from_numpy(ids), grads[: len(ids)])

    return timed(streams.batches(**question), one, question["seconds"])


if __name__ == "__main__":
    serve(setup, answer)
