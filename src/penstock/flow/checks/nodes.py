"""A node's own attributes: engine and its settings, place, resources, environment."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from pydantic import ValidationError

from penstock.engines.base import UnknownEngine, engine
from penstock.errors import did_you_mean
from penstock.flow.checks.findings import NodeState, Scene
from penstock.flow.checks.parameters import explain
from penstock.flow.model import Setting
from penstock.flow.values import ValueFault, interpolate

#: Engines of the design that this version has no backend for.
PLANNED_ENGINES = ("spark", "flink", "hive", "tensorflow")
ATTRIBUTES = (
    "after", "on", "mode", "cpus", "memory", "gpus", "gpu_type", "priority", "retries", "timeout_s",
)  # fmt: skip
_UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12, "KI": 2**10, "MI": 2**20, "GI": 2**30, "TI": 2**40}


def check_node(scene: Scene, state: NodeState) -> None:
    """Everything on the <node> element itself, its <conf>, <env> and <arg> children; `after` comes with the edges."""
    node, findings = state.node, scene.findings
    attrs: dict[str, str] = {}
    for key, text in {"engine": node.engine, **node.attrs}.items():
        if key not in ATTRIBUTES and key != "engine":
            message = f"<node> has no attribute '{key}'"
            known = ("name", "engine", *ATTRIBUTES)
            findings.add(node.line, "FLOW008", message, did_you_mean(key, known, f"<node> takes {', '.join(known)}"))
            continue
        attrs[key] = _interpolated(scene, node.line, f"{key} of node '{node.name}'", text)
    _numbers(scene, state, attrs)
    _backends(scene, state, attrs)
    _engine(scene, state, attrs["engine"])
    state.conf = {s.name: _setting(scene, s, "conf") for s in node.conf}
    state.env = {s.name: _setting(scene, s, "env") for s in node.env}
    state.args = tuple(_interpolated(scene, a.line, f"argument of node '{node.name}'", a.text) for a in node.args)
    _settings(scene, state)
    _environment(scene, state)
    if node.args and state.engine is not None and not state.is_command:
        message = f"node '{node.name}' has <arg>, which only a command node takes"
        findings.add(node.args[0].line, "FLOW066", message, 'engine="command" runs a program')


def _interpolated(scene: Scene, line: int, where: str, text: str) -> str:
    try:
        return interpolate(text, scene.values)
    except ValueFault as fault:
        scene.findings.value(line, where, fault)
        return ""


def _setting(scene: Scene, setting: Setting, what: str) -> str:
    return _interpolated(scene, setting.line, f"<{what}> '{setting.name}'", setting.value)


def _engine(scene: Scene, state: NodeState, name: str) -> None:
    state.engine_name = name
    if not name:
        return
    try:
        state.engine = engine(name)
    except UnknownEngine as unknown:
        line = state.node.line
        if name in PLANNED_ENGINES:
            message = f"node '{state.name}' asks for engine '{name}', which has no backend yet"
            scene.findings.add(line, "FLOW061", message, 'engine="local" computes on this machine')
        else:
            scene.findings.add(line, "FLOW060", f"node '{state.name}': {unknown.message}", unknown.hint)


def _numbers(scene: Scene, state: NodeState, attrs: dict[str, str]) -> None:
    def parse(key: str, wanted: str, read: Callable[[str], Any]) -> Any:
        text = attrs.get(key, "").strip()
        if not text:
            return None
        try:
            return read(text)
        except ValueError:
            message = f"{key} of node '{state.name}' is '{text}', not {wanted}"
            scene.findings.add(state.node.line, "FLOW062", message)
            return None

    state.retries = parse("retries", "a whole number from 0 to 100", _whole(0, 100)) or 0
    state.timeout_s = parse("timeout_s", "a positive number of seconds", _positive)
    state.cpus = parse("cpus", "a positive number", _positive) or 0.0
    state.priority = parse("priority", "a whole number", _whole(-1_000_000, 1_000_000)) or 0
    state.memory_bytes = parse("memory", "an amount of memory, such as 512MB or 4GiB", memory_bytes) or 0
    parse("gpus", "a whole number", _whole(0, 1_000_000))


def _whole(low: int, high: int) -> Callable[[str], int]:
    def read(text: str) -> int:
        value = int(text)
        if not low <= value <= high:
            raise ValueError(text)
        return value

    return read


def _positive(text: str) -> float:
    value = float(text)
    if not 0 < value < float("inf"):
        raise ValueError(text)
    return value


def memory_bytes(text: str) -> int:
    """`512MB`, `4 GiB`, `1.5G`, or a plain number of bytes. Raises ValueError."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT]I?)?B?", text.strip().upper())
    if match is None or not float(match[1]):
        raise ValueError(text)
    return int(float(match[1]) * _UNITS[match[2] or ""])


def _backends(scene: Scene, state: NodeState, attrs: dict[str, str]) -> None:
    """What is parsed, but what nothing can do yet, is a problem that says so."""
    line = state.node.line
    missing = "which has no backend yet"
    on, mode = attrs.get("on", ""), attrs.get("mode", "")
    if on not in ("", "local"):
        message = f"node '{state.name}' is to run on '{on}', {missing}"
        scene.findings.add(line, "FLOW061", message, 'on="local" is this machine')
    if mode == "stream":
        message = f"node '{state.name}' has mode=\"stream\", {missing}"
        scene.findings.add(line, "FLOW061", message, 'mode="batch" runs to its end')
    elif mode not in ("", "batch"):
        hint = did_you_mean(mode, ("batch", "stream"), "mode is batch or stream")
        scene.findings.add(line, "FLOW062", f"mode of node '{state.name}' is '{mode}'", hint)
    if attrs.get("gpus", "").strip() not in ("", "0") or attrs.get("gpu_type", "").strip():
        message = f"node '{state.name}' asks for GPUs, which nothing here can use yet"
        scene.findings.add(line, "FLOW061", message, "delete gpus and gpu_type: everything here runs on CPUs")


def _settings(scene: Scene, state: NodeState) -> None:
    """<conf>: each key once, known to the engine, of its type."""
    seen = set()
    for setting in state.node.conf:
        if setting.name in seen:
            message = f"node '{state.name}' sets '{setting.name}' twice"
            scene.findings.add(setting.line, "FLOW011", message, "delete one of them")
        seen.add(setting.name)
    if state.engine is None:
        return
    model = state.engine.settings
    lines = {s.name: s.line for s in state.node.conf}
    try:
        model.model_validate(state.conf)
    except ValidationError as error:
        for wrong in explain(error, model, state.conf):
            line = lines.get(wrong.attribute, state.node.line)
            if any(p.line == line and p.code == "FLOW009" for p in scene.findings.problems):
                continue  # it has no value at all, which is told already
            if wrong.kind == "unknown":
                message = f"engine '{state.engine_name}' has no setting '{wrong.attribute}'"
                scene.findings.add(line, "FLOW063", message, wrong.hint)
            else:
                scene.findings.add(line, "FLOW064", f"setting '{wrong.attribute}' {wrong.message}", wrong.hint)


def _environment(scene: Scene, state: NodeState) -> None:
    seen = set()
    for setting in state.node.env:
        if setting.name in seen:
            message = f"node '{state.name}' sets the variable '{setting.name}' twice"
            scene.findings.add(setting.line, "FLOW011", message, "delete one of them")
        elif setting.name and not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", setting.name):
            scene.findings.add(setting.line, "FLOW067", f"'{setting.name}' cannot be an environment variable's name")
        elif setting.name.startswith("PENSTOCK_"):
            message = f"the variable '{setting.name}' is penstock's own"
            scene.findings.add(setting.line, "FLOW067", message, "names that start with PENSTOCK_ are taken")
        seen.add(setting.name)
