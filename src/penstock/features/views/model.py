"""A declared view: whose values, from which events, for how long they hold, over which windows."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa

from penstock import native
from penstock.errors import RequestError, did_you_mean

Kind = Literal["int", "float", "str", "bool"]
Function = Literal["count", "sum", "mean", "last"]

ARROW: Mapping[str, pa.DataType] = {
    "int": pa.int64(),
    "float": pa.float64(),
    "str": pa.large_string(),
    "bool": pa.bool_(),
}


@dataclass(frozen=True)
class Entity:
    """What a view tells about. `keys`: the columns that name one, each an int or a str."""

    name: str
    keys: tuple[tuple[str, Kind], ...]
    line: int = 0


@dataclass(frozen=True)
class Source:
    """Where events come from: `topic`, an address of streams/, or files read by the input `type` with `attrs`.

    `time`: the column of an event's time; "" with a topic: the record's own. `unit`: of a time that is a number.
    """

    type: str = ""
    topic: str = ""
    attrs: Mapping[str, str] = field(default_factory=dict)
    time: str = ""
    unit: str = ""
    line: int = 0


@dataclass(frozen=True)
class Column:
    """The newest value of the events' column `source`, as `name`."""

    name: str
    kind: Kind
    source: str
    line: int = 0


@dataclass(frozen=True)
class Aggregate:
    """A function over a window. Sliding: the last `size_us`, in panes of `every_us`; tumbling: the last pane over."""

    name: str
    function: Function
    source: str  # the events' column; "" counts events
    kind: Kind  # of that column
    size_us: int
    every_us: int
    tumbling: bool
    decimals: int = 0
    line: int = 0


@dataclass(frozen=True)
class View:
    """One view of a file. `ttl_us`: how old an entity's newest event may be; None: any age."""

    name: str
    entity: Entity
    source: Source
    columns: tuple[Column, ...] = ()
    aggregates: tuple[Aggregate, ...] = ()
    ttl_us: int | None = None
    owner: str = ""
    description: str = ""
    base: Path = Path()
    line: int = 0

    @cached_property
    def inputs(self) -> dict[str, Kind]:
        """The events' columns that it reads, each once, with their kinds."""
        read = [(c.source, c.kind) for c in self.columns]
        return dict(read + [(a.source, a.kind) for a in self.aggregates if a.source])

    @cached_property
    def outputs(self) -> dict[str, Kind]:
        """What it gives: names and kinds, columns first."""
        kinds: dict[str, Kind] = {c.name: c.kind for c in self.columns}
        for a in self.aggregates:
            kinds[a.name] = {"count": "int", "mean": "float"}.get(a.function, a.kind)  # type: ignore[assignment]
        return kinds

    @cached_property
    def document(self) -> dict[str, Any]:
        """The declaration as the kernel takes it. Two that mean the same have the same `fingerprint`."""
        inputs = list(self.inputs)
        windows = list(dict.fromkeys((a.size_us, a.every_us, a.tumbling) for a in self.aggregates))
        meaning = {
            "name": self.name,
            "entity": self.entity.name,
            "keys": [{"name": name, "kind": kind} for name, kind in self.entity.keys],
            "inputs": [{"name": name, "kind": kind} for name, kind in self.inputs.items()],
            "columns": [[c.name, inputs.index(c.source)] for c in self.columns],
            "aggregates": [
                {
                    "name": a.name, "function": a.function, "input": inputs.index(a.source) if a.source else None,
                    "window": windows.index((a.size_us, a.every_us, a.tumbling)), "decimals": a.decimals,
                }
                for a in self.aggregates
            ],
            "windows": [{"size_us": s, "every_us": every, "tumbling": over} for s, every, over in windows],
            "ttl_us": self.ttl_us,
        }  # fmt: skip
        said = json.dumps([1, meaning], sort_keys=True, ensure_ascii=False).encode()
        return {**meaning, "fingerprint": int.from_bytes(hashlib.sha256(said).digest()[:8], "little")}

    @cached_property
    def native(self) -> native.View:
        return native.View(json.dumps(self.document, ensure_ascii=False))


@dataclass(frozen=True)
class ViewsFile:
    """A file that was read."""

    path: Path
    name: str
    entities: Mapping[str, Entity]
    views: Mapping[str, View]
    description: str = ""

    def view(self, name: str) -> View:
        """By name. Raises `RequestError`."""
        if name not in self.views:
            hint = did_you_mean(name, self.views, f"it has {', '.join(self.views) or 'none'}")
            raise RequestError(f"{self.path} has no view '{name}'", hint, "VIEW020")
        return self.views[name]
