"""A model's chain in a topic: the trainer's changed rows and dense weights, numbered, for hosts to apply (ADR 0043).

In: rows that keep what changed for the consumer "chain" (`Tracked`). Out: whole deltas of one generation.
`chain_reading.py` reads them, `chain_records.py` puts records together; docs/live-parameters.md tells the story.
"""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from penstock import native
from penstock.registry.chain_reading import (
    Delta,
    Gap,
    Keys,
    Rebase,
    Standing,
    base_group,
    begin_group,
    has_begun,
    holds,
    newest_base,
    read,
    records,
)
from penstock.registry.chain_records import Base, ChainError, ChainHead, Unsound, Whole
from penstock.streams import Topic, TopicTrimmed

__all__ = [
    "Base", "ChainError", "ChainHead", "Delta", "Fenced", "Gap", "Published", "Publisher", "Rebase", "Standing",
    "Tracked", "Unsound", "Whole", "has_begun", "holds", "newest_base", "read", "records",
]  # fmt: skip

#: Under this name the tables keep what changed since the last delta.
CONSUMER = "chain"
#: Bytes of a record, and of the records of one append.
RECORD_BYTES, APPEND_BYTES = 8 << 20, 48 << 20


class Fenced(ChainError):
    """A later generation writes this chain; this process is the older one (CHAIN007)."""


class Tracked(Protocol):
    """Rows that know what has changed: `native.Tables` of deep models, `native.Online` of `lr` and `fm`."""

    def track_changes(self, consumer: str) -> None:
        """Keep changes for a consumer, who has the rows as they are."""

    def pack_changes(
        self, consumer: str, named: Sequence[Keys], half: bool, most: int
    ) -> tuple[list[bytes], list[int], int, int, int]:
        """What changed since it was told last, and of table i the keys `named[i]`, as bodies of about `most` bytes:
        bodies, what `tell_changes` is to be given, rows, gone keys, rows that were looked at. Forgets nothing.

        Raises `native.DeltaFault`.
        """

    def tell_changes(self, consumer: str, epochs: Sequence[int]) -> None:
        """The consumer has everything before these epochs."""


class Published(NamedTuple):
    """What one delta was. first, last: offsets within which its records are. bytes: of its records, keys left out."""

    sequence: int
    first: int
    last: int
    rows: int
    gone: int
    bytes: int


class Publisher:
    """Writes one generation of a model's chain. One thread at a time uses it; steps of tables may go on in others.

    topic: any; the chain's records have the model's name as their key. plan: the feature plan's fingerprint.
    base: the digest of the bundle from which the generation's rows come. values: f16 rounds rows to the nearest half.

    A generation begins with `restore`, or, from its base alone, with `publish`: hosts that follow an older one then
    load that base first. `track` comes before the first step after the base was read. After an error that says that
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

    def track(self, tables: Tracked) -> None:
        """The tables hold the base now: what changes from here on is published."""
        tables.track_changes(CONSUMER)

    def publish(
        self,
        tables: Tracked,
        *,
        dense: Mapping[str, npt.NDArray[Any]] | None = None,
        positions: Mapping[str, Mapping[int, int]],
        event_time_ms: int,
    ) -> Published:
        """Publish what changed since the last delta: rows, tombstones, and dense weights if given (all of them).

        tables: where the rows are (`EmbeddingTables.native`, `native.Online`). positions: how far every input has been
        learnt. Costs what the changed rows cost. Raises `Fenced` (CHAIN007), `ChainError` CHAIN003 for weights that are
        no numbers, CHAIN004 for tables that are not tracked, CHAIN005 for changes that were forgotten, `StreamError`.
        """
        self._begin(None)
        return self._write(tables, [], dense, positions, event_time_ms, None)

    def restore(
        self,
        tables: Tracked,
        *,
        after: ChainHead,
        offset: int | None = None,
        dense: Mapping[str, npt.NDArray[Any]] | None,
        positions: Mapping[str, Mapping[int, int]],
        event_time_ms: int,
    ) -> Published:
        """Begin a generation with tables as they were at a cut: sequence 1 has every key that deltas after the cut
        named, with its row as it is now, or a tombstone; and what changed before the cut and was not yet published.

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
        """Tell readers of a materialised base: the bundle at `address` (a path, an fsspec URL, models:/...) is the
        chain as of `sequence`, and deltas after it begin at `offset` (`Published.last` + 1). Returns the record's
        own offset."""
        self._begin(None)
        mark = (self.generation, sequence, sequence, self._writer)
        note = json.dumps({"address": address, "digest": digest, "offset": offset})
        at = self._append([native.chain_note("base", mark, (self.model, self.plan, self.base, note))])[0]
        self.topic.commit(base_group(self.model), {self.partition: at})
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
        known = self.topic.committed(begin_group(self.model)).get(self.partition, start)
        self._look(max(start, known if offset is None else min(known, offset)))
        mark = (self.generation, 0, 0, self._writer)
        at = self._append([native.chain_note("begin", mark, (self.model, self.plan, self.base, "{}"))])[0]
        self.topic.commit(begin_group(self.model), {self.partition: at})

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
                        f"chain of '{self.model}': generation {found.generation} is written by another trainer, and "
                        f"this one is of generation {self.generation}",
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
        tables: Tracked,
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
            bodies, epochs, rows, gone, _ = tables.pack_changes(CONSUMER, named, self._half, RECORD_BYTES - (1 << 16))
            about = (self.model, self.plan, self.base, json.dumps(more))
            written = native.delta_records(mark, bodies, weights, rows, gone, about, RECORD_BYTES - (1 << 16))
        except native.DeltaFault as fault:
            raise _not_made(self.model, *fault.args) from None
        self._tried = sequence
        first, last = self._append(written)
        self._sequence = sequence
        tables.tell_changes(CONSUMER, epochs)
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
