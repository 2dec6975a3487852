"""What an engine is: it runs one node's inner DAG on one computing engine and holds no state between runs."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any, ClassVar, Protocol

from pydantic import BaseModel

from penstock.engines.spec import NodeResult, NodeSpec
from penstock.errors import RequestError, did_you_mean
from penstock.operators.base import Fault


class Events(Protocol):
    """Where a running engine tells what happens; the worker prints each as one NDJSON line."""

    def progress(self, step: str, message: str = "", rows: int = 0, done: int = 0, total: int = 0) -> None: ...
    def log(self, message: str) -> None: ...


class Engine(Protocol):
    """An adapter: it translates, nothing more. Found by entry point in the group `penstock.engines`."""

    name: ClassVar[str]
    #: Typed settings of `<conf>`; unknown keys are problems at check.
    settings: ClassVar[type[BaseModel]]

    def check(self, spec: NodeSpec) -> tuple[Fault, ...]:
        """What is wrong with this node for this engine, beyond its operators (pure; no heavy imports)."""

    def python(self, conf: Mapping[str, str]) -> str:
        """The interpreter its worker runs under."""

    def run(self, spec: NodeSpec, events: Events) -> NodeResult:
        """Run the node. Outputs are whole when it returns; on an exception the old targets stand."""


class UnknownEngine(RequestError):
    def __init__(self, name: str, installed: list[str]) -> None:
        hint = did_you_mean(name, installed, f"installed engines: {', '.join(installed)}")
        super().__init__(f"there is no engine '{name}'", hint)


@cache
def _installed() -> dict[str, EntryPoint]:
    """Looking through all installed packages takes 10 ms; a flow of 1,000 nodes asks 1,000 times."""
    return {ep.name: ep for ep in entry_points(group="penstock.engines")}


def engine(name: str) -> Engine:
    """The engine of that name, loaded on first need. Raises `UnknownEngine`."""
    found = _installed()
    if name not in found:
        raise UnknownEngine(name, installed=sorted(found))
    loaded: Any = found[name].load()
    return loaded()  # type: ignore[no-any-return]
