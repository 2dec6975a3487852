"""Flows as Python scripts: writing one, and reading one by running it in a child process with a time limit."""

from __future__ import annotations

import json
import keyword
import os
import re
import runpy
import subprocess
import sys
import traceback
from collections.abc import Mapping
from pathlib import Path

from penstock.errors import Problem
from penstock.flow.builder import Flow as Builder
from penstock.flow.json_form import document, number, read_document
from penstock.flow.model import Flow, Node, Position, Step
from penstock.flow.xml import Reading

TIME_LIMIT_S = 60.0
_LINE = 110


# --- writing ------------------------------------------------------------------------------------------------


def write_python(flow: Flow) -> str:
    """A script that builds this very flow, comments and positions included."""
    comments = [f"comments=[{', '.join(map(_quoted, flow.comments))}]"] if flow.comments else []
    description = [f"description={_quoted(flow.description)}"] if flow.description else []
    lines = [
        "from penstock.flow.builder import Flow",
        "",
        _call("flow = Flow", [_quoted(flow.name), *description, *comments]),
    ]
    for param in flow.params:
        lines += [f"flow.comment({_quoted(c)})" for c in param.comments]
        pairs = {"type": param.type or None, "default": param.default, "description": param.description or None}
        lines += [_call("flow.param", [_quoted(param.name), *_keywords(pairs)])]
    taken = {"flow", "Flow"}
    for node in flow.nodes:
        variable = _variable(node.name, taken)
        lines += ["", *(f"flow.comment({_quoted(c)})" for c in node.comments), *_node(node, variable)]
    if flow.last_comments or flow.after_comments:
        lines += ["", *(f"flow.comment({_quoted(c)})" for c in flow.last_comments)]
        lines += [f"flow.comment_after({_quoted(c)})" for c in flow.after_comments]
    return "\n".join(lines) + "\n"


def _node(node: Node, variable: str) -> list[str]:
    attrs = _keywords({k: v for k, v in node.attrs.items() if k == "after"} | dict(node.attrs))
    made = _call(f"{variable} = flow.node", [_quoted(node.name), f"engine={_quoted(node.engine)}", *attrs])
    lines = [made + _place(node.position)]
    for comments, call in (
        *((s.comments, _call(f"{variable}.conf", [_quoted(s.name), _quoted(s.value)])) for s in node.conf),
        *((s.comments, _call(f"{variable}.env", [_quoted(s.name), _quoted(s.value)])) for s in node.env),
        *((a.comments, f"{variable}.arg({_quoted(a.text)})") for a in node.args),
        *((s.comments, _step(s, variable)) for s in node.steps),
        (node.last_comments, ""),
    ):
        lines += [f"{variable}.comment({_quoted(c)})" for c in comments]
        lines += [call] if call else []
    return lines


def _step(step: Step, variable: str) -> str:
    first = {"type": step.type or None, "class": step.cls or None}
    attrs = {k: v for k, v in step.attrs.items() if k == "from"} | dict(step.attrs)
    reserved = {"text"} & set(attrs)  # an operator's own attribute `text` is written text_
    pairs = _keywords(first) + _keywords(attrs, reserved)
    text = [f"text={_quoted(step.text)}"] if step.text else []
    return _call(f"{variable}.{step.kind}", [_quoted(step.name), *pairs, *text]) + _place(step.position)


def _keywords(pairs: Mapping[str, str | None], reserved: set[str] | frozenset[str] = frozenset()) -> list[str]:
    """`key="value"`, with an underscore behind names that Python or the builder keep, else as `**{...}`."""
    plain: list[str] = []
    odd: dict[str, str] = {}
    for key, value in pairs.items():
        if value is None:
            continue
        name = f"{key}_" if keyword.iskeyword(key) or key.endswith("_") or key in reserved else key
        # Order is kept: what comes behind a name that cannot be a keyword goes into the mapping with it.
        if not odd and re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
            plain.append(f"{name}={_quoted(value)}")
        else:
            odd[name] = value
    return plain + ([f"**{odd!r}"] if odd else [])


def _call(function: str, arguments: list[str]) -> str:
    line = f"{function}({', '.join(arguments)})"
    if len(line) <= _LINE or "\n" in line:
        return line
    return f"{function}(\n" + "".join(f"    {a},\n" for a in arguments) + ")"


def _place(position: Position | None) -> str:
    if position is None:
        return ""
    x, y = (number(each) for each in (position.x, position.y))
    return f".place({x!r}, {y!r})"


def _quoted(text: str) -> str:
    """A Python literal with double quotes; several lines stand as such where nothing in them needs an escape."""
    plain = re.fullmatch(r"[^\\\r\t\x7f-\xa0\u2028\u2029\ufeff]+", text)
    if "\n" in text and plain and '"""' not in text and not text.endswith('"'):
        return f'"""{text}"""'
    shown = json.dumps(text, ensure_ascii=False)
    return re.sub("[\x7f-\xa0\u2028\u2029\ufeff]", lambda m: f"\\u{ord(m[0]):04x}", shown)


def _variable(name: str, taken: set[str]) -> str:
    plain = re.sub(r"[^a-z0-9_]", "_", name.lower())
    start = plain if plain and not plain[0].isdigit() and not keyword.iskeyword(plain) else f"node_{plain}"
    variable, count = start, 2
    while variable in taken:
        variable, count = f"{start}_{count}", count + 1
    taken.add(variable)
    return variable


# --- reading ------------------------------------------------------------------------------------------------


def read_python(path: Path, file: str, time_limit_s: float = TIME_LIMIT_S) -> Reading:
    """Run the script in a child process and take the flow it builds. What it prints goes to stderr."""
    reading = Reading(file)
    source, sink = os.pipe()
    command = [sys.executable, "-m", "penstock.flow.python_form", str(path.absolute()), str(sink)]
    with os.fdopen(source, "rb") as answers:
        try:
            child = subprocess.Popen(command, pass_fds=[sink], stdin=subprocess.DEVNULL, stdout=2)
        finally:
            os.close(sink)
        answer = _answer(child, answers.fileno(), time_limit_s)
    if answer is None:
        message = f"the script has not built its flow within {time_limit_s:g} seconds"
        reading.problem(0, "FLOW013", message, "a script should only describe the flow, never run it")
    elif not answer:
        reading.problem(0, "FLOW013", f"the script ended the interpreter (exit status {child.returncode})")
    else:
        found = json.loads(answer)
        if "flow" in found:
            read_document(found["flow"], reading)
        else:
            reading.problems.append(Problem(file, found["line"], "FLOW013", found["message"], found["hint"]))
    return reading


def _answer(child: subprocess.Popen[bytes], descriptor: int, time_limit_s: float) -> bytes | None:
    """All the child writes to us, or None where the time is over; the child is gone afterwards."""
    import select
    import time

    deadline = time.monotonic() + time_limit_s
    parts: list[bytes] = []
    try:
        while True:
            ready, _, _ = select.select([descriptor], [], [], max(0.0, deadline - time.monotonic()))
            if not ready:
                return None
            part = os.read(descriptor, 1 << 16)
            if not part:
                return b"".join(parts)
            parts.append(part)
    finally:
        child.kill()
        child.wait()


def _run(script: str) -> dict[str, object]:
    """In the child: run the script and say what it built, or where it failed."""
    sys.path.insert(0, str(Path(script).parent))
    sys.argv = [script]
    try:
        found = runpy.run_path(script, run_name="__penstock__")
    except SyntaxError as error:
        return {"line": error.lineno or 0, "message": f"the script cannot be read: {error.msg}", "hint": ""}
    except (Exception, SystemExit) as error:
        lines = [f.lineno for f in traceback.extract_tb(error.__traceback__) if f.filename == script]
        said = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
        return {"line": (lines or [0])[-1] or 0, "message": f"the script failed: {said}", "hint": ""}
    flows = {id(value): value for value in found.values() if isinstance(value, Builder)}
    if len(flows) != 1:
        count = "no flow" if not flows else f"{len(flows)} flows"
        hint = 'a script builds one: flow = Flow("name"), with Flow from penstock.flow.builder'
        return {"line": 0, "message": f"the script builds {count}", "hint": hint}
    (flow,) = flows.values()
    return {"flow": document(flow.build(), lines=True)}


if __name__ == "__main__":
    with os.fdopen(int(sys.argv[2]), "w", encoding="utf-8") as out:
        json.dump(_run(sys.argv[1]), out)
