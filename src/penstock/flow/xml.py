"""Flow files in XML: reading, with every structural problem found at once, and the canonical form of `flow fmt`."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import TypeVar

from penstock.data import safe_xml
from penstock.data.safe_xml import Element
from penstock.errors import Problem, did_you_mean
from penstock.flow.model import Argument, Flow, Node, Param, Position, Setting, Step, StepKind

FLOW = "urn:penstock:flow:1"
CANVAS = "urn:penstock:canvas:1"
STEP_KINDS: tuple[StepKind, ...] = ("input", "process", "output")
WIDTH = 120

_INSIDE = {"flow": ("param", "node"), "node": ("conf", "env", "arg", *STEP_KINDS)}
_ATTRIBUTES = {
    "flow": ("name", "description"),
    "param": ("name", "type", "default", "description"),
    "conf": ("key", "value"),
    "env": ("name", "value"),
    "arg": (),
}
_REQUIRED = {
    "flow": ("name",),
    "node": ("name",),
    "param": ("name",),
    "conf": ("key", "value"),
    "env": _ATTRIBUTES["env"],
}


@dataclass
class Reading:
    """What came out of a file: the flow as far as it could be read, and the problems so far.

    `broken`: "node.step" (and "node") names that stand on elements which could not be read, so that a reference to
    them is not a second problem.
    """

    file: str
    flow: Flow | None = None
    problems: list[Problem] = field(default_factory=list)
    broken: set[str] = field(default_factory=set)

    def problem(self, line: int, code: str, message: str, hint: str = "") -> None:
        self.problems.append(Problem(self.file, line, code, message, hint))


def read_xml(data: bytes, file: str) -> Reading:
    """Read a flow; never raises for what the file holds."""
    reading = Reading(file)
    try:
        document = safe_xml.parse(data)
    except safe_xml.XmlError as error:
        reading.problem(error.line, "FLOW002", error.message, error.hint)
        return reading
    root = document.root
    if (root.namespace, root.name) != (FLOW, "flow"):
        found = f"<{root.name}>" if not root.namespace else f"<{root.name}> of the namespace {root.namespace}"
        hint = f'write <flow xmlns="{FLOW}" name="...">'
        if root.namespace == "urn:penstock:features:1":
            hint = "this is a features file: try `penstock features check`"
        reading.problem(root.line, "FLOW006", f"the file starts with {found}, which is not a flow", hint)
        return reading
    reading.flow = _Xml(reading).flow(document)
    return reading


T = TypeVar("T")


class _Xml:
    """Turns elements into the model, noting what does not belong."""

    def __init__(self, reading: Reading) -> None:
        self.reading = reading

    def flow(self, document: safe_xml.Document) -> Flow:
        root = document.root
        self.look_at(root)
        children = self.children(root, "")
        return Flow(
            name=root.attrs.get("name", ""),
            description=root.attrs.get("description", ""),
            params=self.each(children, "param", self.param),
            nodes=self.each(children, "node", self.node),
            file=self.reading.file,
            line=root.line,
            comments=_comments(root.comments),
            last_comments=_comments(root.last_comments),
            after_comments=_comments(document.after_comments),
        )

    def node(self, element: Element) -> Node:
        self.look_at(element)
        name = element.attrs.get("name", "")
        children = self.children(element, name)
        attrs = {k: v for k, v in element.attrs.items() if k not in ("name", "engine")}
        steps = [self.step(child, kind) for child in children for kind in STEP_KINDS if child.name == kind]
        return Node(
            name=name,
            engine=element.attrs.get("engine", "local"),
            attrs=attrs,
            conf=self.each(children, "conf", self.setting),
            env=self.each(children, "env", self.setting),
            args=self.each(children, "arg", self.argument),
            steps=tuple(steps),
            position=self.position(element),
            line=element.line,
            comments=_comments(element.comments),
            last_comments=_comments(element.last_comments),
        )

    def step(self, element: Element, kind: StepKind) -> Step:
        self.childless(element)
        if not element.attrs.get("name"):
            self.missing(element, "name")
        attrs = {k: v for k, v in element.attrs.items() if k not in ("name", "type", "class")}
        return Step(
            kind=kind,
            name=element.attrs.get("name", ""),
            type=element.attrs.get("type", ""),
            cls=element.attrs.get("class", ""),
            attrs=attrs,
            text=element.text if element.text.strip() else "",
            position=self.position(element),
            line=element.line,
            comments=_comments(element.comments, element.last_comments),
        )

    def param(self, element: Element) -> Param:
        self.leaf(element)
        a = element.attrs
        return Param(
            a.get("name", ""),
            a.get("type", ""),
            a.get("default"),
            a.get("description", ""),
            element.line,
            _comments(element.comments, element.last_comments),
        )

    def setting(self, element: Element) -> Setting:
        self.leaf(element)
        name = element.attrs.get("key" if element.name == "conf" else "name", "")
        comments = _comments(element.comments, element.last_comments)
        return Setting(name, element.attrs.get("value", ""), element.line, comments)

    def argument(self, element: Element) -> Argument:
        self.childless(element)
        self.look_at(element)
        return Argument(element.text, element.line, _comments(element.comments, element.last_comments))

    # --- what does not belong ---------------------------------------------------------------------------

    def each(self, children: Sequence[Element], name: str, make: Callable[[Element], T]) -> tuple[T, ...]:
        return tuple(make(child) for child in children if child.name == name)

    def look_at(self, element: Element) -> None:
        """Attributes that are missing, unknown, or of another namespace."""
        for required in _REQUIRED.get(element.name, ()):
            if not element.attrs.get(required) and not (required == "value" and "value" in element.attrs):
                self.missing(element, required)
        known = _ATTRIBUTES.get(element.name)
        if known is not None:
            for name in element.attrs:
                if name not in known:
                    otherwise = f"<{element.name}> takes {', '.join(known)}" if known else "it takes none"
                    message = f"<{element.name}> has no attribute '{name}'"
                    self.reading.problem(element.line, "FLOW008", message, did_you_mean(name, known, otherwise))
            self.foreign(element, ())
        if element.name in _INSIDE:
            self.no_text(element)

    def foreign(self, element: Element, allowed: tuple[tuple[str, str], ...]) -> None:
        for namespace, name in element.foreign:
            if (namespace, name) not in allowed:
                message = f"<{element.name}> has the attribute '{name}' of the namespace {namespace}, unknown here"
                hint = f"only x and y of {CANVAS}, on nodes and steps, are known"
                self.reading.problem(element.line, "FLOW008", message, hint)

    def position(self, element: Element) -> Position | None:
        self.foreign(element, ((CANVAS, "x"), (CANVAS, "y")))
        x, y = element.foreign.get((CANVAS, "x")), element.foreign.get((CANVAS, "y"))
        return None if x is None and y is None else Position(x or "", y or "")

    def missing(self, element: Element, name: str) -> None:
        self.reading.problem(element.line, "FLOW009", f"<{element.name}> needs the attribute '{name}'")

    def no_text(self, element: Element) -> None:
        if element.text.strip():
            shown = " ".join(element.text.split())[:40]
            hint = "delete it, or put it into a comment"
            self.reading.problem(
                element.line, "FLOW012", f"<{element.name}> holds the text '{shown}', which means nothing", hint
            )

    def leaf(self, element: Element) -> None:
        self.look_at(element)
        self.childless(element)
        self.no_text(element)

    def childless(self, element: Element) -> None:
        for child in element.children:
            hint = f"close <{element.name} .../> before it"
            self.reading.problem(child.line, "FLOW007", f"<{child.name}> cannot stand inside <{element.name}>", hint)

    def children(self, parent: Element, node: str) -> list[Element]:
        """The children that may stand here; the others are problems, and their names are remembered as broken."""
        allowed = _INSIDE[parent.name]
        good = []
        for child in parent.children:
            if child.namespace == FLOW and child.name in allowed:
                good.append(child)
                continue
            name = child.attrs.get("name", "")
            self.reading.broken.add(f"{node}.{name}" if node else name)
            if child.namespace != FLOW:
                message = f"<{child.name}> is of the namespace '{child.namespace}', which means nothing here"
                hint = f"flows are written in {FLOW}"
            else:
                message = f"<{child.name}> cannot stand inside <{parent.name}>"
                hint = did_you_mean(child.name, allowed, f"here may stand: {', '.join(allowed)}")
                if child.name in _INSIDE["node"] and parent.name == "flow":
                    hint = "it belongs into a <node>"
            self.reading.problem(child.line, "FLOW007", message, hint)
        return good


def _comments(*groups: Iterable[str]) -> tuple[str, ...]:
    return tuple(chain.from_iterable(groups))


# --- the canonical form -------------------------------------------------------------------------------------


def write_xml(flow: Flow) -> str:
    """The one way to write this flow: two spaces a level, name, type and from first, blank lines between nodes."""
    placed = any(node.position or any(step.position for step in node.steps) for node in flow.nodes)
    attributes = {"xmlns": FLOW, **({"xmlns:c": CANVAS} if placed else {}), "name": flow.name}
    if flow.description:
        attributes["description"] = flow.description
    lines = [*_comment_lines(flow.comments, "")]
    body: list[str] = []
    for param in flow.params:
        body += _comment_lines(param.comments, "  ")
        body += [_element("  ", "param", _param_attributes(param))]
    for node in flow.nodes:
        body += ([""] if body else []) + _comment_lines(node.comments, "  ") + _node_lines(node)
    body += _comment_lines(flow.last_comments, "  ")
    if body:
        lines += [_element("", "flow", attributes, ">"), *body, "</flow>"]
    else:
        lines += [_element("", "flow", attributes)]
    return "\n".join([*lines, *_comment_lines(flow.after_comments, "")]) + "\n"


def _param_attributes(param: Param) -> dict[str, str]:
    attributes = {"name": param.name}
    if param.type:
        attributes["type"] = param.type
    if param.default is not None:
        attributes["default"] = param.default
    if param.description:
        attributes["description"] = param.description
    return attributes


def _node_lines(node: Node) -> list[str]:
    attributes = {"name": node.name, "engine": node.engine}
    if "after" in node.attrs:
        attributes["after"] = node.attrs["after"]
    attributes |= {k: v for k, v in node.attrs.items() if k != "after"} | _position(node.position)
    body: list[str] = []
    for setting in node.conf:
        body += _comment_lines(setting.comments, "    ")
        body += [_element("    ", "conf", {"key": setting.name, "value": setting.value})]
    for setting in node.env:
        body += _comment_lines(setting.comments, "    ")
        body += [_element("    ", "env", {"name": setting.name, "value": setting.value})]
    for argument in node.args:
        body += _comment_lines(argument.comments, "    ")
        body += [_element("    ", "arg", {}, _content(argument.text, "arg"))]
    pad = max((len(step.kind) for step in node.steps), default=0)
    for step in node.steps:
        body += _comment_lines(step.comments, "    ")
        ending = _content(step.text, step.kind) if step.text else "/>"
        body += [_element("    ", step.kind, _step_attributes(step), ending, pad)]
    body += _comment_lines(node.last_comments, "    ")
    if not body:
        return [_element("  ", "node", attributes)]
    return [_element("  ", "node", attributes, ">"), *body, "  </node>"]


def _step_attributes(step: Step) -> dict[str, str]:
    attributes = {"name": step.name}
    if step.type:
        attributes["type"] = step.type
    if step.cls:
        attributes["class"] = step.cls
    if "from" in step.attrs:
        attributes["from"] = step.attrs["from"]
    return attributes | {k: v for k, v in step.attrs.items() if k != "from"} | _position(step.position)


def _position(position: Position | None) -> dict[str, str]:
    return {f"c:{k}": v for k, v in (("x", position.x), ("y", position.y)) if v} if position else {}


def _element(indent: str, name: str, attributes: Mapping[str, str], ending: str = "/>", pad: int = 0) -> str:
    """One start tag; what does not fit into a line goes on below the first attribute."""
    start = f"{indent}<{name:<{pad}}"
    line, lines = start, []
    for key, value in attributes.items():
        part = f' {key}="{_escape(value, _IN_ATTRIBUTE)}"'
        if len(line) + len(part) > WIDTH and line != start:
            lines.append(line)
            line = " " * len(start)
        line += part
    return "\n".join([*lines, line]).rstrip(" ") + ending


_IN_ATTRIBUTE = {"&": "&amp;", "<": "&lt;", '"': "&quot;", "\n": "&#10;", "\r": "&#13;", "\t": "&#9;"}
_IN_TEXT = {"&": "&amp;", "<": "&lt;", ">": "&gt;", "\r": "&#13;"}


def _escape(text: str, table: Mapping[str, str]) -> str:
    return re.sub("[{}]".format("".join(map(re.escape, table))), lambda m: table[m[0]], text)


def _content(text: str, name: str) -> str:
    """Text as it stands; in CDATA where it has `<` or `&`, so that SQL stays readable."""
    if re.search("[<&]", text) and "]]>" not in text and "\r" not in text:
        return f"><![CDATA[{text}]]></{name}>"
    return f">{_escape(text, {k: v for k, v in _IN_TEXT.items() if k != '>' or ']]>' in text})}</{name}>"


def _comment_lines(comments: Iterable[str], indent: str) -> list[str]:
    return [f"{indent}<!--{comment}-->" for comment in comments]
