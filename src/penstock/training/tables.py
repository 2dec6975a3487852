"""Embedding tables addressed by raw 64-bit keys: what they are told once, and numpy's door to them.

A table's rows appear when their keys are seen and leave when they are stale; nobody builds an ID dictionary. Several
slots (features) may share a table. `docs/adr/0030-embedding-table.md` says what look-ups and updates mean.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, is_dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from penstock import native
from penstock.errors import RequestError, did_you_mean
from penstock.training.faults import TablesFull

Pooling = Literal["sum", "mean", "sqrtn"]
Keys = npt.NDArray[np.int64]
Values = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Sgd:
    """`w -= rate * g`."""

    kind: Literal["sgd"] = field(default="sgd", init=False)


@dataclass(frozen=True)
class Momentum:
    """`m = momentum * m + g; w -= rate * m`, with nesterov `w -= rate * (g + momentum * m)`.

    Rows that are not in a batch stand still, and keep their m.
    """

    momentum: float = 0.9
    nesterov: bool = False
    kind: Literal["momentum"] = field(default="momentum", init=False)


@dataclass(frozen=True)
class Adagrad:
    """torch's: `sum += g^2; w -= rate * g / (sqrt(sum) + epsilon)` (Duchi et al. 2011)."""

    epsilon: float = 1e-10
    initial: float = 0.0
    kind: Literal["adagrad"] = field(default="adagrad", init=False)


@dataclass(frozen=True)
class RowwiseAdagrad:
    """FBGEMM's: one sum a row, of the mean of g^2 over its columns; 4 bytes of state a row."""

    epsilon: float = 1e-8
    initial: float = 0.0
    kind: Literal["rowwise"] = field(default="rowwise", init=False)


@dataclass(frozen=True)
class Adam:
    """torch's SparseAdam: rows that are not in a batch keep their moments (Kingma and Ba 2014).

    The bias correction counts all steps; with `per_row` each row's own.
    """

    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-8
    per_row: bool = False
    kind: Literal["adam"] = field(default="adam", init=False)


@dataclass(frozen=True)
class Ftrl:
    """FTRL-proximal (McMahan et al. 2013); the learning rate is its alpha."""

    beta: float = 1.0
    l1: float = 0.0
    l2: float = 0.0
    kind: Literal["ftrl"] = field(default="ftrl", init=False)


@dataclass(frozen=True)
class UserOptimizer:
    """A function of the user's own: `penstock.training.user_steps.optimizer` makes one.

    `call`: a compiled function, whose `address` is called; `state`: floats a row, `initial` at first.
    """

    call: Any
    state: int = 0
    initial: float = 0.0
    kind: Literal["user"] = field(default="user", init=False)

    def document(self) -> dict[str, Any]:
        return {"kind": self.kind, "address": self.call.address, "state": self.state, "initial": self.initial}


Optimizer = Sgd | Momentum | Adagrad | RowwiseAdagrad | Adam | Ftrl | UserOptimizer


@dataclass(frozen=True)
class Constant:
    value: float = 0.0
    kind: Literal["constant"] = field(default="constant", init=False)


@dataclass(frozen=True)
class Uniform:
    low: float = -0.01
    high: float = 0.01
    kind: Literal["uniform"] = field(default="uniform", init=False)


@dataclass(frozen=True)
class Normal:
    mean: float = 0.0
    deviation: float = 0.01
    kind: Literal["normal"] = field(default="normal", init=False)


@dataclass(frozen=True)
class Truncated:
    """Normal, drawn again beyond two deviations."""

    mean: float = 0.0
    deviation: float = 0.01
    kind: Literal["truncated"] = field(default="truncated", init=False)


@dataclass(frozen=True)
class Count:
    """A key gets its row at its `least`-th sighting; a sketch counts, and is halved every `halve_every` sightings."""

    least: int
    sketch_bytes: int = 1 << 20
    halve_every: int = 10_000_000
    kind: Literal["count"] = field(default="count", init=False)


@dataclass(frozen=True)
class Probability:
    """A key gets its row at each sighting with probability `p`."""

    p: float
    kind: Literal["probability"] = field(default="probability", init=False)


@dataclass(frozen=True)
class Score:
    """Of a row: halved every `half_life_s`, grown by an update's shows and clicks; below `least` the row goes."""

    show_weight: float
    click_weight: float
    half_life_s: int
    least: float


@dataclass(frozen=True)
class Eviction:
    """When a sweep drops a row: as soon as one of these says so. Times are event time, in seconds.

    All but `ttl_s` spare a row that was seen within the last `grace_s` seconds. `policy`: a function of the user's own
    (`penstock.training.user_steps.policy`).
    """

    ttl_s: int | None = None
    least_count: int | None = None
    least_norm: float | None = None
    score: Score | None = None
    policy: Any = None
    grace_s: int = 0

    def document(self) -> dict[str, Any]:
        score = asdict(self.score) if self.score else None
        policy = self.policy.address if self.policy is not None else None
        return {**vars(self), "score": score, "policy": policy}


@dataclass(frozen=True)
class Table:
    """One table. `dim`: values a row, 1 to 512; `dtype`: how they are stored (optimizer state is always f32).

    `missing`: what a key without a row reads; None is init(key) if one sighting admits, else zeros.

    `expected_rows`: takes the memory of so many rows at once, where None grows from nothing: new rows come three times
    as fast, a machine that is too small says so before the first batch, and more rows than expected are as welcome.
    `memory_limit`: bytes; what would pass it is refused. Either way it is `TablesFull` that is raised.
    """

    name: str
    dim: int
    optimizer: Optimizer = RowwiseAdagrad()
    learning_rate: float = 0.05
    init: Constant | Uniform | Normal | Truncated = Uniform()
    admission: Count | Probability | None = None
    eviction: Eviction | None = None
    missing: Literal["zeros", "init"] | None = None
    dtype: Literal["f32", "f16", "bf16"] = "f32"
    clip_value: float | None = None
    clip_norm: float | None = None
    l1: float = 0.0
    l2: float = 0.0
    decay: float = 0.0
    seed: int = 0
    memory_limit: int | None = None
    expected_rows: int | None = None

    def document(self) -> dict[str, Any]:
        return {name: _document(value) for name, value in vars(self).items() if value is not None}


def _finite(table: str, document: Mapping[str, Any]) -> None:
    """Raises `ValueError` naming the first number that is none."""
    for name, value in document.items():
        if isinstance(value, Mapping):
            _finite(table, value)
        elif isinstance(value, float) and not math.isfinite(value):
            raise ValueError(f"table '{table}': {name} is {value}; it must be finite")


@contextmanager
def memory_told() -> Iterator[None]:
    """Tables that have no room are `TablesFull`."""
    try:
        yield
    except MemoryError as error:
        raise TablesFull(str(error)) from None


@contextmanager
def slots_named(names: Sequence[str]) -> Iterator[None]:
    """Native errors tell a slot by its number: here it has its name."""
    try:
        yield
    except ValueError as error:
        number, colon, what = str(error).removeprefix("slot ").partition(": ")
        if colon and number.isdecimal() and int(number) < len(names):
            raise ValueError(f"slot '{names[int(number)]}': {what}") from None
        raise


def _document(value: Any) -> Any:
    if isinstance(value, UserOptimizer | Eviction):
        return value.document()
    return asdict(value) if is_dataclass(value) and not isinstance(value, type) else value


@dataclass(frozen=True)
class Bag:
    """One slot's keys in a batch: sample i has `keys[offsets[i]:offsets[i + 1]]`, each with a weight if given.

    keys: int64 [n] (the bits of a u64), offsets: int64 [samples + 1] from 0 to n, weights: float32 [n] or None.
    """

    keys: Keys
    offsets: Keys
    weights: Values | None = None


class EmbeddingTables:
    """The tables of one model and the slots that read them.

    `slots` maps a slot's name to its table's name; slots of one table share its rows. Keys of a feature plan carry
    their slot in the high bits: with `mapped` those bits are left out, so that slots of one table meet.
    Raises `RequestError` for a slot whose table is not there, `ValueError` for a table that means nothing, `TablesFull`
    if there is no memory for the rows that are expected.
    """

    def __init__(
        self, tables: Sequence[Table], slots: Mapping[str, str], *, mapped: bool = False, threads: int = 0
    ) -> None:
        names = [table.name for table in tables]
        for slot, table in slots.items():
            if table not in names:
                hint = did_you_mean(table, names, f"the tables are {', '.join(names)}")
                raise RequestError(f"slot '{slot}' is of a table '{table}' that is not there", hint)
        self.tables = tuple(tables)
        self.slots = dict(slots)
        #: Whether keys are a feature plan's, with the slot in their high bits.
        self.mapped = mapped
        self._numbers = {slot: number for number, slot in enumerate(slots)}
        self._tables = {slot: tables[names.index(table)] for slot, table in slots.items()}
        for declared in tables:
            _finite(declared.name, declared.document())
            if (declared.expected_rows or 0) < 0:
                raise ValueError(f"table '{declared.name}': expected_rows is {declared.expected_rows}; 0 is the least")
        document = {
            "threads": threads or os.cpu_count() or 1,
            "tables": [table.document() for table in tables],
            "slots": [
                {"slot": self._numbers[slot], "table": names.index(table), "mapped": mapped}
                for slot, table in slots.items()
            ],
        }
        with memory_told():
            self.native = native.Tables(json.dumps(document))
        #: Whether a module applies its gradients in the backward pass, where nothing can come between.
        self.fused = False

    def __repr__(self) -> str:
        rows = ", ".join(f"{t.name}: {n:,} rows" for t, n in zip(self.tables, self.native.rows, strict=True))
        return f"EmbeddingTables({rows})"

    def dim(self, slot: str) -> int:
        return self._table(slot).dim

    @property
    def rows(self) -> dict[str, int]:
        return {table.name: rows for table, rows in zip(self.tables, self.native.rows, strict=True)}

    @property
    def bytes(self) -> dict[str, int]:
        return {table.name: size for table, size in zip(self.tables, self.native.bytes, strict=True)}

    def lookup(self, slot: str, keys: Keys) -> Values:
        """The rows of `keys` (int64 [n]) as float32 [n, dim]. Pure: nothing is inserted, counted or stamped."""
        table = self._table(slot)
        out = np.empty((len(keys), table.dim), dtype=np.float32)
        self.native.lookup(self._numbers[slot], np.ascontiguousarray(keys), out)
        return out

    def update(self, slot: str, keys: Keys, grads: Values, event_time_s: int = 0, **counts: Any) -> dict[str, int]:
        """Sum each key's gradients (float32 [n, dim]) and step its row. `counts`: occurrences (uint32), shows, clicks
        (float32), each [n]. Raises `ValueError` for a gradient that is not finite and `TablesFull` beyond the memory
        limit, and changes nothing then."""
        self._table(slot)
        keys, grads = np.ascontiguousarray(keys), np.ascontiguousarray(grads)
        with memory_told():
            return self.native.update(self._numbers[slot], keys, grads, event_time_s, **counts)

    def pool(self, bags: Mapping[str, Bag], pooling: Pooling = "sum") -> Values:
        """Each slot's bags pooled, side by side in the order given: float32 [samples, sum of dims]."""
        return self.pool_found(bags, pooling)[0]

    def pool_found(
        self, bags: Mapping[str, Bag], pooling: Pooling, keep: bool = False
    ) -> tuple[Values, native.Found | None]:
        """As `pool`, and what was found of the keys if `keep` says so: `stage` takes it."""
        given = self.bags(bags)
        samples = max(len(given[0][2]) - 1, 0) if given else 0
        out = np.empty((samples, sum(map(self.dim, bags))), dtype=np.float32)
        with slots_named(tuple(self.slots)):
            found = self.native.pool(given, pooling, out, keep=keep)
        return out, found

    def pool_apart(
        self, bags: Mapping[str, Bag], pooling: Pooling, lead: int, numbers: Values, keep: bool = False
    ) -> tuple[Values, Values, native.Found | None]:
        """As `pool_found`, but the first `lead` columns of every slot stand apart, [samples, slots x lead], and
        `numbers` (float32 [samples, n]) stand behind the rest, [samples, sum of the other columns + n]."""
        given = self.bags(bags)
        samples, width = numbers.shape[0], sum(map(self.dim, bags)) - lead * len(bags)
        leads = np.empty((samples, lead * len(bags)), dtype=np.float32)
        rest = np.empty((samples, width + numbers.shape[1]), dtype=np.float32)
        with slots_named(tuple(self.slots)):
            found = self.native.pool(given, pooling, rest, lead, leads, rest.shape[1], keep)
        rest[:, width:] = numbers
        return leads, rest, found

    def bags(self, bags: Mapping[str, Bag]) -> list[tuple[int, Keys, Keys, Values | None]]:
        """Bags as the native side takes them."""
        return [(self._number(slot), bag.keys, bag.offsets, bag.weights) for slot, bag in bags.items()]

    def step(self, event_time_s: int = 0) -> dict[str, int]:
        """Apply the gradients that backward passes have staged, each table once. Raises `TablesFull` where new rows
        would pass a memory limit."""
        with memory_told():
            return self.native.step(event_time_s)

    def scale(self, factor: float) -> None:
        """Multiply the staged gradients: to unscale them, or to average over accumulated batches."""
        self.native.scale_staged(factor)

    def drop_staged(self) -> None:
        """Forget the staged gradients."""
        self.native.drop_staged()

    def set_learning_rate(self, table: int, rate: float) -> None:
        """Of table number `table`, from the next step on."""
        self.native.set_learning_rate(table, rate)

    def sweep(self, lines: int) -> int:
        """Visit that many index lines of each table, from where the last sweep stopped, and drop the rows that its
        eviction condemns; returns how many. A line holds up to six keys."""
        return self.native.sweep(lines)

    def _number(self, slot: str) -> int:
        self._table(slot)
        return self._numbers[slot]

    def _table(self, slot: str) -> Table:
        table = self._tables.get(slot)
        if table is None:
            hint = did_you_mean(slot, list(self.slots), f"the slots are {', '.join(self.slots)}")
            raise RequestError(f"there is no slot '{slot}'", hint)
        return table
