"""The canvas form of a flow: one JSON document that holds all that the XML holds. Its schema is schemas/flow.json."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from json import decoder, scanner
from typing import Any

from penstock.errors import did_you_mean
from penstock.flow.model import Argument, Flow, Node, Param, Position, Setting, Step
from penstock.flow.xml import STEP_KINDS, Reading

VERSION = "flow/1"
MAX_BYTES = 64 * 1024 * 1024

FLOW_KEYS = ("penstock", "name", "description", "params", "nodes", "comments", "last_comments", "after_comments")
PARAM_KEYS = ("name", "type", "default", "description", "comments")
NODE_KEYS = (
    "name", "engine", "after", "attrs", "conf", "env", "args", "steps", "x", "y", "comments", "last_comments",
)  # fmt: skip
STEP_KEYS = ("kind", "name", "type", "class", "attrs", "text", "x", "y", "comments")


# --- writing ------------------------------------------------------------------------------------------------


def write_json(flow: Flow) -> str:
    """The document, indented; keys with nothing to say are left out."""
    return json.dumps(document(flow), ensure_ascii=False, indent=2) + "\n"


def document(flow: Flow, lines: bool = False) -> dict[str, Any]:
    """The flow as plain JSON values; with `lines`, each element also tells its line (for our own child process)."""

    def said(**pairs: Any) -> dict[str, Any]:
        if not lines:
            pairs.pop("line", None)
        return {key.rstrip("_"): value for key, value in pairs.items() if value not in ("", [], {}, None)}

    def settings(found: tuple[Setting, ...]) -> Any:
        plain = {s.name: s.value for s in found}
        if not lines and len(plain) == len(found) and not any(s.comments for s in found):
            return plain
        return [{"name": s.name, "value": s.value} | said(comments=[*s.comments], line=s.line) for s in found]

    def param(p: Param) -> dict[str, Any]:
        default = {} if p.default is None else {"default": p.default}
        return {"name": p.name} | said(type=p.type) | default | said(description=p.description, **tail(p))

    def tail(element: Param | Argument) -> dict[str, Any]:
        return {"comments": [*element.comments], "line": element.line}

    def argument(a: Argument) -> Any:
        return {"text": a.text} | said(**tail(a)) if a.comments or lines else a.text

    def step(s: Step) -> dict[str, Any]:
        named = {"kind": s.kind, "name": s.name} | said(type=s.type, class_=s.cls)
        return named | said(
            attrs=dict(s.attrs), text=s.text, **_placed(s.position), comments=[*s.comments], line=s.line
        )

    def node(n: Node) -> dict[str, Any]:
        after = {"after": n.attrs["after"]} if "after" in n.attrs else {}
        attrs = {k: v for k, v in n.attrs.items() if k != "after"}
        rest = said(
            attrs=attrs,
            conf=settings(n.conf),
            env=settings(n.env),
            args=[argument(a) for a in n.args],
            **_placed(n.position),
            comments=[*n.comments],
            last_comments=[*n.last_comments],
            line=n.line,
        )
        return {"name": n.name, "engine": n.engine} | after | rest | {"steps": [step(s) for s in n.steps]}

    head = {"penstock": VERSION, "name": flow.name} | said(description=flow.description, comments=[*flow.comments])
    body = {"params": [param(p) for p in flow.params], "nodes": [node(n) for n in flow.nodes]}
    tails = said(last_comments=[*flow.last_comments], after_comments=[*flow.after_comments], line=flow.line)
    return head | body | tails


def _placed(position: Position | None) -> dict[str, Any]:
    """Coordinates as numbers where that is what was written, so that a canvas need not parse strings."""
    if position is None:
        return {}
    return {k: number(v) for k, v in (("x", position.x), ("y", position.y)) if v}


def number(text: str) -> int | float | str:
    """The number that is written exactly so, else the text itself."""
    for kind in (int, float):
        try:
            if json.dumps(kind(text)) == text:
                return kind(text)
        except ValueError:
            pass
    return text


# --- reading ------------------------------------------------------------------------------------------------


class _Object(dict[str, Any]):
    """A JSON object that knows its line, and the keys that stood in it twice."""

    line = 0
    repeated: tuple[str, ...] = ()


class _Decoder(json.JSONDecoder):
    """Python's own decoder; its pure-Python scanner tells where each object starts."""

    def __init__(self) -> None:
        super().__init__(object_pairs_hook=self.pairs)
        self.breaks: list[int] = []
        self.parse_object = self.parse
        self.scan_once = scanner.py_make_scanner(self)  # type: ignore[attr-defined]

    def pairs(self, pairs: list[tuple[str, Any]]) -> _Object:
        found = _Object(pairs)
        if len(found) < len(pairs):
            keys = [key for key, _ in pairs]
            found.repeated = tuple(k for k in found if keys.count(k) > 1)
        return found

    def parse(self, s_and_end: tuple[str, int], *rest: Any) -> tuple[_Object, int]:
        text, start = s_and_end
        value, end = decoder.JSONObject(s_and_end, *rest)  # type: ignore[attr-defined]
        value.line = text.count("\n", 0, start) + 1 if len(text) < 10_000 else self.line(text, start)
        return value, end

    def line(self, text: str, index: int) -> int:
        from bisect import bisect_right

        if not self.breaks:
            self.breaks = [m.start() for m in re.finditer("\n", text)]
        return bisect_right(self.breaks, index) + 1


def read_json(data: bytes, file: str) -> Reading:
    """Read a flow; never raises for what the file holds. LINE is the line of the `{` of the element at fault."""
    reading = Reading(file)
    if len(data) > MAX_BYTES:
        reading.problem(0, "FLOW002", f"the file is larger than {MAX_BYTES // 1024 // 1024} MB, which no flow needs")
        return reading
    try:
        found = _Decoder().decode(data.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        reading.problem(line, "FLOW002", "the file is not UTF-8", "save it as UTF-8")
    except json.JSONDecodeError as error:
        reading.problem(error.lineno, "FLOW002", f"the JSON cannot be read: {error.msg}, at column {error.colno}")
    except RecursionError:
        reading.problem(0, "FLOW002", "the JSON is nested too deeply")
    except ValueError as error:  # an integer of more digits than Python reads
        reading.problem(0, "FLOW002", f"the JSON cannot be read: {error}")
    else:
        read_document(found, reading)
    return reading


def read_document(found: Any, reading: Reading) -> None:
    """Fill `reading` from JSON values (also those our child process sends)."""
    if not isinstance(found, dict) or found.get("penstock") != VERSION:
        line = getattr(found, "line", 1)
        reading.problem(line, "FLOW006", "the document is not a flow", f'it has "penstock": "{VERSION}" at its top')
        return
    reading.flow = _Json(reading).flow(found)


#: What XML 1.0 cannot hold, and so no form may.
_UNWRITABLE = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


class _Json:
    """Turns JSON values into the model, noting what does not belong."""

    def __init__(self, reading: Reading) -> None:
        self.reading = reading
        self.lined = 0

    def flow(self, found: Mapping[str, Any]) -> Flow:
        self.keys(found, FLOW_KEYS, "the flow")
        return Flow(
            name=self.text(found, "name", required=True),
            description=self.text(found, "description"),
            params=tuple(self.param(p) for p in self.objects(found, "params")),
            nodes=tuple(self.node(n) for n in self.objects(found, "nodes")),
            file=self.reading.file,
            line=self.line(found),
            comments=self.comments(found),
            last_comments=self.comments(found, "last_comments"),
            after_comments=self.comments(found, "after_comments"),
        )

    def param(self, found: Mapping[str, Any]) -> Param:
        self.keys(found, PARAM_KEYS, "a parameter")
        default = self.text(found, "default") if found.get("default") is not None else None
        return Param(
            self.text(found, "name", required=True),
            self.text(found, "type"),
            default,
            self.text(found, "description"),
            self.line(found),
            self.comments(found),
        )

    def node(self, found: Mapping[str, Any]) -> Node:
        self.keys(found, NODE_KEYS, "a node")
        attrs = self.attrs(found)
        if "after" in found:
            after = found["after"]
            joined = " ".join(map(str, after)) if isinstance(after, list) else self.text(found, "after")
            attrs = {"after": joined} | attrs
        return Node(
            name=self.text(found, "name", required=True),
            engine=self.text(found, "engine") if "engine" in found else "local",
            attrs=attrs,
            conf=self.settings(found, "conf"),
            env=self.settings(found, "env"),
            args=tuple(self.argument(found, a) for a in self.array(found, "args")),
            steps=tuple(self.step(s) for s in self.objects(found, "steps")),
            position=self.position(found),
            line=self.line(found),
            comments=self.comments(found),
            last_comments=self.comments(found, "last_comments"),
        )

    def step(self, found: Mapping[str, Any]) -> Step:
        self.keys(found, STEP_KEYS, "a step")
        kind = next((k for k in STEP_KINDS if k == found.get("kind")), None)
        if kind is None:
            message = f"a step is of the kind {json.dumps(found.get('kind'), default=str)}"
            self.problem(found, message, "a step's kind is input, process or output")
        text = self.text(found, "text")
        return Step(
            kind=kind or "process",
            name=self.text(found, "name", required=True),
            type=self.text(found, "type"),
            cls=self.text(found, "class"),
            attrs=self.attrs(found),
            text=text if text.strip() else "",
            position=self.position(found),
            line=self.line(found),
            comments=self.comments(found),
        )

    def settings(self, found: Mapping[str, Any], key: str) -> tuple[Setting, ...]:
        value = found.get(key)
        if isinstance(value, dict):
            return tuple(Setting(name, self.text(value, name), self.line(found)) for name in value)
        settings = []
        for each in self.objects(found, key):
            self.keys(each, ("name", "key", "value", "comments"), f"a setting of '{key}'")
            name = self.text(each, "key" if "key" in each else "name", required=True)
            settings.append(Setting(name, self.text(each, "value"), self.line(each), self.comments(each)))
        return tuple(settings)

    def argument(self, found: Mapping[str, Any], value: Any) -> Argument:
        if isinstance(value, dict):
            self.keys(value, ("text", "comments"), "an argument")
            return Argument(self.text(value, "text"), self.line(value), self.comments(value))
        return Argument(self.text({"args": value}, "args", line=self.line(found)), self.line(found))

    # --- values ----------------------------------------------------------------------------------------

    def line(self, found: Mapping[str, Any]) -> int:
        line = found.get("line", getattr(found, "line", 0))
        return line if isinstance(line, int) else 0

    def problem(self, found: Mapping[str, Any], message: str, hint: str = "", code: str = "FLOW014") -> None:
        self.reading.problem(self.line(found), code, message, hint)

    def keys(self, found: Mapping[str, Any], known: tuple[str, ...], what: str) -> None:
        for key in found:
            if key not in known and key != "line":
                self.problem(found, f"{what} has no key '{key}'", did_you_mean(key, known, f"keys: {', '.join(known)}"))
        for key in getattr(found, "repeated", ()):
            self.problem(found, f"{what} has the key '{key}' twice")

    def text(self, found: Mapping[str, Any], key: str, required: bool = False, line: int = 0) -> str:
        """A string; numbers and booleans are written as a flow would have them."""
        value = found.get(key)
        if value is None or value == "":
            if required:
                self.problem(found, f"the key '{key}' is missing or empty", code="FLOW009")
            return ""
        if isinstance(value, bool):
            return "true" if value else "false"
        if isinstance(value, int | float):
            return json.dumps(value)
        if not isinstance(value, str):
            self.reading.problem(line or self.line(found), "FLOW014", f"'{key}' is not a string")
            return ""
        return self.writable(value, key, line or self.line(found))

    def writable(self, value: str, key: str, line: int) -> str:
        bad = _UNWRITABLE.search(value)
        if bad:
            message = f"'{key}' holds the character U+{ord(bad[0]):04X}, which no flow can hold"
            self.reading.problem(line, "FLOW015", message, "delete it")
            return _UNWRITABLE.sub("", value)
        return value

    def array(self, found: Mapping[str, Any], key: str) -> list[Any]:
        value = found.get(key)
        if value is None:
            return []
        if not isinstance(value, list):
            self.problem(found, f"'{key}' is not a list")
            return []
        return value

    def objects(self, found: Mapping[str, Any], key: str) -> list[Mapping[str, Any]]:
        values = self.array(found, key)
        good: list[Mapping[str, Any]] = [each for each in values if isinstance(each, dict)]
        if len(good) < len(values):
            self.problem(found, f"'{key}' holds something that is not an object")
        return good

    def attrs(self, found: Mapping[str, Any]) -> dict[str, str]:
        value = found.get("attrs")
        if value is None:
            return {}
        if not isinstance(value, dict):
            self.problem(found, "'attrs' is not an object")
            return {}
        attrs = {}
        for key, each in value.items():
            if not _ATTRIBUTE.fullmatch(key) or key in ("name", "type", "class", "engine", "xmlns"):
                self.problem(found, f"'{key}' cannot be the name of an attribute")
            elif isinstance(each, list):
                attrs[key] = " ".join(self.text({key: e}, key, line=self.line(found)) for e in each)
            else:
                attrs[key] = self.text({key: each}, key, line=self.line(found))
        return attrs

    def position(self, found: Mapping[str, Any]) -> Position | None:
        x, y = self.text(found, "x"), self.text(found, "y")
        return Position(x, y) if x or y else None

    def comments(self, found: Mapping[str, Any], key: str = "comments") -> tuple[str, ...]:
        comments = []
        for each in self.array(found, key):
            text = self.text({key: each}, key, line=self.line(found)).replace("\r\n", "\n").replace("\r", "\n")
            if "--" in text or text.endswith("-"):
                self.problem(
                    found, f"a comment holds '--' or ends in '-': '{text[:40]}'", "XML cannot hold it", "FLOW015"
                )
                text = text.replace("-", "=")
            comments.append(text)
        return tuple(comments)


_ATTRIBUTE = re.compile(r"[A-Za-z_][\w.-]*")
