"""What the models are made of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from penstock.training.tables import EmbeddingTables, Pooling


@dataclass(frozen=True)
class Inputs:
    """What a model reads. `slots` are slots of `tables`; `numbers`: how many dense columns.

    `history`: slots whose keys are read in order, each with the slot of the item that they are held against.
    """

    tables: EmbeddingTables
    slots: tuple[str, ...]
    numbers: int
    pooling: Pooling = "mean"
    history: tuple[tuple[str, str], ...] = ()


#: Named stretches of an axis: (a slot's or number's name, how long).
Blocks = list[tuple[str, int]]
#: Which axis of which weight runs over what a model reads; a warm start moves weights with the names.
Axes = Mapping[str, tuple[int, Blocks]]


class Numbers(nn.Module):
    """A regression over the numbers: float32 [n, numbers] -> [n], or [1] where there are none."""

    def __init__(self, numbers: int) -> None:
        super().__init__()
        self.weights = nn.Linear(numbers, 1, bias=False) if numbers else None
        self.bias = nn.Parameter(torch.zeros(1))

    def forward(self, numbers: torch.Tensor) -> torch.Tensor:
        return self.bias if self.weights is None else self.weights(numbers).squeeze(1) + self.bias


class Mlp(nn.Module):
    """Linear layers with ReLU between, and dropout: float32 [n, width] -> [n, last of `hidden`]."""

    def __init__(self, width: int, hidden: Sequence[int], dropout: float) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for out in hidden:
            layers += [nn.Linear(width, out), nn.ReLU()]
            if dropout:
                layers.append(nn.Dropout(dropout))
            width = out
        self.layers = nn.Sequential(*layers)
        self.width = width

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layers(x)  # type: ignore[no-any-return]
