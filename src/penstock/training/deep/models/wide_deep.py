"""Wide & Deep (Cheng et al. 2016): a regression over keys and numbers beside a network over their embeddings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import nn

from penstock.training.deep.models.parts import Axes, Blocks, Inputs, Mlp, Numbers
from penstock.training.embedding import HashEmbedding, SlotKeys


class WideDeep(nn.Module):
    """A row holds a key's weight and then its embedding: one look-up serves both parts."""

    #: Columns a row has before its embedding.
    lead = 1

    def __init__(self, inputs: Inputs, hidden: Sequence[int], dropout: float = 0.0) -> None:
        super().__init__()
        self.rows = HashEmbedding(inputs.tables, inputs.slots, inputs.pooling, lead=self.lead)
        self.wide = Numbers(inputs.numbers)
        self.deep = Mlp(self.rows.width - len(inputs.slots) + inputs.numbers, hidden, dropout)
        self.out = nn.Linear(self.deep.width, 1, bias=False)

    @staticmethod
    def axes(slots: Blocks, numbers: Blocks) -> Axes:
        return {"wide.weights.weight": (1, numbers), "deep.layers.0.weight": (1, slots + numbers)}

    def forward(self, keys: Mapping[str, SlotKeys], numbers: torch.Tensor) -> torch.Tensor:
        """Logits: float32 [samples]."""
        weights, read = self.rows.beside(keys, numbers)
        wide = weights.sum(dim=1) + self.wide(numbers)
        deep = self.out(self.deep(read)).squeeze(1)
        return wide + deep  # type: ignore[no-any-return]
