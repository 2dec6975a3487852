"""The local engine: one node's inner DAG on Polars, in this process. What it does when it runs is in `local_node`."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import ClassVar

from pydantic import BaseModel, ConfigDict, Field

from penstock.engines.base import Events
from penstock.engines.spec import NodeResult, NodeSpec
from penstock.operators.base import Fault


class LocalSettings(BaseModel):
    """`<conf>` of a local node."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    threads: int | None = Field(None, ge=1, description="threads it computes with; default: the node's cpus, else all")
    hash_inputs: bool = Field(False, description="key the cache by its inputs' content rather than size and mtime")


class LocalEngine:
    """Runs a node on Polars. Same inputs and seed give the same rows in the same order at any number of threads."""

    name: ClassVar[str] = "local"
    settings: ClassVar[type[BaseModel]] = LocalSettings

    def check(self, spec: NodeSpec) -> tuple[Fault, ...]:
        return ()

    def python(self, conf: Mapping[str, str]) -> str:
        return sys.executable

    def run(self, spec: NodeSpec, events: Events) -> NodeResult:
        # Checking a flow needs this class and its settings only; what runs a node is imported where one runs.
        from penstock.engines.local_node import run_node

        return run_node(spec, events)


__all__ = ["LocalEngine", "LocalSettings"]
