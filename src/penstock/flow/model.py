"""The flow as a value: what XML, canvas JSON and the Python builder all describe, and nothing else.

Attributes stay the strings the user wrote; `check` gives them meaning. Every element knows the line of its `<`
(0 where the form has no lines) and the comments before it, so that the three forms lose nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

StepKind = Literal["input", "process", "output"]


@dataclass(frozen=True)
class Position:
    """Where the canvas draws an element, in pixels, as written."""

    x: str
    y: str


@dataclass(frozen=True)
class Param:
    """`<param>`: a value the user may set; `default=None` means required. `type` stays as written ("" = string)."""

    name: str
    type: str = ""
    default: str | None = None
    description: str = ""
    line: int = field(default=0, compare=False)
    comments: tuple[str, ...] = ()


@dataclass(frozen=True)
class Setting:
    """`<conf key value>` or `<env name value>`."""

    name: str
    value: str
    line: int = field(default=0, compare=False)
    comments: tuple[str, ...] = ()


@dataclass(frozen=True)
class Argument:
    """`<arg>text</arg>` of a command node."""

    text: str
    line: int = field(default=0, compare=False)
    comments: tuple[str, ...] = ()


@dataclass(frozen=True)
class Step:
    """One module of a node. `attrs` holds every attribute but name, type and class, in written order."""

    kind: StepKind
    name: str
    type: str = ""
    cls: str = ""
    attrs: Mapping[str, str] = field(default_factory=dict)
    text: str = ""
    position: Position | None = None
    line: int = field(default=0, compare=False)
    comments: tuple[str, ...] = ()


@dataclass(frozen=True)
class Node:
    """One node of the outer DAG. `attrs`: every attribute but name and engine (after, on, cpus, retries, ...)."""

    name: str
    engine: str = "local"
    attrs: Mapping[str, str] = field(default_factory=dict)
    conf: tuple[Setting, ...] = ()
    env: tuple[Setting, ...] = ()
    args: tuple[Argument, ...] = ()
    steps: tuple[Step, ...] = ()
    position: Position | None = None
    line: int = field(default=0, compare=False)
    comments: tuple[str, ...] = ()
    last_comments: tuple[str, ...] = ()  # after the last child

    def step(self, name: str) -> Step | None:
        return next((s for s in self.steps if s.name == name), None)


@dataclass(frozen=True)
class Flow:
    """A whole flow. `file` is the path it was read from, as the user gave it ("" = built in memory)."""

    name: str
    description: str = ""
    params: tuple[Param, ...] = ()
    nodes: tuple[Node, ...] = ()
    file: str = field(default="", compare=False)
    line: int = field(default=0, compare=False)
    comments: tuple[str, ...] = ()  # before the root element
    last_comments: tuple[str, ...] = ()  # after the last child
    after_comments: tuple[str, ...] = ()  # after the root element

    def node(self, name: str) -> Node | None:
        return next((n for n in self.nodes if n.name == name), None)
