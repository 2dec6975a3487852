"""The online store: one packed blob an entity and view, in LMDB (`lmdb:PATH`) or Redis (`redis://HOST:PORT/DB`)."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import parse_qsl

import pyarrow as pa

from penstock import native
from penstock.errors import DataError, RequestError, did_you_mean
from penstock.features.views.faults import told
from penstock.features.views.model import View
from penstock.streams.addresses import without_secrets
from penstock.streams.settings import size_bytes

#: How large an LMDB file may become: it takes room as it grows, not before.
SIZE = "64GiB"
#: Scheme -> the options that its addresses may have.
_OPTIONS = {"lmdb": {"size"}, "redis": set(), "rediss": {"ca"}}


class Stored(NamedTuple):
    """A view as a store knows it: its declaration for the kernel, and how far into its source its blobs go."""

    name: str
    declared: Mapping[str, Any]
    position: str


class Values(NamedTuple):
    """What was read of a view: a row for each key asked for."""

    rows: pa.RecordBatch
    position: str
    as_of: native.AsOf

    @property
    def as_of_us(self) -> pa.Array:
        """As of when each row is: int64, microseconds."""
        return self.as_of.array()


class OnlineStore:
    """An online store by its address. Threads may share it; processes open their own.

    `lmdb:PATH[?size=64GiB]`: a folder of this machine, read without waiting while one process writes.
    `redis://[USER:PASSWORD@]HOST[:PORT][/DB]`, or `rediss://...[?ca=FILE]` with TLS (FILE: PEM, whose authorities are
    trusted in place of the system's). Raises `RequestError` VIEW027 for other addresses, `DataError` VIEW021 where it
    cannot be opened.
    """

    def __init__(self, address: str, *, create: bool = False) -> None:
        scheme = address.partition(":")[0]
        given = dict(parse_qsl(address.partition("?")[2]))
        named = address.startswith("lmdb:" if scheme == "lmdb" else f"{scheme}://")
        if scheme not in _OPTIONS or not named or set(given) - _OPTIONS[scheme]:
            hint = "lmdb:PATH, lmdb:PATH?size=64GiB, redis://HOST:PORT/DB or rediss://HOST:PORT/DB?ca=FILE"
            raise RequestError(f"'{without_secrets(address)}' is no address of a store of views", hint, "VIEW027")
        try:
            room = size_bytes(given.get("size", SIZE))
        except (ValueError, KeyError):
            raise RequestError(f"size is '{given['size']}'", "4GiB, 64GiB", "VIEW027") from None
        self.address = address
        with told():
            self._store = native.ViewStore(native_address(address), create, room)

    def views(self) -> dict[str, Stored]:
        """Every view that was declared here."""
        with told():
            return {name: Stored(name, json.loads(said), at) for name, said, at in self._store.views()}

    def stored(self, name: str) -> Stored:
        """One of them. Raises `DataError` VIEW023."""
        views = self.views()
        if name not in views:
            hint = did_you_mean(
                name, views, f"it has {', '.join(views) or 'none'}; `penstock features materialise` adds one"
            )
            raise DataError(f"{self.address.split('@')[-1]} has no view '{name}'", hint, "VIEW023")
        return views[name]

    def declare(self, view: View, *, anew: bool = False) -> None:
        """Make a view known. Raises `DataError` VIEW022 where it was declared otherwise; `anew` empties it then."""
        with told():
            self._store.declare(view.native, anew)

    def add(self, view: View, rows: pa.RecordBatch, expected: str, position: str) -> int:
        """Add events (`sources.Part.rows`) and move the position, in one transaction. How many had no key or time.

        Raises `DataError` VIEW026 where the store does not stand at `expected`: somebody else writes the view.
        """
        with told():
            return self._store.add(view.native, rows, expected, position)

    def read(
        self, views: Sequence[View], keys: Mapping[str, Sequence[Any] | pa.Array], at_us: int | None = None
    ) -> list[Values]:
        """What is known now (or at `at_us`, microseconds) of entities, all views as of one instant of the store.

        keys: for each key column of the views' entities, a value a row; a null has no values. Raises `DataError`
        VIEW025 where a column is missing or has what its entity's keys are not.
        """
        places: dict[str, int] = {}
        entities: list[list[tuple[bool, Sequence[Any] | pa.Array]]] = []
        asked = []
        for view in views:
            entity = view.entity
            if entity.name not in places:
                places[entity.name] = len(entities)
                try:
                    entities.append([(kind == "int", keys[name]) for name, kind in entity.keys])
                except KeyError as name:
                    hint = f"a view of '{entity.name}' is asked for by {', '.join(name for name, _ in entity.keys)}"
                    raise DataError(f"the keys have no column {name}", hint, "VIEW025") from None
            asked.append((view.native, places[entity.name]))
        with told():
            found = self._store.read(entities, asked, time.time_ns() // 1_000 if at_us is None else at_us)
        return [Values(*each) for each in found]


def native_address(address: str) -> str:
    """An address as the kernel takes it, which asks for an LMDB file's size apart."""
    return address.partition("?")[0] if address.startswith("lmdb:") else address


def local_folder(address: str) -> Path | None:
    """The folder of an LMDB store."""
    place = address.partition("?")[0]
    return Path(place.removeprefix("lmdb:")) if place.startswith("lmdb:") else None
