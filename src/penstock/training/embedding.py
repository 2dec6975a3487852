"""Embeddings of raw keys in ordinary PyTorch modules.

One native call a batch reads and pools all slots of a module. The backward pass stages gradients in the tables; they
are applied once, by `EmbeddingTables.step` or after each step of the torch optimizer that `step_with` is given, so that
accumulation, unscaling, clipping and the NaN guard come before any row changes, and a module used twice sums.
"""

from __future__ import annotations

import functools
import itertools
import math
import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from penstock.training.tables import Bag, EmbeddingTables, Pooling

#: A slot's keys: [samples] (one each), [samples, n] (n each), (keys [n], offsets [samples + 1], weights or None), or
#: the same as numpy arrays in a `Bag`.
SlotKeys = torch.Tensor | tuple[torch.Tensor, torch.Tensor, torch.Tensor | None] | Bag


class HashEmbedding(nn.Module):
    """Pooled embeddings of raw int64 keys, slot beside slot: float32 [samples, sum of the slots' dims].

    Takes a mapping from slot to `SlotKeys`. `fused` applies gradients in the backward pass itself: less memory, but
    nothing can come between (no clipping by norm, no accumulation, no NaN guard over the whole model), so
    `clip_grad_norm` refuses to see it. `beside` gives the first `lead` columns of every row apart from the rest.

    `torch.export` sees one operation, `penstock::pooled`; `penstock.training.deep.export` cuts the model there.
    """

    def __init__(
        self,
        tables: EmbeddingTables,
        slots: Sequence[str] = (),
        pooling: Pooling = "sum",
        *,
        fused: bool = False,
        lead: int = 0,
    ) -> None:
        super().__init__()
        self.tables = tables
        self.slots = tuple(slots or tables.slots)
        self.dims = tuple(tables.dim(slot) for slot in self.slots)
        self.pooling = pooling
        self.fused = fused
        self.lead = lead
        self.number = _known(self)
        # Gives autograd a reason to come back; no optimizer ever sees it.
        self._anchor = torch.zeros((), requires_grad=True)
        if fused:
            tables.fused = True

    @property
    def width(self) -> int:
        return sum(self.dims)

    def columns(self, slot: str) -> slice:
        """Where a slot's columns stand."""
        at = self.slots.index(slot)
        start = sum(self.dims[:at])
        return slice(start, start + self.dims[at])

    def extra_repr(self) -> str:
        return f"{', '.join(self.slots)}: {self.width} columns, {self.pooling}"

    def forward(self, keys: Mapping[str, SlotKeys]) -> torch.Tensor:
        if torch.compiler.is_exporting():
            parts = [csr_of(keys[slot]) for slot in self.slots]
            return torch.ops.penstock.pooled([k for k, _ in parts], [o for _, o in parts], self.number)  # type: ignore[no-any-return]
        bags = {slot: bag_of(keys[slot]) for slot in self.slots}
        return _Pooled.apply(self._anchor, self, bags, torch.is_grad_enabled())  # type: ignore[no-any-return, no-untyped-call]

    def beside(self, keys: Mapping[str, SlotKeys], numbers: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """What a network reads, in one piece: ([samples, slots x lead], [samples, the slots' other columns + numbers]).

        `numbers`: float32 [samples, n], to which no gradient flows. Rows may begin with `lead` weights of their own.
        """
        if not self.slots:
            return numbers.new_zeros((numbers.shape[0], 0)), numbers
        if torch.compiler.is_exporting():
            leads, rest = self._apart(self(keys))
            return leads, torch.cat([rest, numbers], dim=1) if numbers.shape[1] else rest
        bags = {slot: bag_of(keys[slot]) for slot in self.slots}
        return _Beside.apply(self._anchor, self, bags, numbers, torch.is_grad_enabled())  # type: ignore[no-any-return, no-untyped-call]

    def _apart(self, rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        first = [start + at for start in itertools.accumulate((0, *self.dims[:-1])) for at in range(self.lead)]
        rest = sorted(set(range(self.width)) - set(first))
        return rows[:, first], rows[:, rest]


class HashSequence(nn.Module):
    """The rows of each sample's keys in order, padded with zeros: float32 [samples, longest, dim] and the mask.

    For attention over a user's history (DIN); share the table with the target item's slot and they meet. Under
    `torch.export` keys are padded already, (int64 [samples, longest], lengths [samples], None), and the look-up is the
    operation `penstock::rows`.
    """

    def __init__(self, tables: EmbeddingTables, slot: str) -> None:
        super().__init__()
        self.slot = slot
        self.rows = HashEmbedding(tables, [slot])

    def forward(self, keys: SlotKeys) -> tuple[torch.Tensor, torch.Tensor]:
        if torch.compiler.is_exporting():
            assert isinstance(keys, tuple)
            given, lengths, _ = keys
            mask = torch.arange(given.shape[1])[None, :] < lengths[:, None]
            return torch.ops.penstock.rows(given, lengths, self.rows.number), mask
        bag = bag_of(keys)
        lengths = torch.from_numpy(np.diff(bag.offsets))
        each = np.arange(len(bag.keys) + 1, dtype=np.int64)
        rows = self.rows({self.slot: Bag(bag.keys, each, bag.weights)})
        mask = torch.arange(int(lengths.max()) if len(lengths) else 0)[None, :] < lengths[:, None]
        padded = rows.new_zeros((*mask.shape, rows.shape[1]))
        return padded.masked_scatter(mask[..., None].expand_as(padded), rows), mask


class _Pooled(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, anchor: torch.Tensor, module: HashEmbedding, bags: dict[str, Bag], keep: bool
    ) -> torch.Tensor:
        ctx.module, ctx.bags = module, bags
        rows, ctx.found = module.tables.pool_found(bags, module.pooling, keep)
        return torch.from_numpy(rows)

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[None, None, None, None]:
        module: HashEmbedding = ctx.module
        gradient = np.ascontiguousarray(grads[0].detach().to(torch.float32).numpy())
        given = module.tables.bags(ctx.bags)
        module.tables.native.stage(given, module.pooling, gradient, found=ctx.found)
        if module.fused:
            module.tables.step()
        return None, None, None, None


class _Beside(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, anchor: torch.Tensor, module: HashEmbedding, bags: dict[str, Bag], numbers: torch.Tensor, keep: bool
    ) -> tuple[torch.Tensor, torch.Tensor]:
        ctx.module, ctx.bags = module, bags
        given = numbers.detach().numpy()
        leads, rest, ctx.found = module.tables.pool_apart(bags, module.pooling, module.lead, given, keep)
        return torch.from_numpy(leads), torch.from_numpy(rest)

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[None, None, None, None, None]:
        module: HashEmbedding = ctx.module
        leads, rest = (np.ascontiguousarray(grad.detach().to(torch.float32).numpy()) for grad in grads)
        given = module.tables.bags(ctx.bags)
        module.tables.native.stage(given, module.pooling, rest, module.lead, leads, rest.shape[1], ctx.found)
        if module.fused:
            module.tables.step()
        return None, None, None, None, None


# --- what torch.export sees ---


_modules: weakref.WeakValueDictionary[int, HashEmbedding] = weakref.WeakValueDictionary()
_numbers = itertools.count()


def _known(module: HashEmbedding) -> int:
    """A number that an operation finds the module by: operations take tensors and numbers alone."""
    number = next(_numbers)
    _modules[number] = module
    return number


def module_of(number: int) -> HashEmbedding:
    """The module that an exported operation names. Raises `KeyError` once nothing else holds it."""
    return _modules[number]


@torch.library.custom_op("penstock::pooled", mutates_args=())
def _pooled_op(keys: list[torch.Tensor], offsets: list[torch.Tensor], module: int) -> torch.Tensor:
    found = module_of(module)
    bags = {s: Bag(k.numpy(), o.numpy()) for s, k, o in zip(found.slots, keys, offsets, strict=True)}
    return torch.from_numpy(found.tables.pool(bags, found.pooling))


@_pooled_op.register_fake
def _(keys: list[torch.Tensor], offsets: list[torch.Tensor], module: int) -> torch.Tensor:
    return offsets[0].new_empty((offsets[0].shape[0] - 1, module_of(module).width), dtype=torch.float32)


@torch.library.custom_op("penstock::rows", mutates_args=())
def _rows_op(keys: torch.Tensor, lengths: torch.Tensor, module: int) -> torch.Tensor:
    found = module_of(module)
    rows = torch.from_numpy(found.tables.lookup(found.slots[0], keys.reshape(-1).numpy()))
    mask = torch.arange(keys.shape[1])[None, :] < lengths[:, None]
    return rows.reshape(*keys.shape, found.width) * mask[..., None]


@_rows_op.register_fake
def _(keys: torch.Tensor, lengths: torch.Tensor, module: int) -> torch.Tensor:
    return keys.new_empty((*keys.shape, module_of(module).width), dtype=torch.float32)


def csr_of(keys: SlotKeys) -> tuple[torch.Tensor, torch.Tensor]:
    """A slot's keys and offsets as tensors; what they weigh does not matter to a graph."""
    if isinstance(keys, Bag):
        return torch.from_numpy(keys.keys), torch.from_numpy(keys.offsets)
    if isinstance(keys, tuple):
        return keys[0], keys[1]
    each = keys.shape[1] if keys.dim() == 2 else 1
    return keys.reshape(-1), torch.arange(keys.shape[0] + 1) * each


def bag_of(keys: SlotKeys) -> Bag:
    """A slot's keys in the native form. Raises `ValueError` for a tensor of another type or shape."""
    if isinstance(keys, Bag):
        return keys
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


class Stepping:
    """Tables that step with an optimizer, until `remove`."""

    def __init__(
        self, tables: EmbeddingTables, optimizer: torch.optim.Optimizer, event_time_s: Callable[[], int]
    ) -> None:
        self._optimizer = optimizer

        def step(*_: Any) -> None:
            tables.step(event_time_s())

        self._handle = optimizer.register_step_post_hook(step)
        whole = optimizer.zero_grad

        @functools.wraps(whole)
        def zero_grad(*args: Any, **kwargs: Any) -> None:
            tables.drop_staged()
            whole(*args, **kwargs)

        self._zero_grad = zero_grad
        optimizer.zero_grad = zero_grad  # type: ignore[method-assign]

    def remove(self) -> None:
        """The optimizer steps and zeroes alone again."""
        self._handle.remove()
        # Unless somebody has wrapped it once more.
        if vars(self._optimizer).get("zero_grad") is self._zero_grad:
            self._optimizer.zero_grad = self._zero_grad.__wrapped__  # type: ignore[method-assign]


def step_with(
    tables: EmbeddingTables, optimizer: torch.optim.Optimizer, event_time_s: Callable[[], int] = lambda: 0
) -> Stepping:
    """Step the tables after each step of the dense part's optimizer; its `zero_grad` drops what is still staged.

    So a batch that is skipped, by a gradient scaler or by a guard, leaves nothing behind, as with dense gradients.
    `model.zero_grad()` and gradients set to None by hand do not reach the tables: `tables.drop_staged()` does.
    `event_time_s` says the batch's event time, which rows are stamped with: a time to live needs it.
    """
    return Stepping(tables, optimizer, event_time_s)


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
