"""Who reads whom: references inside nodes and between them, ports, cycles, and steps that nothing reads."""

from __future__ import annotations

from collections.abc import Iterator

from penstock.errors import PenstockError
from penstock.flow.checks.findings import NodeState, Scene, StepState
from penstock.flow.checks.steps import adopt_twin, closest
from penstock.flow.graph import cycles, order
from penstock.flow.values import ValueFault, interpolate
from penstock.operators.base import CheckContext, Output, Reference

# --- between nodes ------------------------------------------------------------------------------------------


def check_after(scene: Scene, state: NodeState) -> None:
    """`after` names nodes of this flow."""
    try:
        after = interpolate(state.node.attrs.get("after", ""), scene.values)
    except ValueFault:
        return  # told with the node's other attributes
    for name in after.replace(",", " ").split():
        if name in scene.nodes:
            state.needs[name] = None
        elif name not in scene.broken:
            message = f"node '{state.name}' is to run after '{name}', which is not a node of this flow"
            scene.findings.add(state.node.line, "FLOW040", message, closest(name, _nodes(scene), "nodes"))


def check_source(scene: Scene, node: NodeState, state: StepState) -> None:
    """An input's `from`: NODE.OUTPUT. Gives the input the output's twin as its operator."""
    output = find_output(scene, state, state.source, f"{state} of node '{node.name}' reads")
    if output is None:
        state.sound = False
        return
    source = state.source.partition(".")[0]
    node.needs[source] = None
    if output.operator is None:
        state.sound = False  # told at the output
    elif state.sound and isinstance(output.operator, Output):
        adopt_twin(scene, state, output.operator, f"'{state.source}'")


def find_output(scene: Scene, state: StepState, reference: str, who: str) -> StepState | None:
    """The output that "node.output" names; a problem, if it is not already told, and None otherwise."""
    line, findings = state.step.line, scene.findings
    name, dot, output = reference.strip().partition(".")
    if not dot or not name or not output:
        hint = "an input reads NODE.OUTPUT; a step of its own node is read by the processes themselves"
        if name in scene.nodes:
            outputs = _outputs(scene.nodes[name])
            hint = closest("", [f"{name}.{o}" for o in outputs], "outputs of that node") or hint
        findings.add(line, "FLOW040", f"{who} from '{reference}', which is not of the form NODE.OUTPUT", hint)
        return None
    if name in scene.broken or f"{name}.{output}" in scene.broken:
        return None
    if name not in scene.nodes:
        message = f"{who} from '{reference}', but there is no node '{name}'"
        findings.add(line, "FLOW040", message, closest(name, _nodes(scene), "nodes"))
        return None
    found = scene.nodes[name].steps.get(output)
    if found is None or found.step.kind != "output":
        outputs = _outputs(scene.nodes[name])
        if found is not None:
            message = f"{who} from '{reference}', but '{output}' is an inner step of node '{name}', not an output"
        else:
            message = f"{who} from '{reference}', but node '{name}' has no output '{output}'"
        hint = closest(output, outputs, "its outputs") or f"node '{name}' has no outputs: add <output>"
        findings.add(line, "FLOW041", message, hint)
        return None
    return found


def check_node_cycles(scene: Scene) -> None:
    """Nodes that wait for each other, in order; `scene.order` has every node after what it needs."""
    graph = {name: [n for n in state.needs if n in scene.nodes] for name, state in scene.nodes.items()}
    for cycle in cycles(graph):
        # `needs` points backwards; a person reads the way the data goes.
        shown = " -> ".join([cycle[0], *reversed(cycle)])
        line = scene.nodes[cycle[0]].node.line
        message = f"nodes wait for each other: {shown}"
        if len(cycle) == 1:
            message = f"node '{cycle[0]}' waits for itself"
        scene.findings.add(line, "FLOW044", message, "drop one of these from= or after= edges")
    scene.order = tuple(order(graph))


def _nodes(scene: Scene) -> list[str]:
    return list(scene.nodes)


def _outputs(state: NodeState) -> list[str]:
    return [name for name, step in state.steps.items() if step.step.kind == "output"]


# --- inside a node ------------------------------------------------------------------------------------------


def check_references(scene: Scene, node: NodeState, state: StepState) -> None:
    """Every reference of the step's operator names a step of this node, and the port it has."""
    if state.operator is None or state.step.kind == "input" or node.is_command:
        return
    for field, reference, marker in state.operator.references():
        _reference(scene, node, state, _attribute(state, field), reference, marker)


def _reference(scene: Scene, node: NodeState, state: StepState, field: str, reference: str, marker: Reference) -> None:
    line, findings = state.step.line, scene.findings
    name, _, port = reference.partition(".")
    found = node.steps.get(name)
    if found is None:
        if marker.or_location and ("/" in reference or ":" in reference):  # made absolute if it is a place
            return
        state.sound = False
        if f"{node.name}.{name}" in scene.broken:
            return
        does = f"reads from '{name}'" if field == "from" else f"has {field}='{name}'"
        readable = [n for n, s in node.steps.items() if s.step.kind != "output" and n != state.step.name]
        message = f"{state} of node '{node.name}' {does}, which is not a step of this node"
        hint = closest(name, readable, "steps")
        if not hint.startswith("did you") and name in scene.nodes:
            inputs = f'<input name="{port or name}" from="{reference}"/>'
            hint = f"'{name}' is another node: read it by an input, {inputs}"
        findings.add(line, "FLOW004", message, hint)
        return
    if found.step.kind == "output":
        state.sound = False
        origin = found.attrs.get("from", "")
        message = f"{state} reads from '{name}', which is an output: nothing flows out of it inside the node"
        findings.add(line, "FLOW046", message, f'read what it writes: {field}="{origin}"' if origin else "")
        return
    state.inputs[reference] = (name, port)
    if found.ports is None:
        return
    if port and port not in found.ports:
        state.sound = False
        ports = [p for p in found.ports if p]
        if ports:
            message = f"{state} reads from '{reference}', but {found} has no port '{port}'"
            findings.add(line, "FLOW042", message, closest(port, ports, "its ports"))
        else:
            message = f"{state} reads from '{reference}', but {found} has only one result"
            findings.add(line, "FLOW042", message, f'write {field}="{name}"')
    elif not port and "" not in found.ports:
        state.sound = False
        ways = ", ".join(f"{name}.{p}" for p in found.ports)
        message = f"{state} reads from '{name}', which has several ports"
        findings.add(line, "FLOW048", message, f"say which: {ways}")


def _attribute(state: StepState, field: str) -> str:
    info = type(state.operator).model_fields[field] if state.operator is not None else None
    return (info.alias if info is not None else None) or field


def check_step_cycles(scene: Scene, node: NodeState) -> None:
    """Steps that feed each other, in order; `node.order` has each step after what it reads."""
    graph = {name: [n for n, _ in step.inputs.values()] for name, step in node.steps.items()}
    for cycle in cycles(graph):
        first = node.steps[cycle[0]]
        shown = " -> ".join([cycle[0], *reversed(cycle)])
        message = f"steps of node '{node.name}' feed each other: {shown}"
        if len(cycle) == 1:
            message = f"{first} reads itself"
        scene.findings.add(first.step.line, "FLOW043", message, "one of them has to read something else")
        for name in cycle:
            node.steps[name].sound = False
    node.order = tuple(order(graph))


def check_unused(scene: Scene, node: NodeState) -> None:
    """Warn of what no output needs; silent where a broken step may be what would have read it."""
    if node.is_command or node.engine is None or any(not step.sound for step in node.all_steps):
        return
    if any(name.startswith(f"{node.name}.") for name in scene.broken):
        return
    if not any(step.step.kind == "output" for step in node.all_steps):
        if node.steps:
            message = f"node '{node.name}' has no output, so nothing in it runs"
            scene.findings.warn(node.node.line, "FLOW051", message, "add an <output>, or delete the node")
        return
    read = {name for step in node.all_steps for name, _ in step.inputs.values()}
    for state in _leaves(node, read):
        message = f"nothing reads {state}, so it never runs"
        scene.findings.warn(state.step.line, "FLOW050", message, "write it to an <output>, or delete it")


def _leaves(node: NodeState, read: set[str]) -> Iterator[StepState]:
    return (s for n, s in node.steps.items() if s.step.kind != "output" and n not in read)


# --- by name, out of files ----------------------------------------------------------------------------------


def check_node_references(scene: Scene, node: NodeState, state: StepState) -> None:
    """Other nodes' outputs that the operator reads by name (a features file's dictionary): edges like `from`."""
    if state.operator is None or node.is_command:
        return
    context = CheckContext(flow_dir=scene.flow_dir, step=state.step.name, values=scene.values)
    try:
        references = state.operator.node_references(context)
    except PenstockError:
        return  # its own check will say what is wrong with the file
    for reference in references:  # an unknown one is told by the operator, with its own file and line
        name, _, output = reference.partition(".")
        if name in scene.nodes and output in _outputs(scene.nodes[name]):
            node.needs[name] = None
            node.node_outputs += (reference,)
