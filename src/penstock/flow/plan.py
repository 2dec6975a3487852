"""From a checked flow to the DAG of nodes that a runner executes.

Paths that only the run knows stay open in a plan: outputs without `path`, which live in the run store, and what
a node reads from other nodes (a cached node's outputs may lie in an older run). `PlannedNode.bind(paths)` puts them
in just before the node starts and gives the steps for its `NodeSpec`.

Secrets: every string of a plan still holds `${secret.NAME}`. The worker (each engine) calls
`penstock.operators.secrets.reveal(text)` on attributes, text, `conf`, `env` and `args` just before use, from its own
environment (PENSTOCK_SECRET_NAME); `penstock.operators.secrets.mask` cleans what is logged or shown.
"""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Literal

from penstock.engines.spec import StepSpec
from penstock.flow.check import CheckedFlow
from penstock.flow.checks.findings import NodeState
from penstock.flow.checks.schemas import step_specs
from penstock.flow.values import flow_dir
from penstock.operators.base import AnyOperator, CheckContext, Input, Output


@dataclass(frozen=True)
class PlannedOutput:
    """Where one output goes. `path` None: the run store, under the name `file` in this node's folder of outputs."""

    name: str
    type: str
    path: str | None
    file: str  # "train.parquet", or "train" where it is a folder
    folder: bool
    mode: Literal["replace", "error", "append"]
    kind: Literal["frame", "model", "none"]  # none: nothing is written (print)


@dataclass(frozen=True)
class PlannedNode:
    """One node, ready to be keyed for the cache and run.

    `steps` are interpolated, with absolute paths; open paths are absent from `attrs` until `bind`.
    `from_nodes`: input step -> "node.output" it reads. `node_outputs`: further "node.output" its operators read by
    name (a features file's dictionary). `fresh`: it must start a fresh interpreter (`env`, or a `class=` of the
    user's). `code`: step -> fingerprint of the user's own operator. `memory_bytes`, `cpus` 0: not said.
    `timeout_s` None: no limit.
    """

    name: str
    engine: str
    needs: tuple[str, ...] = ()
    steps: tuple[StepSpec, ...] = ()
    conf: Mapping[str, str] = field(default_factory=dict)
    env: Mapping[str, str] = field(default_factory=dict)
    args: tuple[str, ...] = ()
    retries: int = 0
    timeout_s: float | None = None
    memory_bytes: int = 0
    cpus: float = 0.0
    priority: int = 0
    outputs: Mapping[str, PlannedOutput] = field(default_factory=dict)
    from_nodes: Mapping[str, str] = field(default_factory=dict)
    node_outputs: tuple[str, ...] = ()
    fresh: bool = False
    code: Mapping[str, str] = field(default_factory=dict)
    operators: Mapping[str, AnyOperator] = field(default_factory=dict, repr=False)
    context: CheckContext = field(default_factory=CheckContext, repr=False)
    line: int = 0

    def bind(self, paths: Mapping[str, str]) -> tuple[StepSpec, ...]:
        """The steps with every path in place. `paths`: "node.output" -> path or URL, for this node's outputs that
        have no path of their own and for every output it reads (`from_nodes`). Raises KeyError if one is missing.
        """
        bound = []
        for step in self.steps:
            if step.name in self.from_nodes:
                path = paths[self.from_nodes[step.name]]
            elif (output := self.outputs.get(step.name)) and output.path is None and output.kind != "none":
                path = paths[f"{self.name}.{step.name}"]
            else:
                bound.append(step)
                continue
            bound.append(step.model_copy(update={"attrs": {**step.attrs, "path": path}}))
        return tuple(bound)

    def reads(self) -> tuple[str, ...]:
        """The data files and URLs its own inputs read now, globs expanded; ask again after earlier nodes wrote."""
        found: list[str] = []
        for step, operator in self.operators.items():
            if isinstance(operator, Input) and step not in self.from_nodes:
                found += operator.paths(self.context)
        return tuple(dict.fromkeys(found))

    def files(self) -> tuple[Path, ...]:
        """The side files its operators read now (features files, dictionaries)."""
        found: list[Path] = []
        for operator in self.operators.values():
            found += operator.files(self.context)
        return tuple(dict.fromkeys(found))


@dataclass(frozen=True)
class Plan:
    """A flow ready to run. `nodes` are in an order in which each comes after what it needs.

    `values` go into every `NodeSpec.values`; `flow_file` is absolute ("" = built in memory).
    """

    name: str
    nodes: tuple[PlannedNode, ...]
    values: Mapping[str, str] = field(default_factory=dict)
    params: Mapping[str, str] = field(default_factory=dict)
    flow_file: str = ""
    flow_dir: str = "."

    def node(self, name: str) -> PlannedNode:
        return next(n for n in self.nodes if n.name == name)


def plan(checked: CheckedFlow) -> Plan:
    """Turn a checked flow into nodes to run. Raises `ProblemsFound` if it has errors."""
    checked.raise_errors()
    flow = checked.flow
    return Plan(
        name=flow.name,
        nodes=tuple(_planned(node) for node in checked.nodes),
        values=checked.values,
        params={p.name: checked.values[p.name] for p in flow.params},
        flow_file=str(Path(flow.file).absolute()) if flow.file else "",
        flow_dir=str(flow_dir(flow)),
    )


def _planned(state: NodeState) -> PlannedNode:
    operators = {name: step.operator for name, step in state.steps.items() if step.operator is not None}
    own = {name: step for name, step in state.steps.items() if step.step.cls}
    return PlannedNode(
        name=state.name,
        engine=state.engine_name,
        needs=tuple(state.needs),
        steps=step_specs(state),
        conf=state.conf,
        env=state.env,
        args=state.args,
        retries=state.retries,
        timeout_s=state.timeout_s,
        memory_bytes=state.memory_bytes,
        cpus=state.cpus,
        priority=state.priority,
        outputs={name: _output(name, op) for name, op in operators.items() if isinstance(op, Output)},
        from_nodes={name: step.source for name, step in state.steps.items() if step.source},
        node_outputs=state.node_outputs,
        fresh=bool(state.env or own),
        code={name: code for name in operators if (code := _code(operators[name], name in own))},
        operators=operators,
        context=state.context,
        line=state.node.line,
    )


def _output(name: str, operator: Output) -> PlannedOutput:
    suffix = type(operator).suffix
    # Where the operator is asked about a path of its own choosing, it tells whether that is a file or a folder.
    placed = operator if operator.path or not suffix else operator.model_copy(update={"path": f"{name}{suffix}"})
    folder = suffix is not None and placed.folder()
    return PlannedOutput(
        name=name,
        type=type(operator).type,
        path=operator.path or None,
        file=name if folder or not suffix else f"{name}{suffix}",
        folder=folder,
        mode=operator.mode,
        kind="none" if suffix is None else "model" if type(operator).type == "model" else "frame",
    )


def _code(operator: AnyOperator, own: bool) -> str:
    """What the cache must know of a step's code beyond the package's version: the user's class, and what it names."""
    said = operator.code()
    return f"{_source(type(operator))}:{said}" if own else said


@cache
def _source(cls: type[object]) -> str:
    """The hash of the file a class was loaded from, "" where there is none (typed into an interpreter)."""
    try:
        return hashlib.sha256(Path(inspect.getfile(cls)).read_bytes()).hexdigest()
    except (OSError, TypeError):
        return ""
