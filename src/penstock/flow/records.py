"""What the run store remembers, as values: a run, its nodes, the outputs they left, and what the cache may give."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

RunStatus = Literal["running", "done", "failed", "interrupted"]
NodeStatus = Literal["waiting", "running", "done", "failed", "skipped", "interrupted"]


@dataclass(frozen=True)
class StoredOutput:
    """One output as it was left. `stat` is its quick fingerprint (sizes and mtimes), `content` its hash."""

    path: str
    rows: int | None = None
    size_bytes: int = 0
    content: str = ""
    stat: str = ""


@dataclass(frozen=True)
class RunRecord:
    run: str
    flow: str
    flow_file: str
    date: str
    params: Mapping[str, str]
    only: tuple[str, ...]
    status: RunStatus
    started: float
    ended: float | None = None
    pid: int = 0


@dataclass(frozen=True)
class NodeRecord:
    node: str
    status: NodeStatus
    key: str = ""
    cached_from: str = ""
    started: float | None = None
    ended: float | None = None
    error: str = ""
    hint: str = ""
    code: str = ""
    result: Mapping[str, Any] = field(default_factory=dict)
    lineage: Mapping[str, Any] = field(default_factory=dict)

    @property
    def seconds(self) -> float:
        return max(0.0, self.ended - self.started) if self.ended and self.started else 0.0


@dataclass(frozen=True)
class CacheEntry:
    key: str
    run: str
    node: str
    result: Mapping[str, Any]
    outputs: Mapping[str, StoredOutput]
