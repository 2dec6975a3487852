"""What the checks share: the list of problems, and each node and step as far as it is understood."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from penstock.data.schema import Info
from penstock.engines.base import Engine
from penstock.errors import Problem, Severity
from penstock.flow.model import Flow, Node, Step
from penstock.flow.values import ValueFault, flow_dir
from penstock.operators.base import AnyOperator, CheckContext


@dataclass
class Findings:
    """The problems so far. A thing that already has a problem is not reported for what follows from it."""

    file: str
    problems: list[Problem] = field(default_factory=list)

    def add(self, line: int, code: str, message: str, hint: str = "", severity: Severity = "error") -> None:
        self.problems.append(Problem(self.file, line, code, message, hint, severity))

    def warn(self, line: int, code: str, message: str, hint: str = "") -> None:
        self.add(line, code, message, hint, "warning")

    def value(self, line: int, where: str, fault: ValueFault) -> None:
        self.add(line, fault.code, f"{where}: {fault.message}", fault.hint)


@dataclass
class StepState:
    """A step under check. `operator` None: it could not be built (and the problem is told).

    `attrs` and `text` are interpolated, paths absolute. `source` is the "node.output" an input reads from.
    `inputs`: reference as written -> (step, port) for what is found. `infos`: port -> info; missing = unknown.
    """

    step: Step
    operator: AnyOperator | None = None
    type: str = ""
    attrs: dict[str, str] = field(default_factory=dict)
    text: str = ""
    source: str = ""
    sound: bool = True
    inputs: dict[str, tuple[str, str]] = field(default_factory=dict)
    infos: Mapping[str, Info] = field(default_factory=dict)
    ports: tuple[str, ...] | None = None  # None: unknown

    def __str__(self) -> str:
        return f"{self.step.kind} '{self.step.name}'"


@dataclass
class NodeState:
    """A node under check. `steps` holds the first of each name; `needs` the nodes it must come after."""

    node: Node
    steps: dict[str, StepState] = field(default_factory=dict)
    all_steps: list[StepState] = field(default_factory=list)
    needs: dict[str, None] = field(default_factory=dict)
    engine: Engine | None = None
    engine_name: str = ""
    conf: dict[str, str] = field(default_factory=dict)
    env: dict[str, str] = field(default_factory=dict)
    args: tuple[str, ...] = ()
    retries: int = 0
    timeout_s: float | None = None
    memory_bytes: int = 0
    cpus: float = 0.0
    priority: int = 0
    node_outputs: tuple[str, ...] = ()
    context: CheckContext = field(default_factory=CheckContext)
    order: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        return self.node.name

    @property
    def is_command(self) -> bool:
        return self.engine_name == "command"


@dataclass
class Scene:
    """Everything one check looks at."""

    flow: Flow
    values: Mapping[str, str]
    broken: frozenset[str]
    findings: Findings
    nodes: dict[str, NodeState] = field(default_factory=dict)
    all_nodes: list[NodeState] = field(default_factory=list)
    order: tuple[str, ...] = ()

    @cached_property
    def flow_dir(self) -> Path:
        """The folder that relative paths start at."""
        return flow_dir(self.flow)
