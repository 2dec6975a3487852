"""The picture of a flow: everything is on it, and nothing covers anything else."""

from __future__ import annotations

from itertools import combinations

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from lxml import etree

from penstock.flow import Flow, Node, Step
from penstock.flow.drawing import COLOURS, _layers, draw
from penstock.flow.telling import tell

from .flows import flows

names = st.sampled_from("abcdefgh")
graphs = st.dictionaries(names, st.lists(names, max_size=3), max_size=8)
sizes = st.tuples(st.floats(20, 200), st.floats(20, 90))


@given(graphs, st.lists(sizes, min_size=8, max_size=8), st.booleans())
def test_boxes_do_not_overlap_and_stay_inside(
    graph: dict[str, list[str]], drawn: list[tuple[float, float]], down: bool
) -> None:
    size = dict(zip("abcdefgh", drawn, strict=True))
    inside = {name: [n for n in needs if n in graph] for name, needs in graph.items()}
    places, (width, height) = _layers(inside, size, down)
    assert set(places) == set(graph)
    for name, (x, y) in places.items():
        assert -0.01 <= x <= width - size[name][0] + 0.01
        assert -0.01 <= y <= height - size[name][1] + 0.01
    for one, other in combinations(places, 2):
        (x1, y1), (x2, y2) = places[one], places[other]
        apart_x = x1 + size[one][0] <= x2 + 0.01 or x2 + size[other][0] <= x1 + 0.01
        apart_y = y1 + size[one][1] <= y2 + 0.01 or y2 + size[other][1] <= y1 + 0.01
        assert apart_x or apart_y


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(flows)
def test_any_flow_can_be_drawn_and_told(flow: Flow) -> None:
    root = etree.fromstring(draw(flow).encode())
    assert root.tag.endswith("svg")
    told = tell(flow)
    assert all(node.name in told for node in flow.nodes)


def test_what_needs_comes_after_what_it_needs() -> None:
    graph = {"late": ["middle", "input"], "middle": ["early"], "early": [], "input": []}
    places, _ = _layers(graph, dict.fromkeys(graph, (50.0, 30.0)), down=False)
    assert places["early"][0] < places["middle"][0] < places["late"][0]
    assert places["input"][0] == places["middle"][0]  # just before what reads it


def test_status_is_told_and_coloured() -> None:
    step = Step("input", "rows", "csv", attrs={"path": "x.csv"})
    flow = Flow("f", nodes=(Node("a", steps=(step,)), Node("b", attrs={"after": "a"})))
    picture = draw(flow, {"a": "failed"})
    texts = etree.fromstring(picture.encode()).xpath("//*[local-name()='text']/text()")
    assert texts == ["a  ·  local", "failed", "rows", "input csv", "b  ·  local", "pending"]
    assert COLOURS["failed"][0] in picture
    assert "failed" not in draw(flow)
