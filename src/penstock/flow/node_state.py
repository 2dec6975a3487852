"""Where the nodes of a run stand while it runs, who is told, and what a worker left behind."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from penstock.engines.spec import NodeResult
from penstock.engines.worker import RESULT
from penstock.flow import cache
from penstock.flow.plan import PlannedNode
from penstock.flow.records import NodeStatus, StoredOutput


class Watcher(Protocol):
    """Who is told what happens (a terminal, a log); it must not block."""

    def started(self, run: str, nodes: tuple[str, ...], folder: Path) -> None: ...
    def node(self, state: NodeState) -> None: ...
    def progress(self, state: NodeState, event: Mapping[str, Any]) -> None: ...
    def note(self, text: str) -> None: ...


@dataclass
class NodeState:
    """Where one node stands in this run."""

    plan: PlannedNode
    status: NodeStatus = "waiting"
    attempt: int = 0
    tries: int = 0  # of this runner; attempts count over all runners of the run
    cached_from: str = ""
    kept: bool = False  # done before this runner took the run over
    started: float = 0.0
    ended: float = 0.0
    not_before: float = 0.0
    deadline: float = math.inf
    stopping: str = ""  # why it is being stopped: "timeout", "interrupted"
    stop_by: float = math.inf
    keyed: cache.Keyed | None = None
    result: Mapping[str, Any] = field(default_factory=dict)
    outputs: dict[str, StoredOutput] = field(default_factory=dict)
    error: str = ""
    hint: str = ""
    code: str = ""
    problems: tuple[Mapping[str, Any], ...] = ()
    events_at: int = 0

    @property
    def name(self) -> str:
        return self.plan.name

    @property
    def seconds(self) -> float:
        return max(0.0, (self.ended or time.time()) - self.started) if self.started else 0.0

    @property
    def rows(self) -> int | None:
        """Rows it wrote, over all its frames; None where nobody counted."""
        counted = [o.rows for o in self.outputs.values() if o.rows is not None]
        return sum(counted) if counted else None


def read_result(folder: Path) -> NodeResult | None:
    """What a worker left in its attempt's folder; None where it left nothing whole."""
    try:
        return NodeResult.model_validate_json((folder / RESULT).read_bytes())
    except (OSError, ValueError):
        return None


def stored_outputs(result: NodeResult) -> dict[str, StoredOutput]:
    """The outputs of a result as the run store keeps them, with how they look now."""
    return {
        name: StoredOutput(o.path, o.rows, o.size_bytes, o.content, cache.stat_of(o.path))
        for name, o in result.outputs.items()
    }
