"""Reading a chain: what follows on what, the deltas that a topic holds, its newest base.

In: a topic. Out: deltas in order, none of a generation that another took over from; a gap is an error, no skip.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from penstock import native
from penstock.registry.chain_records import Assembler, Base, Begin, Broken, ChainError, ChainHead, Unsound, Whole
from penstock.streams import Record, RecordsLost, Tail, Topic

Keys = npt.NDArray[np.int64]
Values = npt.NDArray[np.float32]


class Gap(ChainError):
    """A delta does not follow on what was applied (CHAIN006): the reader goes on from the newest base."""


class Rebase(ChainError):
    """A generation begins from a base of its own (CHAIN009): the reader goes on from that."""


@dataclass(frozen=True)
class Delta:
    """One delta, read. It stands for the sequence numbers `from_` to `to`, and leads to `to`.

    rows: table number -> keys int64 [n] (the bits of a u64), values float32 [n, dim]. gone: table number -> int64 [n].
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


class Standing:
    """Where a reader of a chain is, and what may come next: pure rules, of which applying is no part.

    head: what it has. base, plan: of the rows that it began with. A delta [from, to] is applied where from <= head + 1
    <= to: it has whole rows of all that changed since from - 1, so one that overlaps what was applied acts once.
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
                said = f"chain of '{name}': delta {here.generation}:{here.sequence} is committed, and lacks parts"
                raise Unsound(said, _KEEPS, "CHAIN001", found.offset)
            follows = head is None or (
                found.from_ <= head.sequence + 1 if here.generation == head.generation else found.from_ == 1
            )
            if head is not None and not follows:
                said = f"delta {here.generation}:[{found.from_}, {found.to}] does not follow on"
                at = f"{head.generation}:{head.sequence}"
                raise Gap(f"chain of '{name}': {said} {at}", _KEEPS, "CHAIN006")
            head, floor = here, max(floor, here.generation)
            yield _delta(found)


class ChainTail:
    """Each `read` gives the deltas of a chain that were committed since the one before, of whatever generation.

    For who looks on: what is to be applied, `Standing` says.
    """

    def __init__(self, topic: Topic, model: str) -> None:
        self._tail = Tail(topic, [topic.partition_of(model.encode())])
        self._assembler = Assembler(model)

    def read(self, wait_s: float = 0.0) -> list[Whole]:
        """Raises `Unsound`, and what `Topic.read` raises. wait_s: how long at most for a first record."""
        found = (self._assembler.take(record) for _, record in self._tail.read(wait_s))
        return [one for one in found if isinstance(one, Whole)]


def newest_base(topic: Topic, model: str) -> Base | None:
    """The newest base that was announced and whose deltas are still kept; None where there is none."""
    partition = topic.partition_of(model.encode())
    start = topic.start(partition)
    known = topic.committed(base_group(model)).get(partition, start)
    found = None
    for begin in dict.fromkeys((max(known, start), start)):
        for one in _assembled(Assembler(model), records(topic, partition, begin, None), lenient=True):
            if isinstance(one, Base) and one.offset >= start and (found is None or one.head >= found.head):
                found = one
        if found is not None:
            return found
    return found


def has_begun(topic: Topic, model: str) -> bool:
    """Whether any generation of the chain has written to the topic."""
    return bool(topic.committed(begin_group(model)))


def holds(topic: Topic, head: ChainHead, root: str, last: int) -> bool:
    """Whether the record at the offset `last` commits the delta that leads to `head`, in a chain from the base `root`.

    Offsets are a topic's own: a bundle that was carried elsewhere names those of another one.
    """
    partition = topic.partition_of(head.model.encode())
    if not topic.start(partition) <= last < topic.end(partition):
        return False
    try:
        found = [r for r in topic.read(partition, last, records=1).records if r.key == head.model.encode()]
        said = [native.ChainRecord(record.value) for record in found if record.offset == last]
    except (RecordsLost, native.DeltaFault):
        return False
    mark = ("commit", head.generation, head.sequence, root)
    return any((each.kind, each.generation, each.to, each.about and each.about[2]) == mark for each in said)


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
        {t: (np.concatenate([k for k, _ in at]), np.concatenate([v for _, v in at])) for t, at in rows.items()},
        {t: np.concatenate(parts) for t, parts in gone.items()},
        dense or None, positions, int(whole.more.get("event_time_ms", 0)), whole.restores, whole.first, whole.last,
    )  # fmt: skip


def base_group(model: str) -> str:
    return f"chain-base.{model}"


def begin_group(model: str) -> str:
    return f"chain-begin.{model}"
