"""The join itself: events in the order in which they happen become samples in the order in which they are emitted.

What it remembers is behind `Memory`: a dict for tests and small logs (`memory.py`), LMDB for a process that runs for
weeks (`state.py`). Read docs/adr/0042-samples-from-behaviour.md first.
"""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Iterable, Sequence
from json.encoder import encode_basestring
from typing import NamedTuple, Protocol

from .events import IMPRESSION, Event, Feedback, Impression
from .negatives import kept
from .terms import Terms

#: Of samples with the same time and id.
KINDS = ("impression", "correction")
#: An open impression: time_ms, score (0 where it is no probability), types that have come, revision, weight given,
#: whether it is kept as a negative; its columns follow.
_OPEN = struct.Struct("<qdIId?")
_NEVER = 1 << 62
#: Feedback of one id that may wait for its impression.
MOST_ORPHANS = 64


class Sample(NamedTuple):
    """One sample, sorted as it is emitted. value: its record."""

    emit_ms: int
    id: bytes
    kind: int
    revision: int
    value: bytes


class Orphan(NamedTuple):
    """Feedback that came before its impression."""

    happens_ms: int
    kind: int
    time_ms: int
    value: float


class Memory(Protocol):
    """Open impressions by id and by the time at which they close, and orphans."""

    def closes(self, id: bytes) -> int | None:
        """When the impression closes; None where none of that id is open."""

    def opened(self, id: bytes, close_ms: int) -> bytes: ...
    def put(self, id: bytes, close_ms: int, value: bytes) -> None: ...
    def next_close(self) -> int | None:
        """When the next of all closes."""

    def close_before(self, before_ms: int) -> Iterable[tuple[int, bytes, bytes]]:
        """Forget those that close earlier, and give (close_ms, id, value) of each, in that order."""

    def add_orphan(self, id: bytes, orphan: Orphan, until_ms: int) -> bool:
        """Whether it was taken: at most `MOST_ORPHANS` that still wait when it happens are."""

    def take_orphans(self, id: bytes) -> list[Orphan]: ...
    def forget_orphans(self, before_ms: int) -> int:
        """Forget those that waited until earlier. How many they were."""


class Joiner:
    """A pure function of the events, cut into calls: where the cuts are does not show in the samples."""

    def __init__(self, terms: Terms, memory: Memory) -> None:
        self.terms, self.memory = terms, memory
        self.counts: Counter[str] = Counter()
        self._open_ms = terms.open_ms
        self._several = len(terms.kinds) > 1
        self._fake_negatives = terms.emit == "at_once" and terms.weighting == "fake_negative"
        self._next = _NEVER

    def join(self, events: Sequence[Event], frontier_ms: int) -> list[Sample]:
        """Take events, sorted, that all happen before the frontier; none that happens before it comes later.

        Returns the samples that are emitted before the frontier and were not yet returned, sorted.
        """
        memory = self.memory
        out: list[Sample] = []
        self._next = memory.next_close() or _NEVER
        chosen = kept([event[2] for event in events if event[1] == IMPRESSION], self.terms.negatives)
        for event in events:
            if self._next < event[0]:
                self._close(event[0], out)
            if event[1] == IMPRESSION:
                self._impression(event, next(chosen), out)  # type: ignore[arg-type]
            else:
                self._feedback(event, out)  # type: ignore[arg-type]
        if self._next < frontier_ms:
            self._close(frontier_ms, out)
        self.counts["orphans_forgotten"] += memory.forget_orphans(frontier_ms)
        out.sort()
        self.counts["samples"] += len(out)
        return out

    def _impression(self, event: Impression, keep: bool, out: list[Sample]) -> None:
        happens_ms, _, id, time_ms, _, _, columns, score = event
        counts, memory = self.counts, self.memory
        counts["impressions"] += 1
        if happens_ms - time_ms > self.terms.lateness_ms:
            counts["impressions_late"] += 1
            return
        if memory.closes(id) is not None:
            counts["impressions_repeated"] += 1
            return
        if score is None or not 0 <= score <= 1:
            counts["scores_unusable"] += 1
            score = 0.0
        close_ms = max(happens_ms, time_ms) + self._open_ms
        matched, revision, given = 0, 0, 0.0
        if self.terms.emit == "at_once" and keep:
            weight = (1 - score * score if self._fake_negatives else 1.0) / self.terms.negatives
            out.append(self._sample(happens_ms, id, 0, 0, time_ms, 0, weight, 0, columns))
        for orphan in sorted(memory.take_orphans(id)):
            if orphan.happens_ms + self.terms.lateness_ms < happens_ms:
                counts["orphans_forgotten"] += 1
                continue
            now = (time_ms, score, matched, revision, given)
            changed = self._matched(happens_ms, id, now, orphan.kind, orphan.time_ms, orphan.value, columns, out)
            if changed is not None:
                matched, revision, given = changed
        memory.put(id, close_ms, _OPEN.pack(time_ms, score, matched, revision, given, keep) + columns)
        self._next = min(self._next, close_ms)

    def _feedback(self, event: Feedback, out: list[Sample]) -> None:
        happens_ms, _, id, kind, time_ms, value, _, _ = event
        self.counts["feedback"] += 1
        close_ms = self.memory.closes(id)
        if close_ms is None:
            orphan = Orphan(happens_ms, kind, time_ms, value)
            taken = self.memory.add_orphan(id, orphan, happens_ms + self.terms.lateness_ms)
            self.counts["orphans" if taken else "orphans_refused"] += 1
            return
        found = self.memory.opened(id, close_ms)
        shown_ms, score, matched, revision, given, keep = _OPEN.unpack_from(found)
        columns = found[_OPEN.size :]
        now = (shown_ms, score, matched, revision, given)
        changed = self._matched(happens_ms, id, now, kind, time_ms, value, columns, out)
        if changed is not None:
            self.memory.put(id, close_ms, _OPEN.pack(shown_ms, score, *changed, keep) + columns)

    def _matched(
        self,
        happens_ms: int,
        id: bytes,
        now: tuple[int, float, int, int, float],
        kind: int,
        time_ms: int,
        value: float,
        columns: bytes,
        out: list[Sample],
    ) -> tuple[int, int, float] | None:
        """What has come, revision and weight given after this feedback; None where it changes nothing."""
        shown_ms, score, matched, revision, given = now
        terms = self.terms.kinds[kind]
        if not -self.terms.skew_ms <= time_ms - shown_ms <= terms.window_ms:
            self.counts["feedback_outside"] += 1
            return None
        if matched & 1 << kind:
            self.counts["feedback_repeated"] += 1
            return None
        weight = value if terms.weight is None else terms.weight
        if weight == 0:
            self.counts["feedback_of_nothing"] += 1
            return None
        self.counts["matched"] += 1
        matched |= 1 << kind
        if weight > given:
            if self.terms.emit == "at_once":
                revision += 1
                more = (weight - given) * (1 + score if self._fake_negatives else 1.0)
                out.append(self._sample(happens_ms, id, 1, revision, shown_ms, 1, more, matched, columns))
            given = weight
        return matched, revision, given

    def _close(self, before_ms: int, out: list[Sample]) -> None:
        at_close = self.terms.emit == "at_close"
        for close_ms, id, found in self.memory.close_before(before_ms):
            self.counts["closed"] += 1
            if at_close:
                shown_ms, _, matched, _, given, keep = _OPEN.unpack_from(found)
                if given or keep:
                    weight = given or 1 / self.terms.negatives
                    columns, label = found[_OPEN.size :], int(given > 0)
                    out.append(self._sample(close_ms, id, 0, 0, shown_ms, label, weight, matched, columns))
        self._next = self.memory.next_close() or _NEVER

    def _sample(
        self,
        emit_ms: int,
        id: bytes,
        kind: int,
        revision: int,
        time_ms: int,
        label: int,
        weight: float,
        matched: int,
        columns: bytes,
    ) -> Sample:
        text = encode_basestring(id.decode())
        labels = ""
        if self._several:
            each = enumerate(self.terms.kinds)
            labels = "".join(f',"_label_{one.name}":{matched >> number & 1}' for number, one in each)
        own = (
            f'"_id":{text},"_kind":"{KINDS[kind]}","_revision":{revision},"_time_ms":{time_ms},"_emit_ms":{emit_ms},'
            f'"_label":{label},"_weight":{weight!r}{labels}}}'
        )
        head = b"{" + columns + b"," if columns else b"{"
        return Sample(emit_ms, id, kind, revision, head + own.encode())
