"""What a join remembers, in dicts: for logs that fit."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterable

from .joiner import MOST_ORPHANS, Orphan


class DictMemory:
    """`joiner.Memory` without a file."""

    def __init__(self) -> None:
        self._closes: dict[bytes, int] = {}
        self._opened: dict[bytes, bytes] = {}
        self._order: list[tuple[int, bytes]] = []
        self._orphans: dict[bytes, list[tuple[int, Orphan]]] = {}

    def closes(self, id: bytes) -> int | None:
        return self._closes.get(id)

    def opened(self, id: bytes, close_ms: int) -> bytes:
        return self._opened[id]

    def put(self, id: bytes, close_ms: int, value: bytes) -> None:
        if id not in self._closes:
            insort(self._order, (close_ms, id))
        self._closes[id], self._opened[id] = close_ms, value

    def next_close(self) -> int | None:
        return self._order[0][0] if self._order else None

    def close_before(self, before_ms: int) -> Iterable[tuple[int, bytes, bytes]]:
        count = bisect_left(self._order, (before_ms, b""))
        gone, self._order = self._order[:count], self._order[count:]
        for _, id in gone:
            del self._closes[id]
        return [(close_ms, id, self._opened.pop(id)) for close_ms, id in gone]

    def add_orphan(self, id: bytes, orphan: Orphan, until_ms: int) -> bool:
        waiting = [one for one in self._orphans.get(id, ()) if one[0] >= orphan.happens_ms]
        if len(waiting) >= MOST_ORPHANS:
            return False
        self._orphans[id] = [*waiting, (until_ms, orphan)]
        return True

    def take_orphans(self, id: bytes) -> list[Orphan]:
        return [orphan for _, orphan in self._orphans.pop(id, [])]

    def forget_orphans(self, before_ms: int) -> int:
        gone = 0
        for id, waiting in list(self._orphans.items()):
            left = [one for one in waiting if one[0] >= before_ms]
            gone += len(waiting) - len(left)
            if left:
                self._orphans[id] = left
            else:
                del self._orphans[id]
        return gone
