"""A flow told as text: what a person reads before running it."""

from __future__ import annotations

from collections.abc import Iterator

from penstock.flow.model import Flow, Node, Step
from penstock.flow.plan import Plan, PlannedNode

#: The attributes that name steps of the same node in the built-in operators; drawing asks for no operator.
EDGES = ("from", "model", "valid", "plan", "fit_from")


def tell(flow: Flow) -> str:
    """The nodes in written order, each with its steps and what they read."""
    lines = [f"{flow.name}: {flow.description}" if flow.description else flow.name]
    for param in flow.params:
        default = "must be given" if param.default is None else f"default {param.default}"
        said = f": {param.description}" if param.description else ""
        lines.append(f"  {param.name} ({param.type or 'string'}, {default}){said}")
    for node in flow.nodes:
        needs = sorted(node_needs(node))
        after = f"  after {', '.join(needs)}" if needs else ""
        lines += ["", f"{node.name}  [{node.engine}]{after}", *_steps(node)]
    return "\n".join(lines) + "\n"


def node_needs(node: Node) -> set[str]:
    """The nodes whose outputs it reads, or that it comes `after`, as far as the text says."""
    after = node.attrs.get("after", "").replace(",", " ").split()
    reads = [s.attrs["from"].partition(".")[0] for s in node.steps if s.kind == "input" and "from" in s.attrs]
    return {*after, *reads}


def step_needs(step: Step, node: Node) -> list[str]:
    """The steps of its node that it reads, as far as the text says."""
    if step.kind == "input":
        return []
    names = {s.name for s in node.steps}
    words = [w for a in EDGES for w in step.attrs.get(a, "").replace(",", " ").split()]
    return [w.partition(".")[0] for w in words if w.partition(".")[0] in names]


def _steps(node: Node) -> Iterator[str]:
    width = max((len(s.name) for s in node.steps), default=0)
    for argument in node.args:
        yield f"  $ {argument.text}"
    for step in node.steps:
        what = step.type or step.cls
        what = f"{step.kind} {what}".strip() if step.kind != "process" else what
        reads = f"  <- {step.attrs['from']}" if "from" in step.attrs else ""
        path = ""
        if step.attrs.get("path"):
            path = f"  {'->' if step.kind == 'output' else '<-'} {step.attrs['path']}"
        yield f"  {step.name:<{width}}  {what:<18}{reads}{path}".rstrip()


def tell_plan(plan: Plan) -> str:
    """The nodes in the order they would run, with values in place."""
    lines = [f"{plan.name}: {len(plan.nodes)} node{'s' * (len(plan.nodes) != 1)}, in the order they may run"]
    lines += [f"  {name} = {value}" for name, value in plan.params.items()]
    for number, node in enumerate(plan.nodes, start=1):
        lines += ["", f"{number}. {node.name}  [{node.engine}]{_extras(node)}"]
        for step in node.steps:
            attrs = " ".join(f"{k}={v!r}" for k, v in step.attrs.items())
            lines.append(f"     {step.kind:<7} {step.name}  {step.type or step.cls}  {attrs}".rstrip())
        for output in node.outputs.values():
            if output.kind != "none":
                place = output.path or f"run store/{node.name}/{output.file}"
                lines.append(f"     writes  {place}{'/' * output.folder}  ({output.mode})")
    return "\n".join(lines) + "\n"


def plan_document(plan: Plan) -> dict[str, object]:
    """The plan as plain JSON values."""
    nodes = [
        {
            "name": node.name,
            "engine": node.engine,
            "needs": list(node.needs),
            "steps": [step.model_dump(exclude_defaults=True) for step in node.steps],
            "outputs": {o.name: {"path": o.path, "folder": o.folder, "mode": o.mode} for o in node.outputs.values()},
            "retries": node.retries,
            "timeout_s": node.timeout_s,
            "memory_bytes": node.memory_bytes,
        }
        for node in plan.nodes
    ]
    return {"flow": plan.name, "params": dict(plan.params), "nodes": nodes}


def _extras(node: PlannedNode) -> str:
    said = [f"after {', '.join(node.needs)}"] if node.needs else []
    said += [f"up to {node.retries + 1} attempts"] if node.retries else []
    said += [f"at most {node.timeout_s:g} s"] if node.timeout_s else []
    said += [f"at most {node.memory_bytes / 2**20:,.0f} MiB"] if node.memory_bytes else []
    return f"  {'; '.join(said)}" if said else ""
