"""Deep Interest Network (Zhou et al. 2018): a user's history weighed by how it meets the item at hand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import nn

from penstock.training.deep.models.parts import Axes, Blocks, Inputs, Mlp
from penstock.training.embedding import HashEmbedding, HashSequence, SlotKeys


class Attention(nn.Module):
    """A weight for each place of a history, from it, the item, their difference and product; not normalised."""

    def __init__(self, dim: int, hidden: int = 36) -> None:
        super().__init__()
        self.score = nn.Sequential(nn.Linear(4 * dim, hidden), nn.PReLU(), nn.Linear(hidden, 1))

    def forward(self, item: torch.Tensor, history: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """item [n, dim], history [n, longest, dim], mask [n, longest] -> [n, dim]."""
        beside = item.unsqueeze(1).expand_as(history)
        weights = self.score(torch.cat([beside, history, beside - history, beside * history], dim=2)).squeeze(2)
        return torch.matmul((weights * mask).unsqueeze(1), history).squeeze(1)


class Din(nn.Module):
    """Each history slot shares the table of the item slot that it is held against."""

    lead = 0

    def __init__(self, inputs: Inputs, hidden: Sequence[int], dropout: float = 0.0) -> None:
        super().__init__()
        if not inputs.history:
            raise ValueError("DIN needs a history: a slot of keys in order, and the slot of the item beside it")
        histories = {name for name, _ in inputs.history}
        self.slots = inputs.slots
        self.rows = HashEmbedding(inputs.tables, [s for s in inputs.slots if s not in histories], inputs.pooling)
        self.histories = nn.ModuleList(HashSequence(inputs.tables, name) for name, _ in inputs.history)
        self.pairs = inputs.history
        dims = [inputs.tables.dim(slot) for slot, _ in inputs.history]
        self.attention = nn.ModuleList(Attention(dim) for dim in dims)
        width = self.rows.width + sum(dims)
        self.deep = Mlp(width + inputs.numbers, hidden, dropout)
        self.out = nn.Linear(self.deep.width, 1)

    @staticmethod
    def axes(slots: Blocks, numbers: Blocks) -> Axes:
        return {"deep.layers.0.weight": (1, slots + numbers)}

    def forward(self, keys: Mapping[str, SlotKeys], numbers: torch.Tensor) -> torch.Tensor:
        """Logits: float32 [samples]."""
        rows = self.rows(keys)
        found = {slot: rows[:, self.rows.columns(slot)] for slot in self.rows.slots}
        for at, (slot, item) in enumerate(self.pairs):
            before, mask = self.histories[at](keys[slot])
            found[slot] = self.attention[at](found[item], before, mask)
        parts = [found[slot] for slot in self.slots]
        if numbers.shape[1]:  # no numbers leave no trace in the graph
            parts.append(numbers)
        return self.out(self.deep(torch.cat(parts, dim=1))).squeeze(1)  # type: ignore[no-any-return]
