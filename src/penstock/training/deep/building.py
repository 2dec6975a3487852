"""From what a step says to tables, a model and an optimizer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import torch
from torch import nn

from penstock.training.deep.models import MODELS, Inputs
from penstock.training.tables import (
    Adagrad,
    Adam,
    Count,
    EmbeddingTables,
    Eviction,
    Ftrl,
    Normal,
    Optimizer,
    Pooling,
    RowwiseAdagrad,
    Sgd,
    Table,
)

EMBEDDING_OPTIMIZERS: Mapping[str, Optimizer] = {
    "adagrad": Adagrad(),
    "rowwise": RowwiseAdagrad(),
    "adam": Adam(),
    "sgd": Sgd(),
    "ftrl": Ftrl(),
}


@dataclass(frozen=True)
class Parameters:
    """A model as a step describes it. `shared`: slot -> the slot whose table it reads too; `ttl_s`: in event time."""

    model: str
    dim: int = 16
    hidden: tuple[int, ...] = (256, 128)
    dropout: float = 0.0
    pooling: Pooling = "mean"
    history: tuple[tuple[str, str], ...] = ()
    shared: Mapping[str, str] = field(default_factory=dict)
    optimizer: Literal["adam", "adamw", "adagrad", "sgd"] = "adam"
    rate: float = 0.001
    l2: float = 0.0
    embedding_optimizer: str = "adagrad"
    embedding_rate: float = 0.02
    min_count: int = 1
    ttl_s: int | None = None
    memory_limit: int | None = None
    seed: int = 0
    threads: int = 0

    @property
    def lead(self) -> int:
        return int(MODELS[self.model].lead)


@dataclass(frozen=True)
class Built:
    inputs: Inputs
    model: nn.Module
    optimizer: torch.optim.Optimizer


def build(slots: tuple[str, ...], numbers: int, mapped: bool, parameters: Parameters) -> Built:
    """`mapped`: keys carry their slot's id, which slots of one table leave out. Raises `ValueError` for a model that
    means nothing, e.g. DIN without a history."""
    owners = dict(parameters.shared) | dict(parameters.history)
    of = {slot: owners.get(slot, slot) for slot in slots}
    like = Table(
        "like",
        parameters.dim + parameters.lead,
        EMBEDDING_OPTIMIZERS[parameters.embedding_optimizer],
        parameters.embedding_rate,
        Normal(0.0, 0.01),
        Count(parameters.min_count) if parameters.min_count > 1 else None,
        Eviction(ttl_s=parameters.ttl_s) if parameters.ttl_s is not None else None,
        l2=parameters.l2,
        seed=parameters.seed,
        memory_limit=parameters.memory_limit,
    )
    tables = [replace(like, name=name) for name in dict.fromkeys(of.values())]
    stores = EmbeddingTables(tables, of, mapped=mapped, threads=parameters.threads)
    inputs = Inputs(stores, slots, numbers, parameters.pooling, parameters.history)
    torch.manual_seed(parameters.seed)
    made: Any = MODELS[parameters.model]
    model: nn.Module = made(inputs, parameters.hidden, parameters.dropout)
    return Built(inputs, model, dense_optimizer(model, parameters))


def dense_optimizer(model: nn.Module, parameters: Parameters) -> torch.optim.Optimizer:
    own = [p for p in model.parameters() if p.requires_grad]
    rate, l2 = parameters.rate, parameters.l2
    if parameters.optimizer == "sgd":
        return torch.optim.SGD(own, lr=rate, weight_decay=l2, fused=True)
    if parameters.optimizer == "adagrad":
        return torch.optim.Adagrad(own, lr=rate, weight_decay=l2, fused=True)
    if parameters.optimizer == "adamw":
        return torch.optim.AdamW(own, lr=rate, weight_decay=l2, fused=True)
    return torch.optim.Adam(own, lr=rate, weight_decay=l2, fused=True)
