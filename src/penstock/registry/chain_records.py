"""Records of a topic into whole deltas: what `chain.py` says of them, and nothing of order between deltas.

In: a topic's records, in order. Out: bases, beginnings of generations and deltas whose every part is there and sound.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from penstock import native
from penstock.errors import PenstockError
from penstock.streams import Record


class ChainHead(NamedTuple):
    """How far a chain is: the delta (generation, sequence) and all before it have been taken in. Heads compare."""

    model: str
    generation: int
    sequence: int


class ChainError(PenstockError):
    """A chain that cannot be written or followed as asked (CHAIN001 to CHAIN010)."""


class Unsound(ChainError):
    """A record that is damaged, incomplete or none (CHAIN001, CHAIN002, CHAIN003); `offset`: where it stands."""

    def __init__(self, message: str, hint: str, code: str, offset: int) -> None:
        self.offset = offset
        super().__init__(message, hint, code)


_KINDS = {
    "foreign": ("CHAIN001", "is this topic the chain's alone? readers go on from its newest base"),
    "damaged": ("CHAIN001", "look at the disk or broker that keeps it; readers go on from the newest base"),
    "version": ("CHAIN002", "update Penstock where it is read; what was applied before goes on being served"),
    "not_finite": ("CHAIN003", "the trainer that wrote it has diverged: stop it and roll back to a good version"),
}


@dataclass(frozen=True)
class Whole:
    """A delta as it came: `records` are its parts, in order. `more`: what the publisher added to its commit record."""

    mark: tuple[int, int, int, int]
    model: str
    plan: str
    base: str
    more: Mapping[str, Any]
    records: tuple[native.ChainRecord, ...]
    first: int
    last: int
    next: int

    @property
    def generation(self) -> int:
        return self.mark[0]

    @property
    def from_(self) -> int:
        return self.mark[1]

    @property
    def to(self) -> int:
        return self.mark[2]

    @property
    def writer(self) -> int:
        return self.mark[3]

    def learnt(self, name: str) -> dict[int, int]:
        """How far an input had been learnt from: partition -> offset of the next record."""
        return {int(partition): int(at) for partition, at in self.more["positions"].get(name, {}).items()}

    @property
    def restores(self) -> ChainHead | None:
        """Of a generation's sequence 1: the cut from which it was recovered; None where it begins from its base."""
        cut = self.more.get("restores")
        return ChainHead(self.model, int(cut[0]), int(cut[1])) if cut else None


@dataclass(frozen=True)
class Base:
    """A materialised base of the chain: the bundle at `address` is the chain as of `head`. Deltas after it begin at
    `offset` or later. `root`: what its generation's deltas call their base."""

    head: ChainHead
    plan: str
    root: str
    address: str
    digest: str
    offset: int


@dataclass(frozen=True)
class Begin:
    """From here on only this generation counts."""

    head: ChainHead
    writer: int


@dataclass(frozen=True)
class Broken:
    """A delta that was committed and whose parts are not all there. Whoever has it already need not care."""

    mark: tuple[int, int, int, int]
    model: str
    offset: int


@dataclass
class Assembler:
    """Puts the parts of one model's deltas together."""

    model: str
    _mark: tuple[int, int, int, int] | None = None
    _parts: list[native.ChainRecord] = field(default_factory=list)
    _first: int = 0

    def take(self, record: Record) -> Whole | Base | Begin | Broken | None:
        """What is complete with this record. Raises `Unsound`."""
        if record.key != self.model.encode():
            return None
        read = self._read(record)
        mark = (read.generation, read.from_, read.to, read.writer)
        if read.kind in ("rows", "dense"):
            if read.part == 0:
                self._mark, self._parts, self._first = mark, [read], record.offset
            elif mark == self._mark and read.part == len(self._parts):
                self._parts.append(read)
            else:  # of a delta whose beginning was not read, or that was given up
                self._mark = None
            return None
        assert read.about is not None
        model, plan, base, more_text = read.about
        more = json.loads(more_text)
        if read.kind == "begin":
            return Begin(ChainHead(model, read.generation, 0), read.writer)
        if read.kind == "base":
            head = ChainHead(model, read.generation, read.to)
            return Base(head, plan, base, str(more["address"]), str(more["digest"]), int(more["offset"]))
        parts = self._parts if mark == self._mark else []
        first = self._first if parts else record.offset
        self._mark, self._parts = None, []
        if not read.covers([part.sum for part in parts]):
            return Broken(mark, model, record.offset)
        return Whole(mark, model, plan, base, more, tuple(parts), first, record.offset, record.offset + 1)

    def _read(self, record: Record) -> native.ChainRecord:
        try:
            return native.ChainRecord(record.value)
        except native.DeltaFault as fault:
            kind, message = fault.args
            code, hint = _KINDS[kind]
            said = f"chain of '{self.model}': the record at offset {record.offset}: {message}"
            raise Unsound(said, hint, code, record.offset) from None
