"""A feature file as a value: what the XML says, before anything is given a meaning."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

ItemKind = Literal["define", "slot", "dense"]


@dataclass(frozen=True)
class Dictionary:
    """`<dict>`: a file of values, or (`source`) the output "node.output" of another node of the flow."""

    name: str
    path: str = ""
    source: str = ""
    line: int = 0


@dataclass(frozen=True)
class Item:
    """`<define>`, `<slot>` or `<dense>`. `attrs` has every attribute but name and fn, in written order."""

    kind: ItemKind
    name: str
    fn: str
    attrs: Mapping[str, str] = field(default_factory=dict)
    line: int = 0


@dataclass(frozen=True)
class FeatureFile:
    """A whole feature file, values of `${...}` filled in. `path` is absolute; `shown` is how messages name it."""

    path: Path
    shown: str
    name: str
    seed: str = "0"
    line: int = 0
    dictionaries: tuple[Dictionary, ...] = ()
    items: tuple[Item, ...] = ()
