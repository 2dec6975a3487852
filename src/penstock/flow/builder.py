"""Flows as Python scripts: `Flow` builds one, `write_python` writes such a script, `read_python` runs one safely apart.

    from penstock.flow.builder import Flow

    flow = Flow("clicks")
    flow.param("data", type="path", default="data")

    samples = flow.node("samples")
    clicks = samples.input("clicks", type="csv", path="${data}/clicks.csv")
    parts = samples.process("parts", type="split", from_=clicks, by="hash", column="user", at=[0.8])
    train = samples.output("train", type="parquet", from_=parts["train"])

    flow.node("model").input("train", from_=train)

A name that Python keeps for itself takes an underscore at its end (`from_`, `class_`); steps stand for their names.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, TypeVar

from penstock.flow.model import Argument, Node, Param, Position, Setting, Step, StepKind
from penstock.flow.model import Flow as BuiltFlow

Element = TypeVar("Element", "Flow", "NodeBuilder", "StepBuilder")


def _text(value: Any, node: NodeBuilder | None = None) -> str:
    """A value as the flow has it: true/false, numbers as Python writes them, names with spaces between."""
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, StepBuilder):
        return value.reference(node)
    if isinstance(value, list | tuple):
        return " ".join(_text(each, node) for each in value)
    if isinstance(value, int | float):
        return repr(value)
    raise TypeError(f"a flow's values are strings, numbers, true or false, steps and lists of them, not {value!r}")


def _attributes(attributes: dict[str, Any], node: NodeBuilder | None = None) -> dict[str, str]:
    return {k.removesuffix("_"): _text(v, node) for k, v in attributes.items() if v is not None}


def _line() -> int:
    """The line of the user's call: the nearest frame outside this module."""
    frame = sys._getframe(1)
    while frame.f_back is not None and frame.f_globals.get("__name__") == __name__:
        frame = frame.f_back
    return frame.f_lineno


class _Commented:
    """Collects comments until the element they precede is added."""

    def __init__(self) -> None:
        self._pending: list[str] = []

    def _comments(self) -> tuple[str, ...]:
        found, self._pending = tuple(self._pending), []
        return found


class Flow(_Commented):
    """A flow under construction. `build` gives it as a value; `penstock flow` finds it in a script by itself."""

    def __init__(self, name: str, description: str = "", comments: Sequence[str] = ()) -> None:
        super().__init__()
        self._flow = BuiltFlow(name, description, comments=tuple(comments), line=_line())
        self._params: list[Param] = []
        self._nodes: list[NodeBuilder] = []
        self._after: list[str] = []

    def comment(self, text: str) -> None:
        """A comment before what is added next, or at the flow's end."""
        self._pending.append(text)

    def comment_after(self, text: str) -> None:
        """A comment behind the flow."""
        self._after.append(text)

    def param(self, name: str, type: str = "", default: Any = None, description: str = "") -> None:
        """A value that `--set name=...` gives; without a default it must be given."""
        text = None if default is None else _text(default)
        self._params.append(Param(name, type, text, description, _line(), self._comments()))

    def node(self, name: str, /, engine: str = "local", **attributes: Any) -> NodeBuilder:
        """A node; `after`, `retries`, `memory`, ... are its attributes."""
        made = Node(name, engine, _attributes(attributes), line=_line(), comments=self._comments())
        self._nodes.append(NodeBuilder(made))
        return self._nodes[-1]

    def build(self) -> BuiltFlow:
        """The flow as it stands."""
        return replace(
            self._flow,
            params=tuple(self._params),
            nodes=tuple(node._build() for node in self._nodes),
            last_comments=tuple(self._pending),
            after_comments=tuple(self._after),
        )


class NodeBuilder(_Commented):
    """A node under construction: `input`, `process` and `output` add steps and return them."""

    def __init__(self, node: Node) -> None:
        super().__init__()
        self._node = node
        self._conf: list[Setting] = []
        self._env: list[Setting] = []
        self._args: list[Argument] = []
        self._steps: list[StepBuilder] = []

    @property
    def name(self) -> str:
        return self._node.name

    def comment(self, text: str) -> None:
        """A comment before what is added next, or at the node's end."""
        self._pending.append(text)

    def place(self, x: Any, y: Any) -> NodeBuilder:
        """Where the canvas draws it."""
        self._node = replace(self._node, position=Position(_text(x), _text(y)))
        return self

    def conf(self, key: str, value: Any) -> None:
        """A setting of the node's engine."""
        self._conf.append(Setting(key, _text(value), _line(), self._comments()))

    def env(self, name: str, value: Any) -> None:
        """An environment variable of the node's process."""
        self._env.append(Setting(name, _text(value), _line(), self._comments()))

    def arg(self, text: Any) -> None:
        """An argument of a command node's program."""
        self._args.append(Argument(_text(text), _line(), self._comments()))

    def input(self, name: str, /, type: str = "", class_: str = "", text: str = "", **attributes: Any) -> StepBuilder:
        return self._add("input", name, type, class_, text, attributes)

    def process(self, name: str, /, type: str = "", class_: str = "", text: str = "", **attributes: Any) -> StepBuilder:
        return self._add("process", name, type, class_, text, attributes)

    def output(self, name: str, /, type: str = "", class_: str = "", text: str = "", **attributes: Any) -> StepBuilder:
        return self._add("output", name, type, class_, text, attributes)

    def _add(
        self, kind: StepKind, name: str, type_: str, class_: str, text: str, attributes: dict[str, Any]
    ) -> StepBuilder:
        attrs = _attributes(attributes, self)
        made = Step(
            kind, name, type_, class_, attrs, text if text.strip() else "", line=_line(), comments=self._comments()
        )
        self._steps.append(StepBuilder(made, self))
        return self._steps[-1]

    def _build(self) -> Node:
        return replace(
            self._node,
            conf=tuple(self._conf),
            env=tuple(self._env),
            args=tuple(self._args),
            steps=tuple(step._step for step in self._steps),
            last_comments=tuple(self._pending),
        )


class StepBuilder:
    """A step: stands for its name where another step takes it; `parts["train"]` is one of its ports."""

    def __init__(self, step: Step, node: NodeBuilder, port: str = "") -> None:
        self._step = step
        self._node = node
        self._port = port

    def __getitem__(self, port: str) -> StepBuilder:
        return StepBuilder(self._step, self._node, port)

    def place(self, x: Any, y: Any) -> StepBuilder:
        """Where the canvas draws it."""
        self._step = replace(self._step, position=Position(_text(x), _text(y)))
        return self

    def reference(self, node: NodeBuilder | None) -> str:
        """STEP or STEP.PORT, or NODE.OUTPUT from another node."""
        name = self._step.name if node is self._node else f"{self._node.name}.{self._step.name}"
        return f"{name}.{self._port}" if self._port else name
