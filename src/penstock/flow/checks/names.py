"""Names: well formed, and each given once; canvas positions are numbers."""

from __future__ import annotations

import re
from collections.abc import Iterable

from penstock.flow.checks.findings import Findings, NodeState, Scene, StepState
from penstock.flow.model import Position

NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def check_names(scene: Scene) -> None:
    """Fill `scene.nodes` and every node's `steps`, telling bad and repeated names."""
    flow, findings = scene.flow, scene.findings
    if flow.name:
        _well_formed(findings, flow.line, "the flow", flow.name)
    if not flow.nodes and not scene.broken:
        findings.add(flow.line, "FLOW070", "the flow has no nodes", 'add <node name="..." engine="local">')
    _once(findings, "parameter", ((p.name, p.line) for p in flow.params))
    _once(findings, "node", ((n.name, n.line) for n in flow.nodes))
    for node in flow.nodes:
        state = NodeState(node)
        scene.all_nodes.append(state)
        if node.name:
            scene.nodes.setdefault(node.name, state)
        _place(findings, node.line, f"node '{node.name}'", node.position)
        _once(findings, "step", ((s.name, s.line) for s in node.steps), f" in node '{node.name}'")
        for step in node.steps:
            each = StepState(step)
            state.all_steps.append(each)
            if step.name:
                state.steps.setdefault(step.name, each)
            _place(findings, step.line, str(each), step.position)


def _once(findings: Findings, what: str, named: Iterable[tuple[str, int]], where: str = "") -> None:
    seen: dict[str, int] = {}
    for name, line in named:
        if not name:
            continue
        if name in seen:
            first = f" (the first is in line {seen[name]})" if seen[name] else ""
            findings.add(line, "FLOW011", f"there are two {what}s named '{name}'{where}{first}", "rename one of them")
        else:
            seen[name] = line
            _well_formed(findings, line, what, name)


def _well_formed(findings: Findings, line: int, what: str, name: str) -> None:
    if not NAME.fullmatch(name):
        plain = re.sub(r"[^A-Za-z0-9_]", "_", name)
        plain = plain if NAME.fullmatch(plain) else f"_{plain}"
        message = f"{what} name '{name}' is not made of letters, digits and _ with no digit first"
        findings.add(line, "FLOW010", message, f"write '{plain}'")


def _place(findings: Findings, line: int, what: str, position: Position | None) -> None:
    for axis, text in (("x", position.x), ("y", position.y)) if position else ():
        if text and not re.fullmatch(r"-?\d+(\.\d+)?([eE][+-]?\d+)?", text):
            findings.add(line, "FLOW016", f"the canvas position {axis} of {what} is '{text}', not a number")
