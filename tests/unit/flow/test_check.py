"""The semantic pass beyond the golden flows: laws, scale, and what `plan` makes of a good flow."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from penstock.data.schema import Schema
from penstock.errors import ProblemsFound
from penstock.flow import CheckedFlow, Flow, Plan, check, check_file, load, plan, read, resolve
from penstock.flow.checks.nodes import memory_bytes
from penstock.flow.graph import ancestors, cycles, order
from penstock.flow.values import try_resolve
from penstock.flow.xml import read_xml

from .flows import flows

GOOD = """<flow xmlns="urn:penstock:flow:1" name="f">
  <param name="data" type="path" default="data"/>
  <node name="a" retries="2" timeout_s="1.5" memory="1GiB" cpus="2" priority="-1">
    <conf key="threads" value="1"/>
    <env name="TZ" value="UTC"/>
    <input   name="clicks" type="csv" path="${data}/clicks.csv"/>
    <process name="parts" type="split" from="clicks" by="hash" column="user_id" at="0.5"/>
    <output  name="train" type="parquet" from="parts.train"/>
    <output  name="test" type="csv" from="parts.test" path="out/test" mode="append"/>
  </node>
  <node name="b" after="a">
    <input   name="train" from="a.train" columns="user_id price"/>
    <input   name="test" from="a.test"/>
    <output  name="shown" type="print" from="train"/>
    <output  name="both" type="parquet" from="test" path="out/both.parquet"/>
  </node>
</flow>
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "clicks.csv").write_text("user_id,price,city\nu1,2.5,paris\nu2,3.5,lima\n", encoding="utf-8")
    (tmp_path / "f.xml").write_text(GOOD, encoding="utf-8")
    return tmp_path


def checked(path: Path) -> CheckedFlow:
    flow = read(path)
    return check(flow, resolve(flow))


def planned(path: Path) -> Plan:
    return plan(checked(path))


def test_columns_flow_across_nodes(folder: Path) -> None:
    found = checked(folder / "f.xml")
    assert found.problems == ()
    schemas = {name: info.names for name, info in found.infos.items() if isinstance(info, Schema)}
    assert schemas["a.parts.train"] == ("user_id", "price", "city")
    assert schemas["b.train"] == ("user_id", "price")
    assert schemas["b.both"] == ("user_id", "price", "city")


def test_a_plan_has_all_a_runner_needs(folder: Path) -> None:
    first, second = planned(folder / "f.xml").nodes
    assert (first.name, first.needs, second.needs) == ("a", (), ("a",))
    assert (first.retries, first.timeout_s, first.memory_bytes, first.cpus, first.priority) == (2, 1.5, 2**30, 2.0, -1)
    assert (first.conf, first.env, first.fresh, second.fresh) == ({"threads": "1"}, {"TZ": "UTC"}, True, False)
    train, test = first.outputs["train"], first.outputs["test"]
    assert (train.path, train.file, train.folder, train.kind) == (None, "train.parquet", False, "frame")
    assert (test.path, test.folder, test.mode) == (str(folder / "out/test"), True, "append")
    assert second.outputs["shown"].kind == "none"
    assert second.from_nodes == {"train": "a.train", "test": "a.test"}
    assert first.reads() == (str(folder / "data/clicks.csv"),)
    assert second.reads() == ()


def test_bind_puts_in_the_paths_that_only_a_run_knows(folder: Path) -> None:
    first, second = planned(folder / "f.xml").nodes
    paths = {"a.train": "/store/1/train.parquet", "a.test": str(folder / "out/test"), "b.shown": "/store/1/shown"}
    attrs = {s.name: s.attrs for s in (*first.bind(paths), *second.bind(paths))}
    assert "path" not in {s.name: s.attrs for s in first.steps}["train"]
    assert attrs["both"]["path"] == str(folder / "out/both.parquet")
    steps = {s.name: s for s in second.bind(paths)}
    assert (steps["train"].type, steps["train"].attrs["path"]) == ("parquet", "/store/1/train.parquet")
    assert (steps["test"].type, steps["test"].attrs["path"]) == ("csv", str(folder / "out/test"))
    assert "from" not in steps["train"].attrs
    assert {s.name: s for s in first.bind(paths)}["train"].attrs["path"] == "/store/1/train.parquet"
    with pytest.raises(KeyError):
        second.bind({})


def test_a_flow_with_errors_has_no_plan(folder: Path) -> None:
    (folder / "f.xml").write_text(GOOD.replace("parts.train", "parts.tran"), encoding="utf-8")
    with pytest.raises(ProblemsFound, match="FLOW042"):
        planned(folder / "f.xml")


def test_a_user_operator_is_told_by_its_source(folder: Path) -> None:
    module = folder / "plan_test_operators.py"
    source = """
from penstock.operators import Checked, Process
class Pass(Process):
    def check(self, inputs, context):
        return Checked({"": inputs[self.from_]})
"""
    module.write_text(source, encoding="utf-8")
    step = '<process name="parts2" class="plan_test_operators:Pass" from="clicks"/>'
    (folder / "f.xml").write_text(
        GOOD.replace('<env name="TZ" value="UTC"/>', "").replace("<process", f"{step}\n    <process", 1),
        encoding="utf-8",
    )
    first = planned(folder / "f.xml").nodes[0]
    assert first.fresh
    assert len(first.code["parts2"]) > 60


def test_a_file_an_earlier_node_writes_is_not_missing(folder: Path) -> None:
    """By its path alone, with `after`: `from` says more, but this must work too."""
    read_by_path = '<input name="test" type="csv" path="out/test"/>'
    (folder / "f.xml").write_text(GOOD.replace('<input   name="test" from="a.test"/>', read_by_path), encoding="utf-8")
    assert check_file(folder / "f.xml") == ()
    (folder / "f.xml").write_text(
        GOOD.replace('<input   name="test" from="a.test"/>', read_by_path)
        .replace(' after="a"', "")
        .replace('<input   name="train" from="a.train" columns="user_id price"/>', "")
        .replace('<output  name="shown" type="print" from="train"/>', ""),
        encoding="utf-8",
    )
    assert [p.code for p in check_file(folder / "f.xml")] == ["FLOW054"]


def test_a_range_of_dates_reads_the_files_it_names(folder: Path) -> None:
    for day in ("28", "01"):
        (folder / "data" / f"{day}.csv").write_text("a\n1\n", encoding="utf-8")
    text = """<flow xmlns="urn:penstock:flow:1" name="f"><node name="a">
    <input name="x" type="csv" path="data/${run.date-1d..run.date:%d}.csv"/>
    <output name="y" type="csv" from="x"/></node></flow>"""
    (folder / "f.xml").write_text(text, encoding="utf-8")
    flow = read(folder / "f.xml")
    (node,) = plan(check(flow, resolve(flow, date="2026-03-01"))).nodes
    assert node.reads() == (str(folder / "data/28.csv"), str(folder / "data/01.csv"))


@pytest.mark.parametrize(
    ("text", "expected"),
    [("1024", 1024), ("512MB", 512_000_000), ("4 GiB", 4 * 2**30), ("1.5k", 1500), ("2Ti", 2 * 2**40)],
)
def test_memory_is_written_as_people_do(text: str, expected: int) -> None:
    assert memory_bytes(text) == expected


# --- nothing crashes ----------------------------------------------------------------------------------------

relaxed = settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))


@relaxed
@given(flows)
def test_any_flow_is_checked_without_a_traceback(flow: Flow) -> None:
    values, problems = try_resolve(flow, date="2026-01-01")
    found = check(flow, values, known=problems).problems
    assert list(found) == sorted(found)
    assert len(set(found)) == len(found)


@relaxed
@given(st.binary(max_size=200))
def test_any_bytes_are_read_without_a_traceback(tmp_path: Path, data: bytes) -> None:
    for name in ("x.xml", "x.json"):
        (tmp_path / name).write_bytes(data)
        reading = load(tmp_path / name)
        assert reading.problems or reading.flow


@relaxed
@given(st.data())
def test_a_flow_with_bytes_changed_is_read_without_a_traceback(data: st.DataObject) -> None:
    text = bytearray(GOOD.encode())
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(text) - 1))
        how = data.draw(st.sampled_from(["change", "drop", "double"]))
        if how == "change":
            text[place] = data.draw(st.integers(0, 255))
        elif how == "drop":
            del text[place : place + data.draw(st.integers(1, 30))]
        else:
            text[place:place] = text[place : place + 40]
    reading = read_xml(bytes(text), "x.xml")
    if reading.flow is None:
        assert reading.problems
        return
    values, problems = try_resolve(reading.flow, date="2026-01-01")
    check(reading.flow, values, reading.broken, [*reading.problems, *problems])


# --- size ---------------------------------------------------------------------------------------------------


def chain(count: int) -> str:
    nodes = [
        '<node name="n0"><input name="x" type="csv" path="data/clicks.csv"/>'
        '<process name="p" type="filter" from="x" where="price &gt; 1 and city is not null"/>'
        '<output name="y" type="parquet" from="p"/></node>'
    ]
    nodes += [
        f'<node name="n{i}"><input name="x" from="n{i - 1}.y"/>'
        '<process name="p" type="filter" from="x" where="price &gt; 1 and city is not null"/>'
        '<output name="y" type="parquet" from="p"/></node>'
        for i in range(1, count)
    ]
    return f'<flow xmlns="urn:penstock:flow:1" name="f">{"".join(nodes)}</flow>'


def test_the_time_to_check_grows_with_the_flow_not_its_square(folder: Path) -> None:
    seconds = {}
    for count in (125, 125, 1000):  # the first warms up imports and parsers
        (folder / "f.xml").write_text(chain(count), encoding="utf-8")
        start = time.perf_counter()
        assert check_file(folder / "f.xml") == ()
        seconds[count] = time.perf_counter() - start
    assert seconds[1000] < 8 * seconds[125] * 5
    assert seconds[1000] < 5.0  # 1 s on a quiet machine; this only catches a change of kind


def test_a_long_chain_needs_no_recursion(folder: Path) -> None:
    (folder / "f.xml").write_text(chain(2000), encoding="utf-8")
    assert check_file(folder / "f.xml") == ()


# --- graphs -------------------------------------------------------------------------------------------------

graphs = st.dictionaries(st.sampled_from("abcdefg"), st.lists(st.sampled_from("abcdefg"), max_size=3), max_size=7)


@given(graphs)
def test_order_is_topological_where_there_is_no_cycle(graph: dict[str, list[str]]) -> None:
    ordered = order(graph)
    assert sorted(ordered) == sorted(graph)
    if not cycles(graph):
        for name, needs in graph.items():
            assert all(ordered.index(need) < ordered.index(name) for need in needs if need in graph)


@given(graphs)
def test_cycles_are_cycles_and_none_is_missed(graph: dict[str, list[str]]) -> None:
    found = cycles(graph)
    for cycle in found:
        assert len(set(cycle)) == len(cycle)
        assert all(after in graph[name] for name, after in zip(cycle, [*cycle[1:], cycle[0]], strict=True))
    # Reachability by brute force: a name is in a knot if it can reach itself.
    reach = {name: {n for n in needs if n in graph} for name, needs in graph.items()}
    for _ in graph:
        reach = {name: set().union(known, *(reach[n] for n in known)) for name, known in reach.items()}
    knotted = [name for name in graph if name in reach[name]]
    assert bool(found) == bool(knotted)
    knots = {frozenset(n for n in knotted if n in reach[name] and name in reach[n]) for name in knotted}
    assert len(found) == len(knots)
    if not found:
        assert ancestors(graph) == reach
