"""Embeddings of raw keys in ordinary PyTorch modules.

One native call a batch reads and pools all slots of a module. The backward pass stages gradients in the tables; they
are applied once, by `EmbeddingTables.step` or after each step of the torch optimizer that `step_with` is given, so that
accumulation, unscaling, clipping and the NaN guard come before any row changes, and a module used twice sums.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from penstock.training.tables import Bag, EmbeddingTables, Pooling

#: A slot's keys: [samples] (one each), [samples, n] (n each), or (keys [n], offsets [samples + 1], weights or None).
SlotKeys = torch.Tensor | tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]


class HashEmbedding(nn.Module):
    """Pooled embeddings of raw int64 keys, slot beside slot: float32 [samples, sum of the slots' dims].

    Takes a mapping from slot to `SlotKeys`. `fused` applies gradients in the backward pass itself: less memory, but
    nothing can come between (no clipping by norm, no accumulation, no NaN guard over the whole model), so
    `clip_grad_norm` refuses to see it.
    """

    def __init__(
        self, tables: EmbeddingTables, slots: Sequence[str] = (), pooling: Pooling = "sum", *, fused: bool = False
    ) -> None:
        super().__init__()
        self.tables = tables
        self.slots = tuple(slots or tables.slots)
        self.dims = tuple(tables.dim(slot) for slot in self.slots)
        self.pooling = pooling
        self.fused = fused
        # Gives autograd a reason to come back; no optimizer ever sees it.
        self._anchor = torch.zeros((), requires_grad=True)
        if fused:
            tables.fused = True

    @property
    def width(self) -> int:
        return sum(self.dims)

    def extra_repr(self) -> str:
        return f"{', '.join(self.slots)}: {self.width} columns, {self.pooling}"

    def forward(self, keys: Mapping[str, SlotKeys]) -> torch.Tensor:
        bags = {slot: bag_of(keys[slot]) for slot in self.slots}
        return _Pooled.apply(self._anchor, self, bags)  # type: ignore[no-any-return, no-untyped-call]


class HashSequence(nn.Module):
    """The rows of each sample's keys in order, padded with zeros: float32 [samples, longest, dim] and the mask.

    For attention over a user's history (DIN); share the table with the target item's slot and they meet.
    """

    def __init__(self, tables: EmbeddingTables, slot: str) -> None:
        super().__init__()
        self.slot = slot
        self.rows = HashEmbedding(tables, [slot])

    def forward(self, keys: SlotKeys) -> tuple[torch.Tensor, torch.Tensor]:
        bag = bag_of(keys)
        lengths = torch.from_numpy(np.diff(bag.offsets))
        rows = self.rows({self.slot: torch.from_numpy(bag.keys)})
        mask = torch.arange(int(lengths.max()) if len(lengths) else 0)[None, :] < lengths[:, None]
        padded = rows.new_zeros((*mask.shape, rows.shape[1]))
        return padded.masked_scatter(mask[..., None].expand_as(padded), rows), mask


class _Pooled(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, anchor: torch.Tensor, module: HashEmbedding, bags: dict[str, Bag]) -> torch.Tensor:
        ctx.module, ctx.bags = module, bags
        return torch.from_numpy(module.tables.pool(bags, module.pooling))

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[None, None, None]:
        module: HashEmbedding = ctx.module
        gradient = np.ascontiguousarray(grads[0].detach().to(torch.float32).numpy())
        module.tables.native.stage(module.tables.bags(ctx.bags), module.pooling, gradient)
        if module.fused:
            module.tables.step()
        return None, None, None


def bag_of(keys: SlotKeys) -> Bag:
    """A slot's keys in the native form. Raises `ValueError` for a tensor of another type or shape."""
    if isinstance(keys, tuple):
        flat, cuts, weights = keys
        given = weights.detach().to(torch.float32).contiguous().numpy() if weights is not None else None
        return Bag(_int64(flat), _int64(cuts), given)
    if keys.dim() not in (1, 2):
        raise ValueError(f"keys are [samples] or [samples, n], not of shape {list(keys.shape)}")
    each = keys.shape[1] if keys.dim() == 2 else 1
    return Bag(_int64(keys.reshape(-1)), np.arange(keys.shape[0] + 1, dtype=np.int64) * each)


def _int64(keys: torch.Tensor) -> Any:
    if keys.dtype != torch.int64:
        raise ValueError(f"keys and offsets are int64, not {keys.dtype}; u64 keys keep their bits: .view(torch.int64)")
    return keys.detach().contiguous().numpy()


def step_with(
    tables: EmbeddingTables, optimizer: torch.optim.Optimizer, event_time_s: Callable[[], int] = lambda: 0
) -> Any:
    """Step the tables after each step of the dense part's optimizer; returns the hook's handle.

    `event_time_s` says the batch's event time, which rows are stamped with: a time to live needs it.
    """

    def after_step(*_: Any) -> None:
        tables.step(event_time_s())

    return optimizer.register_step_post_hook(after_step)


def clip_grad_norm(tables: EmbeddingTables, parameters: Iterable[nn.Parameter], most: float) -> float:
    """Scale all gradients, staged and dense, so that their norm together is at most `most`; returns what it was.

    As `torch.nn.utils.clip_grad_norm_`, over rows and dense parameters alike. Raises `ValueError` where the norm is
    not finite (nothing is scaled or applied), or where gradients are fused and so cannot be clipped.
    """
    if tables.fused:
        raise ValueError("a module of these tables is fused: its gradients are applied before they can be clipped")
    dense = [p.grad for p in parameters if p.grad is not None]
    square = tables.native.staged_square_sum() + sum(float(g.detach().double().pow(2).sum()) for g in dense)
    norm = math.sqrt(square) if math.isfinite(square) else math.inf
    if not math.isfinite(norm):
        raise ValueError("the gradients are not finite; nothing was applied")
    if norm > most:
        factor = most / (norm + 1e-6)
        tables.scale(factor)
        for gradient in dense:
            gradient.mul_(factor)
    return norm
