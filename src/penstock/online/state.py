"""What a join remembers, on disk: open impressions, orphans, positions and counts, in one LMDB transaction a commit.

Keys by closing time come first in each database that grows, so that what is written and forgotten lies side by side.
"""

from __future__ import annotations

import base64
import fcntl
import json
import os
import struct
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import lmdb

from penstock.streams import Record

from . import faults
from .joiner import MOST_ORPHANS, Orphan

_TIME = struct.Struct(">q")
#: until_ms, happens_ms, kind, time_ms, value
_ORPHAN = struct.Struct("<qqiqd")
_FORMAT = 1
#: Addresses, not bytes: the file grows with what is in it.
_MAP_BYTES = 1 << 40
#: Records that could not be read are kept up to here, and counted for ever.
MOST_POISON = 10_000


class State:
    """`joiner.Memory` in a folder, and what is committed with it. One process at a time has it.

    Everything between `begin` and `commit` is one transaction; `abort`, or a killed process, leaves what was before.
    Between them LMDB's errors come as they are: `said` makes `StateError` of them.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._lock = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise faults.not_written(folder, error.strerror or str(error)) from None
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(self._lock)
            raise faults.in_use(folder) from None
        with self.said():
            # No reader threads beside the writer; the lock above keeps other processes away.
            self._env = lmdb.open(str(folder), map_size=_MAP_BYTES, max_dbs=6, lock=False, mode=0o600)
            names = (b"ids", b"open", b"orphans", b"waits", b"meta", b"poison")
            self._ids, self._open, self._orphans, self._waits, self._meta, self._poison = map(self._env.open_db, names)
        self._txn: Any = None

    @contextmanager
    def said(self) -> Iterator[None]:
        try:
            yield
        except (lmdb.DiskError, lmdb.MapFullError, OSError) as error:
            raise faults.not_written(self.folder, str(error)) from None
        except lmdb.Error as error:
            if "space" in str(error).lower() or "Input/output" in str(error):
                raise faults.not_written(self.folder, str(error)) from None
            raise faults.broken_state(self.folder, str(error)) from None

    # --- transactions ------------------------------------------------------------------------------------------

    def begin(self) -> dict[str, Any] | None:
        """Start a transaction. Returns what `commit` was last given; None for a state that is new."""
        with self.said():
            self._txn = self._env.begin(write=True)
            found = self._txn.get(b"meta", db=self._meta)
        if found is None:
            return None
        meta: dict[str, Any] = json.loads(found)
        if meta.get("format") != _FORMAT:
            raise faults.broken_state(
                self.folder, f"it is of format {meta.get('format')}, this Penstock's is {_FORMAT}"
            )
        return meta

    def commit(self, meta: Mapping[str, Any]) -> None:
        """All since `begin` and `meta`, lasting or not at all; the next transaction is begun."""
        text = json.dumps({**meta, "format": _FORMAT}).encode()
        with self.said():
            self._txn.put(b"meta", text, db=self._meta)
            self._txn.commit()
            self._txn = self._env.begin(write=True)

    def abort(self) -> None:
        if self._txn is not None:
            self._txn.abort()
            self._txn = None

    def close(self) -> None:
        self.abort()
        self._env.close()
        os.close(self._lock)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # --- joiner.Memory -----------------------------------------------------------------------------------------

    def closes(self, id: bytes) -> int | None:
        found = self._txn.get(id, db=self._ids)
        return None if found is None else _TIME.unpack(found)[0]

    def opened(self, id: bytes, close_ms: int) -> bytes:
        found: bytes = self._txn.get(_TIME.pack(close_ms) + id, db=self._open)
        return found

    def put(self, id: bytes, close_ms: int, value: bytes) -> None:
        close = _TIME.pack(close_ms)
        self._txn.put(id, close, db=self._ids)
        self._txn.put(close + id, value, db=self._open)

    def next_close(self) -> int | None:
        with self._txn.cursor(db=self._open) as cursor:
            return _TIME.unpack(cursor.key()[:8])[0] if cursor.first() else None

    def close_before(self, before_ms: int) -> list[tuple[int, bytes, bytes]]:
        gone = []
        with self._txn.cursor(db=self._open) as cursor:
            there = cursor.first()
            while there and (close_ms := _TIME.unpack(cursor.key()[:8])[0]) < before_ms:
                id = cursor.key()[8:]
                gone.append((close_ms, id, cursor.value()))
                self._txn.delete(id, db=self._ids)
                there = cursor.delete() and bool(cursor.key())
        return gone

    def add_orphan(self, id: bytes, orphan: Orphan, until_ms: int) -> bool:
        found = self._txn.get(id, b"", db=self._orphans)
        waiting = [one for one in _ORPHAN.iter_unpack(found) if one[0] >= orphan.happens_ms]
        if len(waiting) >= MOST_ORPHANS:
            return False
        waiting.append((until_ms, *orphan))
        self._txn.put(id, b"".join(_ORPHAN.pack(*one) for one in waiting), db=self._orphans)
        self._txn.put(_TIME.pack(until_ms) + id, b"", db=self._waits)
        return True

    def take_orphans(self, id: bytes) -> list[Orphan]:
        found = self._txn.pop(id, db=self._orphans)
        return [Orphan(*one[1:]) for one in _ORPHAN.iter_unpack(found)] if found else []

    def forget_orphans(self, before_ms: int) -> int:
        forgotten = 0
        with self._txn.cursor(db=self._waits) as cursor:
            there = cursor.first()
            while there and _TIME.unpack(cursor.key()[:8])[0] < before_ms:
                id = cursor.key()[8:]
                there = cursor.delete() and bool(cursor.key())
                forgotten += self._thin(id, before_ms)
        return forgotten

    def _thin(self, id: bytes, before_ms: int) -> int:
        found = self._txn.get(id, db=self._orphans)
        if found is None:
            return 0
        left = [one for one in _ORPHAN.iter_unpack(found) if one[0] >= before_ms]
        if left:
            self._txn.put(id, b"".join(_ORPHAN.pack(*one) for one in left), db=self._orphans)
        else:
            self._txn.delete(id, db=self._orphans)
        return len(found) // _ORPHAN.size - len(left)

    # --- what could not be read --------------------------------------------------------------------------------

    def quarantine(self, source: str, partition: int, record: Record, reason: str) -> None:
        """Keep a record and why it is none, by its offset: a record that is read twice is kept once."""
        if self._txn.stat(self._poison)["entries"] >= MOST_POISON:
            return
        shown = {
            "source": source, "partition": partition, "offset": record.offset, "time_ms": record.time_ms,
            "reason": reason, "key": _text(record.key), "value": _text(record.value),
        }  # fmt: skip
        key = f"{source}/{partition:04}/{record.offset:020}".encode()
        self._txn.put(key, json.dumps(shown).encode(), db=self._poison)

    def quarantined(self) -> Iterator[dict[str, Any]]:
        """What `quarantine` kept, by source, partition and offset."""
        with self._txn.cursor(db=self._poison) as cursor:
            for _, value in cursor:
                yield json.loads(value)

    def sizes(self) -> dict[str, int]:
        """Open impressions, waiting orphans (ids), and bytes of the file."""
        with self.said():
            return {
                "open": self._txn.stat(self._ids)["entries"],
                "waiting": self._txn.stat(self._orphans)["entries"],
                "bytes": (self.folder / "data.mdb").stat().st_size,
            }


def _text(value: bytes | None) -> str | None:
    """UTF-8 as it is, anything else as base64."""
    if value is None:
        return None
    try:
        return value.decode()
    except UnicodeDecodeError:
        return "base64:" + base64.b64encode(value).decode()
