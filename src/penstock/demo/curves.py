"""Curves over time as inline SVG: axes, a legend, a moment marked; readable on light and on dark paper.

Colours are variables of the page, so that one drawing serves both.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from penstock.operators.report import Axis

WIDTH = 1000
_LEFT, _RIGHT, _TOP, _BOTTOM = 62, 128, 26, 44

STYLE = """
:root{--best:#6e7781;--loop:#1a7f37;--frozen:#bc4c00;--first:#0969da;--second:#8250df;--mark:#bf3989}
@media (prefers-color-scheme:dark){:root{--best:#8b949e;--loop:#3fb950;--frozen:#f0883e;--first:#58a6ff;
--second:#bc8cff;--mark:#f778ba}}
.curves{margin:0}.curves svg{width:100%;height:auto;display:block;overflow:visible}
.curves text{font:13px system-ui,-apple-system,"Segoe UI",Roboto,"Noto Sans","DejaVu Sans",sans-serif;fill:var(--dim)}
.curves .small text{font-size:15px}.curves .name{font-weight:600}
.curves .grid{stroke:var(--line)}.curves .axis{stroke:var(--dim)}
.curves polyline{fill:none;stroke-width:2.4;stroke-linejoin:round;stroke-linecap:round}
.curves .mark{stroke:var(--mark);stroke-width:1.5;stroke-dasharray:5 4}
.curves text.marked{fill:var(--mark);font-weight:600}
.legend i.key{height:4px;width:18px}
"""


@dataclass(frozen=True)
class Curve:
    """points: (seconds, value) in order. colour: a variable of `STYLE`. said: at the curve's end, beside its name."""

    name: str
    colour: str
    points: Sequence[tuple[float, float]]
    said: str = ""
    dashed: bool = False


def drawing(
    curves: Sequence[Curve], *, seconds: float, y_label: str, height: int = 380, marked_s: float | None = None,
    mark: str = "", floor: float | None = None,
) -> str:  # fmt: skip
    """One figure with its legend. floor: a value that the y axis reaches down to."""
    points = [point for curve in curves for point in curve.points]
    if not points:
        return "<p>no points</p>"
    values = [y for _, y in points] + ([] if floor is None else [floor])
    x_axis = Axis([0.0, seconds], _LEFT, WIDTH - _RIGHT, ticks=10)
    x_axis.low, x_axis.high = 0.0, seconds
    y_axis = Axis(values, height - _BOTTOM, _TOP)
    parts = [_grid(x_axis, y_axis, height, y_label)]
    if marked_s is not None:
        x = x_axis.at(marked_s)
        parts.append(f'<line class="mark" x1="{x:.1f}" x2="{x:.1f}" y1="{_TOP - 8}" y2="{height - _BOTTOM}"/>'
                     f'<text class="marked" x="{x + 7:.1f}" y="{_TOP - 10}">{escape(mark)}</text>')  # fmt: skip
    for curve in curves:
        path = " ".join(f"{x_axis.at(x):.1f},{y_axis.at(y):.1f}" for x, y in curve.points)
        dash = ' stroke-dasharray="7 5"' if curve.dashed else ""
        parts.append(f'<polyline points="{path}" stroke="var(--{curve.colour})"{dash}/>')
    parts += _ends(curves, x_axis, y_axis)
    legend = "".join(
        f'<span><i class="key" style="background:var(--{c.colour})"></i>{escape(c.name)}</span>' for c in curves
    )
    said = ", ".join(curve.name for curve in curves)
    svg = (f'<svg viewBox="0 0 {WIDTH} {height}" xmlns="http://www.w3.org/2000/svg" role="img" '
           f'aria-label="{escape(f"{y_label} over time: {said}")}">{"".join(parts)}</svg>')  # fmt: skip
    return f'<figure class="curves">{svg}<figcaption class="legend">{legend}</figcaption></figure>'


def _grid(x_axis: Axis, y_axis: Axis, height: int, y_label: str) -> str:
    left, right, top, bottom = _LEFT, WIDTH - _RIGHT, _TOP, height - _BOTTOM
    parts = []
    for tick in y_axis.ticks:
        y = y_axis.at(tick)
        parts.append(f'<line class="grid" x1="{left}" x2="{right}" y1="{y:.1f}" y2="{y:.1f}"/>'
                     f'<text x="{left - 9}" y="{y + 4.5:.1f}" text-anchor="end">{tick:,.10g}</text>')  # fmt: skip
    for tick in x_axis.ticks:
        if tick <= x_axis.high:
            x = x_axis.at(tick)
            parts.append(f'<line class="axis" x1="{x:.1f}" x2="{x:.1f}" y1="{bottom}" y2="{bottom + 5}"/>'
                         f'<text x="{x:.1f}" y="{bottom + 20}" text-anchor="middle">{tick:g}</text>')  # fmt: skip
    parts.append(f'<line class="axis" x1="{left}" x2="{right}" y1="{bottom}" y2="{bottom}"/>')
    parts.append(f'<text x="{(left + right) / 2}" y="{height - 4}" text-anchor="middle">seconds</text>')
    parts.append(f'<text x="{left - 46}" y="{top - 10}">{escape(y_label)}</text>')
    return "".join(parts)


def _ends(curves: Sequence[Curve], x_axis: Axis, y_axis: Axis) -> list[str]:
    """What each curve is called where it ends; names keep out of one another's way."""
    ends = sorted(((y_axis.at(c.points[-1][1]), c) for c in curves if c.points and c.said), key=lambda end: end[0])
    parts, free = [], 0.0
    for y, curve in ends:
        at = max(y + 4.5, free)
        free = at + 17
        x = x_axis.at(curve.points[-1][0]) + 10
        parts.append(f'<text class="name" x="{x:.1f}" y="{at:.1f}" style="fill:var(--{curve.colour})">'
                     f"{escape(curve.said)}</text>")  # fmt: skip
    return parts
