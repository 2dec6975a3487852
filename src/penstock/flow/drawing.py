"""A flow drawn as SVG: nodes from top to bottom, their steps from left to right, in layers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

from penstock.flow.graph import Graph, order
from penstock.flow.model import Flow, Node, Step
from penstock.flow.telling import node_needs, step_needs

Size = tuple[float, float]
Places = dict[str, tuple[float, float]]

#: status -> (border, fill). What has no status is drawn as pending.
COLOURS = {
    "done": ("#1a7f37", "#eef8f0"),
    "cached": ("#1a7f37", "#f4f8f5"),
    "running": ("#0969da", "#edf5ff"),
    "failed": ("#cf222e", "#fff0ee"),
    "cancelled": ("#9a6700", "#fff8e5"),
    "pending": ("#8c959f", "#f6f8fa"),
}
_STEP = {"input": "#d6e6f7", "process": "#ffffff", "output": "#e3f1d8"}
_LETTER, _LINE, _PAD, _GAP = 6.6, 15.0, 12.0, 26.0


def draw(flow: Flow, state: Mapping[str, str] | None = None) -> str:
    """The flow as one self-contained SVG. `state`: node -> done, cached, running, failed, cancelled or pending."""
    inner = {node.name: _Inner(node) for node in flow.nodes}
    graph = {node.name: sorted(n for n in node_needs(node) if n in inner) for node in flow.nodes}
    places, (width, height) = _layers(graph, {name: each.size for name, each in inner.items()}, down=True)
    width, height = width + 2 * _PAD, height + 2 * _PAD
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height:.0f}" width="{width:.0f}" '
        f'height="{height:.0f}" font-family="ui-sans-serif, system-ui, sans-serif" font-size="11" role="img" '
        f'aria-label="The flow {escape(flow.name)}">',
        f'<g transform="translate({_PAD} {_PAD})">',
    ]
    for name, needs in graph.items():
        for need in needs:
            (x1, y1), (w1, h1) = places[need], inner[need].size
            (x2, y2), (w2, _) = places[name], inner[name].size
            parts.append(_edge(x1 + w1 / 2, y1 + h1, x2 + w2 / 2, y2, down=True))
    for name, each in inner.items():
        status = (state or {}).get(name, "pending")
        parts += each.svg(*places[name], status, told=state is not None)
    return "\n".join([*parts, "</g>", "</svg>"]) + "\n"


class _Inner:
    """One node's box: its title and its steps, laid out once."""

    def __init__(self, node: Node) -> None:
        self.node = node
        self.steps: dict[str, Step] = {step.name: step for step in node.steps}
        self.sizes = {name: (_width([name, _kind(s)]), 2 * _LINE + 8) for name, s in self.steps.items()}
        self.graph = {name: step_needs(step, node) for name, step in self.steps.items()}
        self.places, (width, height) = _layers(self.graph, self.sizes, down=False)
        self.title = f"{node.name}  ·  {node.engine}"
        self.command = " ".join(argument.text for argument in node.args)[:80]
        top = _LINE + _PAD + (_LINE if self.command else 0)
        self.top = top
        self.size: Size = (
            max(width, _width([self.title + " " * 12]), _width([self.command])) + 2 * _PAD,
            height + top + _PAD + (0 if height else -4),
        )

    def svg(self, x: float, y: float, status: str, told: bool) -> list[str]:
        border, fill = COLOURS.get(status, COLOURS["pending"])
        width, height = self.size
        parts = [
            f'<g transform="translate({x:.1f} {y:.1f})">',
            f'<rect width="{width:.1f}" height="{height:.1f}" rx="8" fill="{fill}" stroke="{border}" '
            f'stroke-width="1.5"/>',
            f'<text x="{_PAD}" y="{_LINE + 4}" font-weight="600" font-size="12" fill="#1f2328">'
            f"{escape(self.title)}</text>",
        ]
        if told:
            parts.append(
                f'<text x="{width - _PAD:.1f}" y="{_LINE + 4}" text-anchor="end" fill="{border}">'
                f"{escape(status)}</text>"
            )
        if self.command:
            parts.append(f'<text x="{_PAD}" y="{2 * _LINE + 4}" fill="#57606a">$ {escape(self.command)}</text>')
        parts.append(f'<g transform="translate({_PAD} {self.top:.1f})">')
        for name, needs in self.graph.items():
            for need in needs:
                (x1, y1), (w1, h1) = self.places[need], self.sizes[need]
                (x2, y2), (_, h2) = self.places[name], self.sizes[name]
                parts.append(_edge(x1 + w1, y1 + h1 / 2, x2, y2 + h2 / 2, down=False))
        for name, step in self.steps.items():
            (sx, sy), (w, h) = self.places[name], self.sizes[name]
            parts += [
                f'<rect x="{sx:.1f}" y="{sy:.1f}" width="{w:.1f}" height="{h:.1f}" rx="5" fill="{_STEP[step.kind]}" '
                f'stroke="#b6bec7"/>',
                f'<text x="{sx + 8:.1f}" y="{sy + _LINE:.1f}" fill="#1f2328">{escape(name)}</text>',
                f'<text x="{sx + 8:.1f}" y="{sy + 2 * _LINE:.1f}" fill="#57606a">{escape(_kind(step))}</text>',
            ]
        return [*parts, "</g>", "</g>"]


def _kind(step: Step) -> str:
    what = step.type or step.cls.rpartition(":")[2] or step.attrs.get("from", "")
    return what if step.kind == "process" else f"{step.kind} {what}".strip()


def _width(texts: Sequence[str]) -> float:
    return max(len(t) for t in texts) * _LETTER + 16


def _edge(x1: float, y1: float, x2: float, y2: float, down: bool) -> str:
    """A smooth line with its tip at the second point."""
    if down:
        bend = max(10.0, abs(y2 - y1) / 2)
        path = f"M{x1:.1f} {y1:.1f} C{x1:.1f} {y1 + bend:.1f} {x2:.1f} {y2 - bend:.1f} {x2:.1f} {y2:.1f}"
        tip = f"M{x2 - 4:.1f} {y2 - 6:.1f} L{x2:.1f} {y2:.1f} L{x2 + 4:.1f} {y2 - 6:.1f}"
    else:
        bend = max(10.0, abs(x2 - x1) / 2)
        path = f"M{x1:.1f} {y1:.1f} C{x1 + bend:.1f} {y1:.1f} {x2 - bend:.1f} {y2:.1f} {x2:.1f} {y2:.1f}"
        tip = f"M{x2 - 6:.1f} {y2 - 4:.1f} L{x2:.1f} {y2:.1f} L{x2 - 6:.1f} {y2 + 4:.1f}"
    return f'<path d="{path} {tip}" fill="none" stroke="#8c959f" stroke-width="1.2"/>'


def _layers(graph: Graph, sizes: Mapping[str, Size], down: bool) -> tuple[Places, Size]:
    """Each name one layer past the last it needs; inside a layer, by where its needs lie (barycentres)."""
    depth: dict[str, int] = {}
    for name in order(graph):
        depth[name] = max((depth[n] + 1 for n in graph[name] if n in depth), default=0)
    for name in graph:
        # What needs nothing stands just before what first needs it, so that its line is short.
        readers = [depth[other] for other in graph if name in graph[other] and other != name]
        if not graph[name] and readers:
            depth[name] = max(0, min(readers) - 1)
    layers: list[list[str]] = [[] for _ in range(max(depth.values(), default=-1) + 1)]
    for name in graph:
        layers[depth[name]].append(name)
    centre: dict[str, float] = {}
    extents = []
    for layer in layers:
        before = {n: [centre[m] for m in graph[n] if m in centre] for n in layer}
        layer.sort(key=lambda n: sum(before[n]) / len(before[n]) if before[n] else 0.0)
        at = 0.0
        for name in layer:
            across = sizes[name][0 if down else 1]
            centre[name] = at + across / 2
            at += across + _GAP / 2
        extents.append(at - _GAP / 2)
    widest = max(extents, default=0.0)
    places: Places = {}
    along = 0.0
    for layer, extent in zip(layers, extents, strict=True):
        for name in layer:
            across = sizes[name][0 if down else 1]
            side = centre[name] - across / 2 + (widest - extent) / 2
            places[name] = (side, along) if down else (along, side)
        along += max(sizes[name][1 if down else 0] for name in layer) + _GAP
    long = max(0.0, along - _GAP)
    return places, ((widest, long) if down else (long, widest))
