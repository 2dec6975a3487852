"""Raw keys in models that were written for consecutive ids: `convert` swaps their embeddings in place.

The model's code stays untouched. What `nn.Embedding` or `nn.EmbeddingBag` held as a weight of ids x dim becomes a
table whose rows appear when their ids are first stepped.
"""

from __future__ import annotations

import gc
import types
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import nn

from penstock.errors import RequestError
from penstock.training.embedding import HashEmbedding
from penstock.training.tables import EmbeddingTables, Table


@dataclass(frozen=True)
class Converted:
    """The tables that took over, and which: (name in the model, dim, the ids it had room for)."""

    tables: EmbeddingTables
    embeddings: tuple[tuple[str, int, int], ...]

    def __str__(self) -> str:
        lines = [f"{name}: dim {dim}, had room for {ids:,} ids" for name, dim, ids in self.embeddings]
        return "\n".join(lines)


def convert(
    model: nn.Module,
    like: Table | None = None,
    *,
    optimizers: Iterable[torch.optim.Optimizer] = (),
    release: bool = False,
    carry: bool = False,
    threads: int = 0,
) -> Converted:
    """Swap every `nn.Embedding` and `nn.EmbeddingBag` of `model` for a table of its own, `like` the one given.

    `like`'s name and dim are set for each; its `optimizer`, `learning_rate`, `init`, admission and eviction are taken.
    A module that the model holds under several names becomes one table. Pass the `optimizers` that were made of the
    model's parameters, so that they are looked at. With `carry` each table begins with the module's weight, as the
    rows of ids 0, 1, ...: for a model that has learnt already. Without, rows begin as `like` says.

    Raises `RequestError` naming every weight that something else holds on to (another parameter's name, an optimizer's
    group, a regulariser's list), since a penalty or a step there would no longer reach the rows; with `release` such
    holders let go of it. A list or dict beside the tree of modules that holds the module itself would go on calling the
    old one: it is named too, and with `release` gets the new one. Also for what a table has no meaning for (`max_norm`,
    `scale_grad_by_freq`, a `padding_idx` in a bag, bags pooled by max, a frozen weight). Nothing is changed when it
    raises.
    """
    found = dict(_embeddings(model))
    if not found:
        raise RequestError("the model has no nn.Embedding and no nn.EmbeddingBag", "nothing there to convert")
    faults = [fault for name, module in found.items() for fault in _unfit(name, module)]
    if faults:
        raise RequestError("; ".join(faults), "leave such options out, or convert the model's other parts by hand")
    groups = [group["params"] for optimizer in optimizers for group in optimizer.param_groups]
    held = {name: list(_holders(model, module, groups)) for name, module in found.items()}
    named = [f"{name}.weight by {what}" for name, holders in held.items() for what, _ in holders]
    outside = _callers(model, found)
    named += [f"a module itself by {_described(holder)}" for holder in outside]
    if named and not release:
        hint = "release=True makes them let go: their penalty or step then leaves the rows out"
        raise RequestError(f"weights are held elsewhere: {', '.join(named)}", hint)

    like = like or Table("like", 1)
    own = {name: replace(like, name=name, dim=int(module.embedding_dim)) for name, module in found.items()}
    tables = EmbeddingTables(list(own.values()), {name: name for name in own}, threads=threads)
    embeddings = tuple((name, own[name].dim, int(module.num_embeddings)) for name, module in found.items())
    if carry:
        for number, module in enumerate(found.values()):
            _fill(tables, number, module.weight)
    for holders in held.values():
        for _, let_go in holders:
            let_go()
    swapped = {id(module): _Swapped(tables, name, module) for name, module in found.items()}
    for parent in list(model.modules()):
        # `named_children` gives a module that has two names only once.
        for child, module in list(parent._modules.items()):
            if id(module) in swapped:
                setattr(parent, child, swapped[id(module)])
    for holder in outside:
        _exchange(holder, swapped)
    return Converted(tables, embeddings)


class _Swapped(nn.Module):
    """Called as the `nn.Embedding` or `nn.EmbeddingBag` that it replaces."""

    def __init__(self, tables: EmbeddingTables, slot: str, module: Any) -> None:
        super().__init__()
        self.slot = slot
        self.embedding_dim, self.num_embeddings = module.embedding_dim, module.num_embeddings
        self.padding_idx = module.padding_idx
        self.bags = isinstance(module, nn.EmbeddingBag)
        self.last = bool(getattr(module, "include_last_offset", False))
        self.rows = HashEmbedding(tables, [slot], module.mode if self.bags else "sum")

    def extra_repr(self) -> str:
        return f"{self.slot}, dim {self.embedding_dim}"

    def forward(
        self, ids: torch.Tensor, offsets: torch.Tensor | None = None, per_sample_weights: torch.Tensor | None = None
    ) -> torch.Tensor:
        ids = ids.long()
        if not self.bags:
            flat: torch.Tensor = self.rows({self.slot: ids.reshape(-1)})
            rows = flat.reshape(*ids.shape, self.embedding_dim)
            # torch's padding row is zeros and takes no gradient.
            return rows if self.padding_idx is None else rows * (ids != self.padding_idx).unsqueeze(-1)
        if offsets is None:
            offsets = torch.arange(ids.shape[0] + 1) * ids.shape[1]
        elif not self.last:
            offsets = torch.cat([offsets, offsets.new_tensor([ids.numel()])])
        weights = None if per_sample_weights is None else per_sample_weights.reshape(-1)
        return self.rows({self.slot: (ids.reshape(-1), offsets.long(), weights)})  # type: ignore[no-any-return]


def _embeddings(model: nn.Module) -> Iterator[tuple[str, Any]]:
    """Each embedding once, under the first of its names."""
    for name, module in model.named_modules():
        if isinstance(module, nn.Embedding | nn.EmbeddingBag):
            yield name, module


def _unfit(name: str, module: Any) -> Iterator[str]:
    if module.max_norm is not None:
        yield f"{name} renormalises its rows (max_norm)"
    if not module.weight.requires_grad:
        yield f"{name} is frozen, a table's rows would learn"
    if module.scale_grad_by_freq:
        yield f"{name} scales gradients by frequency"
    if isinstance(module, nn.EmbeddingBag) and module.mode == "max":
        yield f"{name} pools by max"
    if isinstance(module, nn.EmbeddingBag) and module.padding_idx is not None:
        yield f"{name} leaves out padding_idx in its bags"


def _holders(model: nn.Module, module: Any, groups: list[list[Any]]) -> Iterator[tuple[str, Callable[[], object]]]:
    """Who else holds the weight: what it is, and how to make it let go."""
    weight = module.weight
    for name, parameter in model.named_parameters(remove_duplicate=False):
        if parameter is weight and model.get_submodule(name.rpartition(".")[0]) is not module:
            raise RequestError(
                f"{name} is the same parameter as an embedding's weight", "tied weights cannot become a table"
            )
    for number, group in enumerate(groups):
        if any(parameter is weight for parameter in group):
            yield f"parameter group {number} of an optimizer", partial(_remove, group, weight)
    known = {id(group) for group in groups} | {id(part._parameters) for part in model.modules()}
    for holder in gc.get_referrers(weight):
        if id(holder) in known:
            continue
        if isinstance(holder, tuple):  # a (name, parameter), as named_parameters() gives them
            for outer in gc.get_referrers(holder):
                if isinstance(outer, list) and not _is_local(outer):
                    yield f"a list of {len(outer)} that something keeps", partial(_remove, outer, holder)
        elif isinstance(holder, list) and not _is_local(holder):
            yield f"a list of {len(holder)} that something keeps", partial(_remove, holder, weight)
        elif isinstance(holder, dict) and not _is_local(holder):
            keys = [key for key, value in holder.items() if key is weight or value is weight]
            yield "a dict that something keeps", partial(_forget, holder, keys)


def _callers(model: nn.Module, found: dict[str, Any]) -> list[list[Any] | dict[Any, Any]]:
    """Lists and dicts outside the tree of modules that hold one of the modules found, and so might call it."""
    known = {id(part._modules) for part in model.modules()} | {id(found)}
    holders = {id(h): h for h in gc.get_referrers(*found.values()) if isinstance(h, list | dict) and id(h) not in known}
    return [holder for holder in holders.values() if not _is_local(holder)]


def _exchange(holder: list[Any] | dict[Any, Any], swapped: dict[int, _Swapped]) -> None:
    for place, held in list(holder.items() if isinstance(holder, dict) else enumerate(holder)):
        if id(held) in swapped:
            holder[place] = swapped[id(held)]


def _described(holder: list[Any] | dict[Any, Any]) -> str:
    return f"a {type(holder).__name__} of {len(holder)} that something keeps"


def _fill(tables: EmbeddingTables, table: int, weight: torch.Tensor) -> None:
    """Rows 0, 1, ... as the weight has them, with fresh state."""
    ids = np.arange(len(weight), dtype=np.int64)
    never = np.zeros(len(weight), dtype=np.uint32)
    values = np.ascontiguousarray(weight.detach().to(torch.float32).numpy())
    tables.native.put(table, ids, values, np.zeros(0, dtype=np.float32), never, never)


def _remove(holder: list[Any], what: Any) -> None:
    holder[:] = [held for held in holder if held is not what]


def _forget(holder: dict[Any, Any], keys: list[Any]) -> None:
    for key in keys:
        holder.pop(key, None)


def _is_local(holder: object) -> bool:
    """Whether only running functions know it."""
    return all(isinstance(referrer, types.FrameType) for referrer in gc.get_referrers(holder))
