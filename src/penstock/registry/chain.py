"""A model's chain in a topic: the trainer's changed rows and dense weights, numbered, for hosts to apply (ADR 0043).

In: embedding tables that keep what changed for the consumer "chain". Out: deltas, whole or not at all, in order, and none
of a generation that another has taken over from. `chain_records.py` puts records together; docs/live-parameters.md tells it.
"""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from penstock import native
from penstock.registry.chain_records import Assembler, Base, Begin, Broken, ChainError, ChainHead, Unsound, Whole
from penstock.streams import Record, Topic, TopicTrimmed

__all__ = [
    "Base", "ChainError", "ChainHead", "Delta", "Fenced", "Gap", "Published", "Publisher", "Rebase", "Standing",
    "Unsound", "Whole", "newest_base", "read", "records",
]  # fmt: skip

#: Under this name the tables keep what changed since the last delta.
CONSUMER = "chain"
#: Bytes of a record, and of the records of one append.
RECORD_BYTES, APPEND_BYTES = 8 << 20, 48 << 20

Keys = npt.NDArray[np.int64]
Values = npt.NDArray[np.float32]


class Fenced(ChainError):
    """A later generation writes this chain; this process is the older one (CHAIN007)."""


class Gap(ChainError):
    """A delta does not follow on what was applied (CHAIN006): the reader goes on from the newest base."""


class Rebase(ChainError):
    """A generation begins from a base of its own (CHAIN009): the reader goes on from that."""


class Published(NamedTuple):
    """What one delta was. first, last: offsets within which its records are. bytes: of its records, keys left out."""

    sequence: int
    first: int
    last: int
    rows: int
    gone: int
    bytes: int


@dataclass(frozen=True)
class Delta:
    """One delta, read. It stands for the sequence numbers `from_` to `to`, and leads to `to`.

    rows: table number -> keys int64 [n] (the bits of a u64), values float32 [n, dim]. gone: table number -> keys int64 [n].
    dense: weight by name; None where the delta has none. positions: input -> partition -> offset.
    restores: of a generation's first delta, the head at which it was recovered.
    """

    model: str
    generation: int
    from_: int
    to: int
    rows: Mapping[int, tuple[Keys, Values]]
    gone: Mapping[int, Keys]
    dense: Mapping[str, Values] | None
    positions: Mapping[str, Mapping[int, int]]
    event_time_ms: int
    restores: ChainHead | None
    first: int
    last: int

    @property
    def sequence(self) -> int:
        return self.to

    @property
    def head(self) -> ChainHead:
        return ChainHead(self.model, self.generation, self.to)


class Publisher:
    """Writes one generation of a model's chain. One thread at a time uses it; steps of the tables may go on in others.

    topic: any topic; the chain's records have the model's name as their key. plan: the feature plan's fingerprint.
    base: the digest of the bundle from which the generation's rows come. values: f16 rounds rows to the nearest half.

    A generation begins with `restore`, or, from its base alone, with `publish`: hosts that follow an older one then load
    that base first. `track` comes before the first step after the base was read. After an error that says that
    nothing was acknowledged, publish again: nothing is lost or doubled.
    """

    def __init__(
        self,
        topic: Topic,
        model: str,
        generation: int,
        *,
        plan: str,
        base: str,
        values: Literal["f32", "f16"] = "f32",
    ) -> None:
        if not model or generation < 1:
            raise ValueError("a chain has a model's name, and generations from 1")
        if values not in ("f32", "f16"):
            raise ValueError(f"values are f32 or f16, not {values}")
        self.topic, self.generation = topic, generation
        self.model, self.plan, self.base = model, plan, base
        self.partition = topic.partition_of(model.encode())
        self._half = values == "f16"
        self._writer = secrets.randbits(63) + 1
        #: The last sequence number that may be in the topic, and the last that is known to be.
        self._tried = self._sequence = 0
        #: Up to here the topic was looked at for other writers; None: the generation has not begun.
        self._seen: int | None = None

    @property
    def head(self) -> ChainHead:
        return ChainHead(self.model, self.generation, self._sequence)

    def track(self, tables: native.Tables) -> None:
        """The tables hold the base now: what changes from here on is published."""
        native.track_changes(tables, CONSUMER)

    def publish(
        self,
        tables: native.Tables,
        *,
        dense: Mapping[str, npt.NDArray[Any]] | None = None,
        positions: Mapping[str, Mapping[int, int]],
        event_time_ms: int,
    ) -> Published:
        """Publish what changed since the last delta: rows, tombstones, and dense weights if given (all of them).

        tables: the handle (`EmbeddingTables.native`). positions: how far every input has been learnt.
        Costs what the changed rows cost. Raises `Fenced` (CHAIN007), `ChainError` CHAIN003 for weights that are no
        numbers, CHAIN004 for tables that are not tracked, CHAIN005 for changes that were forgotten, and `StreamError`.
        """
        self._begin(None)
        return self._write(tables, [], dense, positions, event_time_ms, None)

    def restore(
        self,
        tables: native.Tables,
        *,
        after: ChainHead,
        offset: int | None = None,
        dense: Mapping[str, npt.NDArray[Any]] | None,
        positions: Mapping[str, Mapping[int, int]],
        event_time_ms: int,
    ) -> Published:
        """Begin a generation with tables as they were at a cut: sequence 1 has every key that deltas after the cut named,
        with its row as it is now, or a tombstone; and what changed before the cut and was not yet published.

        after: the head at the cut. offset: of the record after that delta, where it is known; else all of the topic is
        read. Raises `ChainError` CHAIN010 where deltas after the cut are no longer kept, and what `publish` raises.
        """
        if self._sequence or self._tried:
            raise ValueError("restore comes before anything is published")
        self._begin(offset)
        assert self._seen is not None
        named: dict[int, set[int]] = {}
        try:
            for delta in read(self.topic, after, offset=offset, end=self._seen):
                for table, (keys, _) in delta.rows.items():
                    named.setdefault(table, set()).update(keys.tolist())
                for table, keys in delta.gone.items():
                    named.setdefault(table, set()).update(keys.tolist())
        except (TopicTrimmed, Gap) as error:
            raise ChainError(
                f"chain of '{self.model}': not every delta after {after.generation}:{after.sequence} is kept: {error}",
                "restore a later checkpoint, or begin a generation from a new base (publish without restore)",
                "CHAIN010",
            ) from None
        lists = [np.array(sorted(named.get(table, ())), np.int64) for table in range(max(named, default=-1) + 1)]
        return self._write(tables, lists, dense, positions, event_time_ms, after)

    def announce(self, address: str, *, digest: str, sequence: int, offset: int) -> int:
        """Tell readers of a materialised base: the bundle at `address` (a path, an fsspec URL, models:/...) is the chain
        as of `sequence`, and deltas after it begin at `offset` (`Published.last` + 1). Returns the record's offset."""
        self._begin(None)
        mark = (self.generation, sequence, sequence, self._writer)
        note = json.dumps({"address": address, "digest": digest, "offset": offset})
        at = self._append([native.chain_note("base", mark, (self.model, self.plan, self.base, note))])[0]
        self.topic.commit(_base_group(self.model), {self.partition: at})
        return at

    def trim(self, offset: int) -> None:
        """Let go of records before an offset: that of the oldest base that is kept (`Base.offset`)."""
        self.topic.trim(self.partition, offset)

    # --- how it is written ---

    def _begin(self, offset: int | None) -> None:
        """Once: fence older generations, and find out whether this is one."""
        if self._seen is not None:
            return
        start = self.topic.start(self.partition)
        known = self.topic.committed(_begin_group(self.model)).get(self.partition, start)
        self._look(max(start, known if offset is None else min(known, offset)))
        mark = (self.generation, 0, 0, self._writer)
        at = self._append([native.chain_note("begin", mark, (self.model, self.plan, self.base, "{}"))])[0]
        self.topic.commit(_begin_group(self.model), {self.partition: at})

    def _look(self, offset: int) -> None:
        """Look at what others wrote from an offset on. Raises `Fenced`."""
        end = self.topic.end(self.partition)
        if offset < end:
            for record in records(self.topic, self.partition, offset, end):
                if record.key != self.model.encode():
                    continue
                try:
                    found = native.ChainRecord(record.value)
                except native.DeltaFault:
                    continue  # readers are told of it
                other = found.generation == self.generation and found.writer != self._writer
                if found.generation > self.generation or other:
                    raise Fenced(
                        f"chain of '{self.model}': generation {found.generation} is written by another trainer, and this "
                        f"one is of generation {self.generation}",
                        "this process is the older one: end it; to take over, start a trainer with a higher generation",
                        "CHAIN007",
                    )
        self._seen = end

    def _append(self, written: Sequence[bytes]) -> tuple[int, int]:
        """The offsets within which they are."""
        if self._seen is not None:
            self._look(self._seen)
        first = end = self.topic.end(self.partition)
        at = 0
        while at < len(written):
            until, size = at + 1, len(written[at])
            while until < len(written) and size + len(written[until]) <= APPEND_BYTES:
                size += len(written[until])
                until += 1
            keys: list[bytes | None] = [self.model.encode()] * (until - at)
            done = self.topic.append(written[at:until], keys=keys, partition=self.partition)
            end = done.get(self.partition, end)
            at = until
        return first, end - 1

    def _write(
        self,
        tables: native.Tables,
        named: Sequence[Keys],
        dense: Mapping[str, npt.NDArray[Any]] | None,
        positions: Mapping[str, Mapping[int, int]],
        event_time_ms: int,
        restores: ChainHead | None,
    ) -> Published:
        # What was tried and not acknowledged may be there: this one stands for its number too, and has all that it had.
        sequence = self._tried + 1
        mark = (self.generation, self._sequence + 1, sequence, self._writer)
        more: dict[str, Any] = {
            "positions": {name: {str(p): at for p, at in places.items()} for name, places in positions.items()},
            "event_time_ms": event_time_ms,
            "published_ms": int(time.time() * 1000),
        }
        if restores is not None:
            more["restores"] = [restores.generation, restores.sequence]
        weights = [
            (name, list(given.shape), np.ascontiguousarray(given, np.float32)) for name, given in (dense or {}).items()
        ]
        try:
            bodies, epochs, rows, gone, _ = native.pack_changes(
                tables, CONSUMER, named, self._half, RECORD_BYTES - (1 << 16)
            )
            about = (self.model, self.plan, self.base, json.dumps(more))
            written = native.delta_records(mark, bodies, weights, rows, gone, about, RECORD_BYTES - (1 << 16))
        except native.DeltaFault as fault:
            raise _not_made(self.model, *fault.args) from None
        self._tried = sequence
        first, last = self._append(written)
        self._sequence = sequence
        native.tell_changes(tables, CONSUMER, epochs)
        return Published(sequence, first, last, rows, gone, sum(map(len, written)))


def _not_made(model: str, kind: str, message: str) -> ChainError:
    said = f"chain of '{model}': nothing was published: {message}"
    match kind:
        case "not_finite":
            return ChainError(said, "training has diverged: stop it and roll back to a good version", "CHAIN003")
        case "untracked":
            return ChainError(said, "call track() when the tables hold the base, before the first step", "CHAIN004")
        case _:
            hint = (
                "begin a new generation from a base of the tables as they are; publish more often, or raise the bounds"
            )
            return ChainError(said, hint, "CHAIN005")


# --- reading ---


class Standing:
    """Where a reader of a chain is, and what may come next: pure rules, of which applying is no part.

    head: what it has. base, plan: of the rows that it began with. A delta [from, to] is applied where from <= head + 1 <= to:
    it has whole rows of all that changed since from - 1, so one that overlaps what was applied changes nothing twice.
    """

    def __init__(self, head: ChainHead, *, plan: str, base: str) -> None:
        self.head, self.plan, self.base = head, plan, base
        self.floor = head.generation
        self.refused = 0
        self._writer: int | None = None

    def begins(self, begin: Begin) -> None:
        self.floor = max(self.floor, begin.head.generation)

    def judge(self, delta: Whole | Broken) -> bool:
        """Whether the delta is to be applied; False: it is passed by, being applied already or of an older generation.

        Raises `Gap`, `Rebase`, `ChainError` (CHAIN008 another plan), `Unsound` for a broken one that is needed.
        """
        generation, first, last, writer = delta.mark
        here = f"chain of '{self.head.model}': delta {generation}:[{first}, {last}]"
        if generation < self.floor:
            self.refused += 1
            return False
        same = generation == self.head.generation
        if same and last <= self.head.sequence:
            return False
        if isinstance(delta, Broken):
            raise Unsound(
                f"{here}: its commit record at offset {delta.offset} is for parts that are not there",
                _KEEPS, "CHAIN001", delta.offset,
            )  # fmt: skip
        if delta.plan != self.plan:
            raise ChainError(
                f"{here} is of the feature plan {delta.plan or 'without a name'}; here it is {self.plan or 'none'}",
                "keys mean other things there: serve a version with that plan as a model of its own, then switch",
                "CHAIN008",
            )
        at = f"{self.head.generation}:{self.head.sequence}"
        if first > (self.head.sequence if same else 0) + 1:
            raise Gap(f"{here} does not follow on {at}", _KEEPS, "CHAIN006")
        if same and self._writer not in (None, writer):
            raise Gap(f"{here} is of another writer than those before it", _KEEPS, "CHAIN006")
        pristine = self.head.sequence == 0 and self.head.generation in (0, generation)
        cut = delta.restores
        if delta.base != self.base or not (same or pristine or cut is not None):
            raise Rebase(
                f"{here} begins from the base {delta.base}; here it is {self.base} at {at}", _KEEPS, "CHAIN009"
            )
        if not same and cut is not None and cut > self.head and not (pristine and cut.sequence == 0):
            raise Gap(f"{here} restores {cut.generation}:{cut.sequence}, which is beyond {at}", _KEEPS, "CHAIN006")
        return True

    def applied(self, delta: Whole) -> None:
        self.head = ChainHead(self.head.model, delta.generation, delta.to)
        self.floor, self._writer = max(self.floor, delta.generation), delta.writer


_KEEPS = "the reader goes on from the newest base; what is served meanwhile is what was applied last"


def read(
    topic: Topic, after: ChainHead | None, *, model: str = "", offset: int | None = None, end: int | None = None
) -> Iterator[Delta]:
    """The deltas that a topic holds after a head (None: all of `model`), in order, up to its end as it is now.

    offset: where to begin reading; all of the topic by default. Deltas of generations that were taken over from, and
    what was never committed, are left out. Raises `Gap` (CHAIN006), `Unsound` (CHAIN001 to CHAIN003) and `StreamError`.
    """
    name = after.model if after else model
    if not name:
        raise ValueError("say after which head, or of which model")
    partition = topic.partition_of(name.encode())
    begin = topic.start(partition) if offset is None else offset
    head = after
    floor = after.generation if after else 0
    for found in _assembled(Assembler(name), records(topic, partition, begin, end)):
        if isinstance(found, Begin):
            floor = max(floor, found.head.generation)
        elif isinstance(found, Whole | Broken):
            here = ChainHead(name, found.mark[0], found.mark[2])
            if here.generation < floor or (head is not None and here <= head):
                continue
            if isinstance(found, Broken):
                said = f"chain of '{name}': delta {here.generation}:{here.sequence} is committed, and parts of it are missing"
                raise Unsound(said, _KEEPS, "CHAIN001", found.offset)
            follows = head is None or (
                found.from_ <= head.sequence + 1 if here.generation == head.generation else found.from_ == 1
            )
            if head is not None and not follows:
                said = f"delta {here.generation}:[{found.from_}, {found.to}] does not follow on {head.generation}:{head.sequence}"
                raise Gap(f"chain of '{name}': {said}", _KEEPS, "CHAIN006")
            head, floor = here, max(floor, here.generation)
            yield _delta(found)


def newest_base(topic: Topic, model: str) -> Base | None:
    """The newest base that was announced and whose deltas are still kept; None where there is none."""
    partition = topic.partition_of(model.encode())
    start = topic.start(partition)
    known = topic.committed(_base_group(model)).get(partition, start)
    found = None
    for begin in dict.fromkeys((max(known, start), start)):
        for one in _assembled(Assembler(model), records(topic, partition, begin, None), lenient=True):
            if isinstance(one, Base) and one.offset >= start and (found is None or one.head >= found.head):
                found = one
        if found is not None:
            return found
    return found


def records(topic: Topic, partition: int, offset: int, end: int | None) -> Iterator[Record]:
    """A partition's records from an offset up to an end (its own as it is now by default)."""
    end = topic.end(partition) if end is None else end
    while offset < end:
        batch = topic.read(partition, offset, wait_s=1.0)
        for record in batch.records:
            if record.offset >= end:
                return
            yield record
        if batch.next <= offset:
            return
        offset = batch.next


def _assembled(
    assembler: Assembler, found: Iterable[Record], *, lenient: bool = False
) -> Iterator[Whole | Base | Begin | Broken]:
    for record in found:
        try:
            one = assembler.take(record)
        except Unsound:
            if not lenient:
                raise
            continue
        if one is not None:
            yield one


def _delta(whole: Whole) -> Delta:
    rows: dict[int, list[tuple[Keys, Values]]] = {}
    gone: dict[int, list[Keys]] = {}
    dense: dict[str, Values] = {}
    for part in whole.records:
        for table, dim, keys, values, tombstones in part.blocks():
            held = np.frombuffer(values, np.float32).reshape(-1, dim)
            rows.setdefault(table, []).append((np.frombuffer(keys, np.int64), held))
            gone.setdefault(table, []).append(np.frombuffer(tombstones, np.int64))
        for name, shape, first, values in part.weights():
            weight = dense.setdefault(name, np.zeros(shape, np.float32))
            weight.reshape(-1)[first : first + len(values) // 4] = np.frombuffer(values, np.float32)
    positions = {
        name: {int(p): int(at) for p, at in places.items()} for name, places in whole.more.get("positions", {}).items()
    }
    return Delta(
        whole.model, whole.generation, whole.from_, whole.to,
        {t: (np.concatenate([k for k, _ in parts]), np.concatenate([v for _, v in parts])) for t, parts in rows.items()},
        {t: np.concatenate(parts) for t, parts in gone.items()},
        dense or None, positions, int(whole.more.get("event_time_ms", 0)), whole.restores, whole.first, whole.last,
    )  # fmt: skip


def _base_group(model: str) -> str:
    return f"chain-base.{model}"


def _begin_group(model: str) -> str:
    return f"chain-begin.{model}"
