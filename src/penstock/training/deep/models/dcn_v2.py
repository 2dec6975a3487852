"""DCN-v2 (Wang et al. 2021), parallel: layers that cross features explicitly beside a network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import nn

from penstock.training.deep.models.parts import Axes, Blocks, Inputs, Mlp
from penstock.training.embedding import HashEmbedding, SlotKeys

#: Cross layers; the paper finds two to four enough.
CROSSES = 2


class DcnV2(nn.Module):
    """Each cross layer is `x0 * (U(V x) + b) + x` with a matrix of low rank (the paper's equation 2)."""

    lead = 0

    def __init__(self, inputs: Inputs, hidden: Sequence[int], dropout: float = 0.0, *, rank: int = 64) -> None:
        super().__init__()
        self.rows = HashEmbedding(inputs.tables, inputs.slots, inputs.pooling)
        width = self.rows.width + inputs.numbers
        self.down = nn.ModuleList(nn.Linear(width, min(rank, width), bias=False) for _ in range(CROSSES))
        self.up = nn.ModuleList(nn.Linear(min(rank, width), width) for _ in range(CROSSES))
        self.deep = Mlp(width, hidden, dropout)
        self.out = nn.Linear(width + self.deep.width, 1)

    @staticmethod
    def axes(slots: Blocks, numbers: Blocks) -> Axes:
        read = slots + numbers
        crosses = {f"down.{at}.weight": (1, read) for at in range(CROSSES)}
        crosses |= {f"up.{at}.{part}": (0, read) for at in range(CROSSES) for part in ("weight", "bias")}
        return {**crosses, "deep.layers.0.weight": (1, read), "out.weight": (1, read)}

    def forward(self, keys: Mapping[str, SlotKeys], numbers: torch.Tensor) -> torch.Tensor:
        """Logits: float32 [samples]."""
        _, first = self.rows.beside(keys, numbers)
        crossed = first
        for down, up in zip(self.down, self.up, strict=True):
            crossed = torch.addcmul(crossed, first, up(down(crossed)))
        return self.out(torch.cat([crossed, self.deep(first)], dim=1)).squeeze(1)  # type: ignore[no-any-return]
