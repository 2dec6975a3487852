"""Each step by itself: its values, its operator, and the operator's attributes."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import cast

from pydantic import ValidationError

from penstock.data.paths import split_locations
from penstock.errors import PenstockError, did_you_mean
from penstock.flow.checks.findings import NodeState, Scene, StepState
from penstock.flow.checks.parameters import attributes, explain
from penstock.flow.values import (
    ValueFault,
    expand,
    faults,
    has_range,
    interpolate,
    missing_secrets,
    rests_on_stand_in,
)
from penstock.operators.base import AnyOperator, Form, Input, Operator, Output, Process, Reference
from penstock.operators.catalog import UnknownOperator, operator, user_operator
from penstock.operators.places import is_name, models

_KINDS: Mapping[str, type[Operator]] = {"input": Input, "process": Process, "output": Output}


def check_step(scene: Scene, node: NodeState, state: StepState) -> None:
    """Build the step's operator, or tell why it cannot be. Inputs from other nodes wait for `adopt_twin`."""
    step, findings = state.step, scene.findings
    _interpolate(scene, state)
    if step.kind == "input" and "from" in step.attrs:
        state.source = state.attrs.get("from", "")
        _only_from(scene, state)
        return
    cls = _operator_class(scene, state)
    if cls is None:
        state.sound = False
        return
    if node.is_command and step.kind == "output" and "from" not in step.attrs:
        state.attrs["from"] = step.name  # the program writes it; nothing in the node is read
    _absolute_paths(scene, state, cls, node)
    build(scene, state, cls)
    if step.text and not cls.text_field:
        shown = " ".join(step.text.split())[:40]
        message = f"{state} holds the text '{shown}', but {_kind_of(state)} takes none"
        findings.add(step.line, "OPER008", message, "delete it, or put it into a comment")


def build(scene: Scene, state: StepState, cls: type[Operator]) -> None:
    """Validate the attributes and keep the operator if they are all right."""
    if not state.sound:
        return
    given = dict(state.attrs)
    if cls.text_field and state.text:
        alias = next((a for a, f in attributes(cls).items() if f == cls.text_field), cls.text_field)
        if alias in given:
            message = f"{state} gives '{alias}' both as an attribute and as text"
            scene.findings.add(state.step.line, "OPER008", message, "keep one of them")
            state.sound = False
            return
        given[alias] = state.text
    try:
        made = _validate(cls, given)
    except ValidationError as error:
        state.sound = False
        for wrong in explain(error, cls, given):
            line, what = state.step.line, _kind_of(state)
            if wrong.kind == "unknown":
                message = f"{state}: {what} has no attribute '{wrong.attribute}'"
                scene.findings.add(line, "OPER003", message, wrong.hint)
            elif wrong.kind == "missing":
                message = f"{state}: {what} needs the attribute '{wrong.attribute}'"
                scene.findings.add(line, "OPER004", message, wrong.hint)
            else:
                subject = f"{wrong.attribute} " if wrong.attribute else ""
                scene.findings.add(line, "OPER005", f"{state}: {subject}{wrong.message}", wrong.hint)
        return
    except Exception as error:
        if not state.step.cls:
            raise
        broke(scene, state, error)
        return
    state.operator = made
    state.ports = made.ports() or None


def _validate(cls: type[Operator], given: Mapping[str, str]) -> AnyOperator:
    # `from_` may be filled by name for Python's sake; a flow writes `from`, and `from_` is a misspelling there.
    hidden = _hidden(cls)
    if not hidden.isdisjoint(given):
        given = {f"{k} " if k in hidden else k: v for k, v in given.items()}
    return cast(AnyOperator, cls.model_validate(given))


@cache
def _hidden(cls: type[Operator]) -> frozenset[str]:
    return frozenset(field for attribute, field in attributes(cls).items() if attribute != field)


def broke(scene: Scene, state: StepState, error: Exception) -> None:
    state.sound = False
    said = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    message = f"{state}: the operator {state.step.cls} broke while it was checked: {said}"
    scene.findings.add(state.step.line, "OPER007", message, f"mend {_where(error)}")


def _where(error: Exception) -> str:
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return f"{trace.tb_frame.f_code.co_filename}:{trace.tb_lineno}" if trace is not None else "its code"


def _kind_of(state: StepState) -> str:
    return f"{state.step.cls or state.type or 'it'}"


# --- values -------------------------------------------------------------------------------------------------


def _interpolate(scene: Scene, state: StepState) -> None:
    step = state.step
    for key, text in step.attrs.items():
        if rests_on_stand_in(text, scene.values):
            state.sound = False  # told at the parameter
        ranges = step.kind == "input" and key == "path" and has_range(text)
        try:
            state.attrs[key] = ",".join(expand(text, scene.values)) if ranges else interpolate(text, scene.values)
        except ValueFault:
            state.sound = False
            for fault in faults(text, scene.values, ranges):
                scene.findings.value(step.line, f"{key} of {state}", fault)
        _secrets(scene, state, key, text)
    try:
        state.text = interpolate(step.text, scene.values)
        state.type = interpolate(step.type, scene.values)
    except ValueFault:
        state.sound = False
        for fault in (*faults(step.text, scene.values), *faults(step.type, scene.values)):
            scene.findings.value(step.line, f"text of {state}", fault)


def _secrets(scene: Scene, state: StepState, key: str, text: str) -> None:
    for variable in missing_secrets(text):
        message = f"{key} of {state} needs the secret {variable}, which is not set here"
        scene.findings.warn(state.step.line, "FLOW027", message, f"set {variable} where the flow runs")


def _absolute_paths(scene: Scene, state: StepState, cls: type[Operator], node: NodeState | None = None) -> None:
    base = scene.flow_dir
    for attribute, is_path in _places(cls):
        text = state.attrs.get(attribute)
        if not text or not text.strip():
            continue
        if is_path:
            several = issubclass(cls, Input) and attribute == "path"
            state.attrs[attribute] = absolute(text, base, several)
        else:
            is_step = node is not None and text.partition(".")[0] in node.steps
            if not is_step and (_looks_like_a_place(text) or os.path.lexists(base / text)):
                state.attrs[attribute] = absolute(text, base)


@cache
def _places(cls: type[Operator]) -> tuple[tuple[str, bool], ...]:
    """The attributes that hold a path (True), or either a step's name or a place (False)."""
    found = []
    for attribute, field in attributes(cls).items():
        metadata = cls.model_fields[field].metadata
        is_path = any(isinstance(m, Form) and m.kind == "path" for m in metadata)
        if is_path or any(isinstance(m, Reference) and m.or_location for m in metadata):
            found.append((attribute, is_path))
    return tuple(found)


def absolute(text: str, base: Path, several: bool = False) -> str:
    """A path as the operator sees it: from the root, without `..`; URLs stay as they are; several joined by commas."""
    if several and ("," in text or " " in text) and not (base / text).exists():
        return ",".join(absolute(part, base) for part in split_locations(text))
    text = text.strip()
    if is_name(text):
        return _fixed(text)
    if "://" in text:
        return text
    return os.path.normpath(os.path.join(base, text))  # noqa: PTH118  asked of every path of a flow


def _fixed(name: str) -> str:
    """The number behind an alias, so that a whole run means one version; what names none is the operator's to tell."""
    with suppress(PenstockError):
        return models().fixed(name)
    return name


# --- operators ----------------------------------------------------------------------------------------------


def _operator_class(scene: Scene, state: StepState) -> type[Operator] | None:
    step, findings = state.step, scene.findings
    if bool(step.type) == bool(step.cls):
        both = "both type and class" if step.type else "neither type nor class"
        otherwise = ', or from="NODE.OUTPUT"' if step.kind == "input" else ""
        hint = f'write type="..." for a built-in one, class="package.module:Class" for your own{otherwise}'
        if state.sound or not step.type:
            findings.add(step.line, "OPER006", f"{state} has {both}", hint)
        return None
    try:
        return operator(step.kind, state.type) if step.type else _users(scene, state)
    except (ImportError, AttributeError) as error:  # a plugin that is installed, but not whole
        message = f"{state}: the operator '{state.type}' is installed but cannot be imported: {error}"
        findings.add(step.line, "OPER002", message, "reinstall the package that brings it")
        return None
    except UnknownOperator as unknown:
        if state.type or step.cls:
            code = "OPER001" if step.type else "OPER002"
            findings.add(step.line, code, f"{state}: {unknown.message}", unknown.hint)
        return None


def _users(scene: Scene, state: StepState) -> type[Operator] | None:
    """The user's own class. Importing it runs the user's code: whatever that raises is a problem of this step."""
    step = state.step
    folder = str(scene.flow_dir)
    if folder not in sys.path:
        sys.path.insert(0, folder)
    try:
        cls = user_operator(step.cls)
    except PenstockError:
        raise
    except (Exception, SystemExit) as error:
        said = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
        message = f"{state}: importing {step.cls} failed: {said}"
        hint = f"mend {_where(error)}" if isinstance(error, Exception) else "its module ends the interpreter"
        scene.findings.add(step.line, "OPER002", message, hint)
        return None
    if not issubclass(cls, _KINDS[step.kind]):
        message = f"{state}: {step.cls} is not an {step.kind}" if step.kind != "process" else ""
        message = message or f"{state}: {step.cls} is not a process"
        hint = f"it is an operator of the kind {getattr(cls, 'kind', 'unknown')}"
        scene.findings.add(step.line, "OPER009", message, hint)
        return None
    return cls


def _only_from(scene: Scene, state: StepState) -> None:
    """An input that reads another node's output takes its type and place from there."""
    for key, given in (("type", state.step.type), ("class", state.step.cls), ("path", state.step.attrs.get("path"))):
        if given:
            message = f"{state} has both from and {key}"
            hint = f"from='{state.source}' already says what and where: delete {key}, or delete from"
            scene.findings.add(state.step.line, "FLOW049", message, hint)
            state.sound = False
            return


@cache
def _input_class(type_: str) -> type[Operator] | None:
    try:
        return operator("input", type_)
    except UnknownOperator:
        return None


def adopt_twin(scene: Scene, state: StepState, writer: Output, what: str) -> None:
    """Build an input from the output it reads: the twin's type and attributes, and the user's own beside them."""
    twin = dict(writer.twin())
    cls = _input_class(twin.pop("type", "")) if twin else None
    if cls is None:
        state.sound = False
        hint = "read an output of a type that has an input: parquet, orc, csv, json, text, libsvm, model"
        scene.findings.add(state.step.line, "FLOW047", f"{state} reads {what}, which cannot be read back", hint)
        return
    own = {key: text for key, text in state.attrs.items() if key != "from"}
    state.type = cls.type
    state.attrs = {**twin, **own, "path": writer.path or "in the run store"}
    if writer.path:
        _absolute_paths(scene, state, cls)
    build(scene, state, cls)
    if not writer.path:
        state.attrs.pop("path")


def _looks_like_a_place(text: str) -> bool:
    """Whether what may be a step or a place is meant as a place: a path, a URL, or models:/NAME."""
    return "/" in text or ":" in text


def closest(name: str, known: list[str], what: str) -> str:
    """A hint for an unknown name."""
    return did_you_mean(name, known, f"{what}: {', '.join(known)}" if known else "")
