"""XML, JSON and Python say the same: whatever one holds, the others hold, byte for byte after `fmt`."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings

from penstock.errors import ProblemsFound
from penstock.flow import Flow, read, write
from penstock.flow.json_form import read_json, write_json
from penstock.flow.python_form import read_python, write_python
from penstock.flow.xml import read_xml, write_xml

from .flows import flows

relaxed = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def canonical(flow: Flow) -> Flow:
    """What any form gives back: `after` and `from` first, as `fmt` writes them."""
    return read_xml(write_xml(flow).encode(), "x.xml").flow or pytest.fail("unreadable")


def built(script: str) -> Flow:
    """Run a script here; `read_python` does it in a process of its own, which is slow for hundreds of flows."""
    names: dict[str, Any] = {}
    exec(script, names)
    flow: Flow = names["flow"].build()
    return flow


@relaxed
@given(flows)
def test_xml_is_canonical_after_one_pass(flow: Flow) -> None:
    text = write_xml(flow)
    reading = read_xml(text.encode(), "x.xml")
    assert reading.problems == []
    assert reading.flow == flow
    assert write_xml(canonical(flow)) == text


@relaxed
@given(flows)
def test_xml_json_xml_changes_no_byte(flow: Flow) -> None:
    reading = read_json(write_json(flow).encode(), "x.json")
    assert reading.problems == []
    assert reading.flow is not None
    assert write_xml(reading.flow) == write_xml(flow)
    assert write_json(canonical(reading.flow)) == write_json(canonical(flow))


@relaxed
@given(flows)
def test_xml_python_xml_changes_no_byte(flow: Flow) -> None:
    script = write_python(flow)
    again = built(script)
    assert write_xml(again) == write_xml(flow)
    assert write_python(canonical(again)) == write_python(canonical(flow))


EXAMPLE = """<!-- head -->
<flow xmlns="urn:penstock:flow:1" xmlns:k="urn:penstock:canvas:1" name="ctr">
  <param name="data" type="path" default="data"/> <!-- where it lies -->
  <!-- first -->
  <node name="a" k:y="7" k:x="40.5" retries="2" after="">
    <conf key="threads" value="2"/> <env name="TZ" value="UTC"/>
    <input name="clicks" path="${data}/c.csv" type="csv"/>
    <process type="sql" name="q" from="clicks" k:x="1"><![CDATA[
      select a from clicks where a < 3 and b = "x" <!-- not a comment
    ]]></process>
    <!-- the end -->
  </node>
</flow>
<!-- tail -->
"""

FORMATTED = """<!-- head -->
<flow xmlns="urn:penstock:flow:1" xmlns:c="urn:penstock:canvas:1" name="ctr">
  <!-- where it lies -->
  <param name="data" type="path" default="data"/>

  <!-- first -->
  <node name="a" engine="local" after="" retries="2" c:x="40.5" c:y="7">
    <conf key="threads" value="2"/>
    <env name="TZ" value="UTC"/>
    <input   name="clicks" type="csv" path="${data}/c.csv"/>
    <process name="q" type="sql" from="clicks" c:x="1"><![CDATA[
      select a from clicks where a < 3 and b = "x" <!-- not a comment
    ]]></process>
    <!-- the end -->
  </node>
</flow>
<!-- tail -->
"""


def test_the_canonical_form_reads_well() -> None:
    flow = read_xml(EXAMPLE.encode(), "x.xml").flow
    assert flow is not None
    assert write_xml(flow) == FORMATTED


def test_long_elements_go_on_below_their_first_attribute() -> None:
    long = " ".join(f"column_{n}" for n in range(9))
    step = f'<process name="p" type="t" a="{long}" b="2"/>'
    flow = f'<flow xmlns="urn:penstock:flow:1" name="f"><node name="n">{step}</node></flow>'
    found = read_xml(flow.encode(), "x.xml").flow
    assert found is not None
    lines = write_xml(found).splitlines()
    assert max(map(len, lines)) <= 120
    assert lines[2].startswith('    <process name="p" type="t" a="column_0')
    assert lines[3] == " " * 13 + 'b="2"/>'


def test_every_form_is_read_by_its_suffix(tmp_path: Path) -> None:
    flow = read_xml(EXAMPLE.encode(), "x.xml").flow
    assert flow is not None
    for suffix, form in ((".xml", "xml"), (".json", "json"), (".py", "python")):
        path = tmp_path / f"flow{suffix}"
        path.write_text(write(flow, form), encoding="utf-8")
        assert write(read(path), "xml") == FORMATTED


def test_lines_are_those_of_the_file() -> None:
    flow = read_xml(EXAMPLE.encode(), "x.xml").flow
    assert flow is not None
    node = flow.nodes[0]
    assert (flow.line, flow.params[0].line, node.line) == (2, 3, 5)
    assert [s.line for s in (*node.conf, *node.env, *node.steps)] == [6, 6, 7, 8]
    text = write_json(flow)
    again = read_json(text.encode(), "x.json").flow
    assert again is not None
    line = again.nodes[0].steps[1].line
    assert text.splitlines()[line].strip() == '"kind": "process",'


# --- the JSON form, written by others ------------------------------------------------------------------------


def test_json_takes_what_a_canvas_would_send() -> None:
    document = {
        "penstock": "flow/1",
        "name": "f",
        "nodes": [
            {
                "name": "n",
                "after": ["a", "b"],
                "conf": {"threads": 2, "fast": True},
                "attrs": {"retries": 1},
                "steps": [
                    {"kind": "process", "name": "p", "type": "t", "attrs": {"at": [0.5, 0.8]}, "x": 10, "y": 2.5}
                ],
            }
        ],
    }
    flow = read_json(json.dumps(document).encode(), "f.json").flow
    assert flow is not None
    node = flow.nodes[0]
    assert node.attrs == {"after": "a b", "retries": "1"}
    assert [(s.name, s.value) for s in node.conf] == [("threads", "2"), ("fast", "true")]
    assert node.steps[0].attrs == {"at": "0.5 0.8"}
    assert node.steps[0].position is not None
    assert (node.steps[0].position.x, node.steps[0].position.y) == ("10", "2.5")


def test_every_fault_of_a_json_flow_is_told_with_its_line() -> None:
    text = """{"penstock": "flow/1", "name": "f", "nodez": [],
 "nodes": [
  {"name": "n", "name": "m", "steps": [
    {"kind": "procss", "name": "p"},
    {"kind": "input", "attrs": {"type": "x"}},
    7]},
  {"name": "o", "steps": {}, "comments": ["a -- b", "\\u0001"]}]}"""
    problems = read_json(text.encode(), "f.json").problems
    assert [(p.line, p.code, p.message) for p in problems] == [
        (1, "FLOW014", "the flow has no key 'nodez'"),
        (3, "FLOW014", "a node has the key 'name' twice"),
        (3, "FLOW014", "'steps' holds something that is not an object"),
        (4, "FLOW014", 'a step is of the kind "procss"'),
        (5, "FLOW009", "the key 'name' is missing or empty"),
        (5, "FLOW014", "'type' cannot be the name of an attribute"),
        (7, "FLOW014", "'steps' is not a list"),
        (7, "FLOW015", "a comment holds '--' or ends in '-': 'a -- b'"),
        (7, "FLOW015", "'comments' holds the character U+0001, which no flow can hold"),
    ]


@pytest.mark.parametrize(
    ("data", "line", "said"),
    [
        (b"", 1, "the JSON cannot be read: Expecting value, at column 1"),
        (b'{"penstock":\n "flow/1",}', 2, "the JSON cannot be read: "),
        (b'{"a": "\xff"}', 1, "the file is not UTF-8"),
        (b"[" * 100_000, 0, "the JSON is nested too deeply"),
        (b"[]", 1, "the document is not a flow"),
        (b'{"penstock": "flow/2"}', 1, "the document is not a flow"),
        (b'{"penstock": "flow/1", "name": ' + b"9" * 5000 + b"}", 0, "the JSON cannot be read: "),
    ],
)
def test_json_that_is_no_flow_is_one_problem(data: bytes, line: int, said: str) -> None:
    (problem,) = read_json(data, "f.json").problems
    assert problem.line == line
    assert problem.message.startswith(said)


# --- scripts ------------------------------------------------------------------------------------------------


def script(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "flow.py"
    path.write_text(text, encoding="utf-8")
    return path


def test_a_script_reads_nicely(tmp_path: Path) -> None:
    path = script(
        tmp_path,
        """from penstock.flow.builder import Flow
print("this goes to stderr, not into the answer")
flow = Flow("f")
flow.param("rate", type="float", default=0.5)
samples = flow.node("samples", retries=2)
clicks = samples.input("clicks", type="csv", path="c.csv", header=True)
parts = samples.process("parts", type="split", from_=clicks, by="hash", at=[0.5, 0.8])
train = samples.output("train", type="parquet", from_=parts["train"])
flow.node("model").input("train", from_=train)
""",
    )
    flow = read(path)
    steps = flow.nodes[0].steps
    assert steps[0].attrs == {"path": "c.csv", "header": "true"}
    assert steps[1].attrs == {"from": "clicks", "by": "hash", "at": "0.5 0.8"}
    assert steps[2].attrs == {"from": "parts.train"}
    assert flow.nodes[1].steps[0].attrs == {"from": "samples.train"}
    assert (flow.params[0].default, flow.nodes[0].attrs) == ("0.5", {"retries": "2"})
    assert [s.line for s in steps] == [6, 7, 8]


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ("x = 1\ny = x / 0\n", 2, "the script failed: ZeroDivisionError: division by zero"),
        ("x = (\n", 1, "the script cannot be read: '(' was never closed"),
        ("import sys\nsys.exit(3)\n", 2, "the script failed: SystemExit: 3"),
        ("import os\nos._exit(3)\n", 0, "the script ended the interpreter (exit status 3)"),
        ("x = 1\n", 0, "the script builds no flow"),
        ("from penstock.flow.builder import Flow\na = Flow('a')\nb = Flow('b')\n", 0, "the script builds 2 flows"),
        (
            "from penstock.flow.builder import Flow\nflow = Flow('a')\nflow.param('x', default={})\n",
            3,
            "the script failed: TypeError: a flow's values are strings, numbers, true or false, steps and "
            "lists of them, not {}",
        ),
    ],
)
def test_a_script_that_fails_is_one_problem_with_its_line(tmp_path: Path, text: str, line: int, message: str) -> None:
    with pytest.raises(ProblemsFound) as caught:
        read(script(tmp_path, text))
    (problem,) = caught.value.problems
    assert (problem.line, problem.code, problem.message) == (line, "FLOW013", message)


def test_a_script_that_never_ends_is_stopped(tmp_path: Path) -> None:
    path = script(tmp_path, "while True:\n    pass\n")
    (problem,) = read_python(path, "flow.py", time_limit_s=0.7).problems
    assert problem.code == "FLOW013"
    assert "within 0.7 seconds" in problem.message


def test_a_script_may_hold_any_text(tmp_path: Path) -> None:
    """Through the child process as well: what JSON and a pipe carry is what was written."""
    flow = read_xml(EXAMPLE.encode(), "x.xml").flow
    assert flow is not None
    odd = replace(flow, description='"quoted" \\ ü \x85 \u2028 ${x}\n"""\t\r😀')
    again = read(script(tmp_path, write_python(odd)))
    assert write_xml(again) == write_xml(odd)


def test_the_line_is_that_of_the_opening_bracket() -> None:
    node = '<node\n name="n"\n>\n<input\n name="x"\n type="csv"/></node>'
    text = f'<flow xmlns="urn:penstock:flow:1"\n name="f">\n{node}</flow>'
    flow = read_xml(text.encode(), "x.xml").flow
    assert flow is not None
    assert (flow.line, flow.nodes[0].line, flow.nodes[0].steps[0].line) == (1, 3, 6)
