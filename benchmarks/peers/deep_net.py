"""The dense part that ours and the hand-written PyTorch peers share, so that only the embeddings differ.

Wide & deep (Cheng et al. 2016): a weight a key and a number, plus an MLP over embeddings and numbers. DeepFM (Guo et
al. 2017): the same, plus the factorisation machine's second order over the slots' embeddings.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import torch
from torch import nn

DIM, SLOTS, DENSE = 16, 26, 13
HIDDEN = (256, 128)
ADAM_RATE, ADAGRAD_RATE = 1e-3, 0.05
#: What rows start with, for everybody who can be told.
SPREAD = 0.01


class Net(nn.Module):
    """Logits [samples] of embeddings [samples, 26 * 16], keys' own weights summed [samples], numbers [samples, 13]."""

    def __init__(self, model: str) -> None:
        super().__init__()
        self.fm = model == "deepfm"
        self.line = nn.Linear(DENSE, 1)
        sizes = (SLOTS * DIM + DENSE, *HIDDEN)
        layers: list[nn.Module] = []
        for width, following in pairwise(sizes):
            layers += [nn.Linear(width, following), nn.ReLU()]
        self.deep = nn.Sequential(*layers, nn.Linear(HIDDEN[-1], 1))

    def forward(self, rows: torch.Tensor, wide: torch.Tensor, dense: torch.Tensor) -> torch.Tensor:
        logits = self.deep(torch.cat([rows, dense], 1)).squeeze(1) + self.line(dense).squeeze(1) + wide
        if self.fm:
            fields = rows.view(-1, SLOTS, DIM)
            total = fields.sum(1)
            logits = logits + 0.5 * (total.square().sum(1) - fields.square().sum((1, 2)))
        return logits

    def on(self, rows: torch.Tensor, dense: torch.Tensor) -> torch.Tensor:
        """The same from rows that hold a slot's embedding, its weight, and columns that nothing reads, side by side."""
        slots = rows.view(len(dense), SLOTS, -1)
        return self(slots[:, :, :DIM].reshape(-1, SLOTS * DIM), slots[:, :, DIM].sum(1), dense)  # type: ignore[no-any-return]


def adam(net: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.Adam(net.parameters(), ADAM_RATE, fused=True)


loss_of: Callable[[torch.Tensor, torch.Tensor], torch.Tensor] = nn.functional.binary_cross_entropy_with_logits
