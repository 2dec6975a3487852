"""The semantic pass, the authority on what is a good flow: every problem of a flow, found without running anything."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from penstock.data.schema import Info
from penstock.errors import Problem, ProblemsFound
from penstock.flow.checks.edges import (
    check_after,
    check_node_cycles,
    check_node_references,
    check_references,
    check_source,
    check_step_cycles,
    check_unused,
)
from penstock.flow.checks.findings import Findings, NodeState, Scene
from penstock.flow.checks.names import check_names
from penstock.flow.checks.nodes import check_node
from penstock.flow.checks.outputs import check_replaced, check_targets, promise
from penstock.flow.checks.schemas import check_schemas
from penstock.flow.checks.steps import check_step
from penstock.flow.model import Flow
from penstock.flow.reader import load
from penstock.flow.values import try_resolve


@dataclass(frozen=True)
class CheckedFlow:
    """A flow and all that its check found out. `problems` are sorted; with none of severity error it can be planned.

    `infos`: "node.step" (or "node.step.port") -> the schema or model that will flow there, where it is known.
    """

    flow: Flow
    values: Mapping[str, str]
    problems: tuple[Problem, ...] = ()
    infos: Mapping[str, Info] = field(default_factory=dict)
    nodes: tuple[NodeState, ...] = ()  # each after what it needs

    @property
    def failed(self) -> bool:
        return any(p.severity == "error" for p in self.problems)

    def raise_errors(self) -> None:
        """Raise `ProblemsFound`, warnings among them, if there is an error."""
        if self.failed:
            raise ProblemsFound(self.problems)


def check(
    flow: Flow, values: Mapping[str, str], broken: Iterable[str] = (), known: Iterable[Problem] = ()
) -> CheckedFlow:
    """Look at everything. `broken` and `known`: what reading the file already found (see `load`).

    Never raises for what the flow says, nor for what its files hold.
    """
    scene = Scene(flow, values, frozenset(broken), Findings(flow.file, list(known)))
    check_names(scene)
    for node in scene.all_nodes:
        check_node(scene, node)
        for step in node.all_steps:
            check_step(scene, node, step)
        check_after(scene, node)
    for node in scene.all_nodes:
        for step in node.all_steps:
            if step.source:
                check_source(scene, node, step)
            check_references(scene, node, step)
            check_node_references(scene, node, step)
        check_step_cycles(scene, node)
        check_unused(scene, node)
    check_node_cycles(scene)
    check_targets(scene)
    check_replaced(scene)
    check_schemas(scene, promise(scene))
    infos = {}
    for name in scene.order:
        for step_name, state in scene.nodes[name].steps.items():
            for port, info in state.infos.items():
                infos[f"{name}.{step_name}.{port}" if port else f"{name}.{step_name}"] = info
    problems = tuple(sorted(set(scene.findings.problems)))
    return CheckedFlow(flow, values, problems, infos, tuple(scene.nodes[name] for name in scene.order))


def check_file(
    path: Path | str,
    set: Mapping[str, str] | None = None,
    params_file: Path | str | None = None,
    date: str | None = None,
) -> tuple[Problem, ...]:
    """Every problem of one flow file, from its first character to its columns."""
    reading = load(path)
    if reading.flow is None:
        return tuple(sorted(reading.problems))
    values, problems = try_resolve(reading.flow, set, params_file, date)
    return check(reading.flow, values, reading.broken, [*reading.problems, *problems]).problems
