"""PyTorch's side of the table benchmark: EmbeddingBag(sparse=True) over ids 0..n, with torch's Adagrad."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from harness import serve
from table_streams import LARGEST, Streams, timed

torch.set_num_threads(1)
torch.set_num_interop_threads(1)
held: dict[str, Any] = {}


def setup(question: Mapping[str, Any]) -> str:
    streams = held["streams"] = Streams(question["folder"], hashed=False)
    zeros = torch.zeros(streams.rows, streams.dim)
    held["table"] = torch.nn.EmbeddingBag.from_pretrained(zeros, freeze=False, mode="sum", sparse=True)
    held["optimizer"] = torch.optim.Adagrad(held["table"].parameters(), lr=question["rate"], eps=1e-8)
    held["offsets"] = torch.arange(LARGEST)
    return str(torch.__version__)


def lookup(ids: torch.Tensor) -> torch.Tensor:
    return held["table"](ids, held["offsets"][: len(ids)])


def update(ids: torch.Tensor, grads: torch.Tensor) -> None:
    lookup(ids).backward(grads)
    held["optimizer"].step()
    held["optimizer"].zero_grad()


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
