"""DeepFM (Guo et al. 2017): a factorisation machine and a network over the same embeddings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import nn

from penstock.training.deep.models.parts import Axes, Blocks, Inputs, Mlp, Numbers
from penstock.training.embedding import HashEmbedding, SlotKeys


class DeepFM(nn.Module):
    """A row holds a key's first-order weight and then its factors, of one dim in all slots."""

    lead = 1

    def __init__(self, inputs: Inputs, hidden: Sequence[int], dropout: float = 0.0) -> None:
        super().__init__()
        self.rows = HashEmbedding(inputs.tables, inputs.slots, inputs.pooling, lead=self.lead)
        self.slots = len(inputs.slots)
        if len(set(self.rows.dims)) > 1:
            raise ValueError(
                f"the slots' dims must be one for a factorisation machine, not {sorted(set(self.rows.dims))}"
            )
        self.factors = self.rows.width - self.slots
        self.linear = Numbers(inputs.numbers)
        self.deep = Mlp(self.factors + inputs.numbers, hidden, dropout)
        self.out = nn.Linear(self.deep.width, 1, bias=False)

    @staticmethod
    def axes(slots: Blocks, numbers: Blocks) -> Axes:
        return {"linear.weights.weight": (1, numbers), "deep.layers.0.weight": (1, slots + numbers)}

    def forward(self, keys: Mapping[str, SlotKeys], numbers: torch.Tensor) -> torch.Tensor:
        """Logits: float32 [samples]."""
        weights, read = self.rows.beside(keys, numbers)
        factors = read[:, : self.factors]
        first = weights.sum(dim=1) + self.linear(numbers)
        each = factors.unflatten(1, (self.slots, self.factors // max(1, self.slots)))  # type: ignore[no-untyped-call]
        # The sum over pairs of products, in linear time (Rendle 2010, lemma 3.1).
        pairs = 0.5 * (each.sum(dim=1).square().sum(dim=1) - factors.square().sum(dim=1))
        deep = self.out(self.deep(read)).squeeze(1)
        return first + pairs + deep  # type: ignore[no-any-return]
