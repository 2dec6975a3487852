"""Columns, types, roles and models along every edge: each operator's own check, in the order data flows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from penstock.data.schema import Info, ModelInfo, Schema
from penstock.engines.spec import NodeSpec, StepSpec
from penstock.errors import PenstockError, Problem, did_you_mean
from penstock.flow.checks.findings import NodeState, Scene, StepState
from penstock.flow.checks.steps import broke
from penstock.operators.base import CheckContext, Checked, Fault, Input


def check_schemas(scene: Scene, promised: Mapping[str, frozenset[str]]) -> None:
    """Run the operators' checks through the whole flow and merge what they find."""
    outputs: dict[str, Info] = {}
    for name in scene.order:
        node = scene.nodes[name]
        node.context = CheckContext(
            flow_dir=scene.flow_dir,
            promised=promised.get(name, frozenset()),
            node_outputs=outputs,
            values=scene.values,
        )
        for step_name in node.order:
            state = node.steps[step_name]
            _check_step(scene, node, state, outputs)
            if state.step.kind == "output":
                outputs[f"{name}.{step_name}"] = state.infos.get("", Schema.unknown())
        _check_engine(scene, node)


def _check_step(scene: Scene, node: NodeState, state: StepState, outputs: Mapping[str, Info]) -> None:
    operator = state.operator
    if operator is None:
        return
    if state.source:
        state.infos = {"": _narrowed(scene, state, outputs.get(state.source, Schema.unknown()))}
        return
    context = replace(node.context, step=state.step.name)
    if node.is_command:
        # Its program reads and writes files as it likes: only that its inputs are there can be checked.
        checked = operator.check(context) if isinstance(operator, Input) else Checked({"": Schema.unknown()})
        _merge(scene, state, checked.faults)
        state.infos = checked.outputs
        return
    inputs = _inputs(scene, node, state)
    if inputs is None or not state.sound:
        return
    try:
        checked = operator.check(context) if isinstance(operator, Input) else operator.check(inputs, context)
    except PenstockError as error:
        checked = Checked({}, (Fault(error.code or "OPER007", error.message, error.hint),))
    except Exception as error:
        if not state.step.cls:
            raise
        broke(scene, state, error)
        return
    _merge(scene, state, checked.faults)
    state.infos = checked.outputs
    _engine_takes(scene, node, state)


def _merge(scene: Scene, state: StepState, faults: tuple[Fault, ...]) -> None:
    for fault in faults:
        if fault.file:
            found = Problem(fault.file, fault.line, fault.code, fault.message, fault.hint, fault.severity)
            if found not in scene.findings.problems:  # two steps may use one features file
                scene.findings.problems.append(found)
        else:
            scene.findings.add(
                fault.line or state.step.line, fault.code, f"{state}: {fault.message}", fault.hint, fault.severity
            )


def _inputs(scene: Scene, node: NodeState, state: StepState) -> dict[str, Info] | None:
    """Reference as written -> what flows there; None where a frame stands for a model or the other way round."""
    inputs: dict[str, Info] = {}
    fits = True
    for field, reference, marker in state.operator.references() if state.operator else ():
        if reference not in state.inputs:
            continue
        name, port = state.inputs[reference]
        info = node.steps[name].infos.get(port)
        if info is None:
            info = ModelInfo() if marker.accepts == "model" else Schema.unknown()
        elif marker.accepts != "any" and isinstance(info, ModelInfo) != (marker.accepts == "model"):
            fits = False
            is_, wants = ("a model", "a frame") if isinstance(info, ModelInfo) else ("a frame", "a model")
            attribute = (state.operator and type(state.operator).model_fields[field].alias) or field
            message = f"{state}: {attribute}='{reference}' is {is_}, but it takes {wants}"
            scene.findings.add(state.step.line, "FLOW045", message, _kind_hint(wants))
        inputs[reference] = info
    return inputs if fits else None


def _kind_hint(wants: str) -> str:
    if wants == "a model":
        return "models come from steps that train (gbdt, gbdt_lr, svm, ...) and from inputs of model outputs"
    return 'predict turns a model and a frame into a scored frame; output type="model" writes a model'


def _narrowed(scene: Scene, state: StepState, info: Info) -> Info:
    """What an input from another node gives: all the output holds, or the `columns` it asks for."""
    columns = getattr(state.operator, "columns", ())
    if not isinstance(info, Schema) or not columns or not isinstance(columns, tuple):
        return info
    kept = []
    for name in columns:
        column = info.get(name)
        if column is not None:
            kept.append(column)
        elif not info.open:
            message = f"{state}: '{state.source}' has no column '{name}'"
            hint = did_you_mean(name, info.names, f"its columns: {', '.join(info.names)}")
            scene.findings.add(state.step.line, "DATA006", message, hint)
    return info.with_columns(kept)


def _engine_takes(scene: Scene, node: NodeState, state: StepState) -> None:
    operator = state.operator
    if operator is None or node.engine is None or node.engine_name in type(operator).engines:
        return
    engines = ", ".join(sorted(type(operator).engines))
    message = f"{state}: engine '{node.engine_name}' cannot compute {state.step.cls or state.type}"
    scene.findings.add(state.step.line, "FLOW065", message, f"engines that can: {engines}")


def step_specs(node: NodeState) -> tuple[StepSpec, ...]:
    """The node's steps for its engine, interpolated, in written order."""
    return tuple(
        StepSpec(
            kind=s.step.kind,
            name=s.step.name,
            type=s.type,
            cls=s.step.cls,
            attrs={
                k: v for k, v in s.attrs.items() if not (node.is_command and s.step.kind == "output" and k == "from")
            },
            text=s.text,
            line=s.step.line,
        )
        for s in node.steps.values()
    )


def _check_engine(scene: Scene, node: NodeState) -> None:
    """What the engine itself has against the node."""
    if node.engine is None:
        return
    spec = NodeSpec(
        run="check",
        node=node.name,
        engine=node.engine_name,
        flow_file=scene.flow.file,
        flow_dir=str(scene.flow_dir),
        folder="",
        conf=node.conf,
        args=node.args,
        steps=step_specs(node),
        values=scene.values,
    )
    for fault in node.engine.check(spec):
        line = fault.line or node.node.line
        scene.findings.add(line, fault.code, fault.message, fault.hint, fault.severity)
