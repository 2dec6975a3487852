"""Sections of a report as HTML: tables, line and bar plots as inline SVG, readable offline and without scripts.

A section is a mapping with a `kind`:
`{"kind": "table", "title", "columns": [...], "rows": [[...]]}`,
`{"kind": "line", "title", "x_label", "y_label", "series": [{"name", "x": [...], "y": [...]}]}`,
`{"kind": "bar", "title", "labels": [...], "values": [...]}`; `"text"` under any of them is a caption.
Everything a section holds is escaped. The output operator `report` writes one page from a frame.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field, PositiveInt

from penstock.data.schema import Info, Schema
from penstock.operators.base import CheckContext, Checked, Fault, Output, RunContext

if TYPE_CHECKING:
    import polars as pl

#: Distinct in hue and in lightness, so that a grey print still tells them apart.
SERIES = ("#1f6feb", "#d9730d", "#2da44e", "#8250df", "#bf3989", "#57606a")
#: Points of a line beyond this are thinned: the eye cannot see them and the file grows.
MAX_POINTS = 600
MAX_BARS = 40
_WIDTH, _HEIGHT, _LEFT, _RIGHT, _TOP, _BOTTOM = 460, 300, 58, 16, 14, 44

STYLE = """
:root{--ink:#1f2328;--dim:#656d76;--line:#d8dee4;--soft:#f6f8fa;--blue:#1f6feb;--green:#1a7f37;--red:#cf222e;
--paper:#fff}
@media (prefers-color-scheme:dark){:root{--ink:#e6edf3;--dim:#8d96a0;--line:#30363d;--soft:#161b22;
--paper:#0d1117;--green:#3fb950;--red:#f85149;--blue:#4493f8}
 .figure svg{filter:invert(.92) hue-rotate(180deg)}}
*{box-sizing:border-box}
body{margin:0;background:var(--paper);color:var(--ink);
font:14px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,"Noto Sans","DejaVu Sans",sans-serif}
main{max-width:1080px;margin:0 auto;padding:32px 24px 64px}
h1{font-size:26px;margin:0 0 4px;letter-spacing:-.01em}
h2{font-size:18px;margin:40px 0 12px;padding-bottom:6px;border-bottom:1px solid var(--line)}
h3{font-size:14px;margin:0 0 8px}p.sub{color:var(--dim);margin:0}
table{border-collapse:collapse;font-variant-numeric:tabular-nums;font-size:13px}
th{text-align:left;color:var(--dim);font-weight:600;border-bottom:1px solid var(--line);white-space:nowrap}
td{border-bottom:1px solid var(--line)}th,td{padding:5px 12px 5px 0;vertical-align:top}
td.n,th.n{text-align:right}
td{white-space:nowrap}td.t{white-space:normal;min-width:320px;max-width:420px;overflow-wrap:anywhere}
.scroll{overflow-x:auto}
.sections{display:grid;grid-template-columns:repeat(auto-fill,minmax(460px,1fr));gap:20px}
.section{border:1px solid var(--line);border-radius:8px;padding:16px;background:var(--paper);min-width:0}
.wide{grid-column:1/-1}
.caption{color:var(--dim);font-size:12px;margin:8px 0 0}.figure svg{width:100%;height:auto;display:block}
.legend{display:flex;flex-wrap:wrap;gap:4px 16px;font-size:12px;color:var(--dim);margin-top:6px}
.legend i{display:inline-block;width:14px;height:3px;vertical-align:middle;margin-right:6px;border-radius:2px}
.cards{display:flex;flex-wrap:wrap;gap:12px;margin:20px 0 0}
.card{border:1px solid var(--line);border-radius:8px;padding:10px 16px;min-width:120px;background:var(--soft)}
.card b{display:block;font-size:20px;font-variant-numeric:tabular-nums}
.card span{color:var(--dim);font-size:12px}
.figures{margin:6px 0 18px;gap:8px}.figures .card{min-width:96px;padding:6px 12px}.figures b{font-size:16px}
.ok{color:var(--green)}.bad{color:var(--red)}
.drawing{overflow-x:auto;border:1px solid var(--line);border-radius:8px;padding:12px;background:#fff}
pre{background:var(--soft);padding:12px;border-radius:6px;overflow-x:auto;white-space:pre-wrap}
@media (max-width:560px){.sections{grid-template-columns:1fr}}@media print{main{max-width:none;padding:0}
.section{break-inside:avoid}}
"""


def page(title: str, body: str) -> str:
    """A whole HTML page: no scripts, nothing loaded from anywhere."""
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta http-equiv="Content-Security-Policy" '
        "content=\"default-src 'none'; style-src 'unsafe-inline'; img-src data:\">"
        f"<title>{escape(title)}</title><style>{STYLE}</style></head><body><main>\n{body}\n</main></body></html>\n"
    )


def sections_html(sections: Iterable[Mapping[str, Any]]) -> str:
    """Every section, in order; one that cannot be drawn says so instead of spoiling the page."""
    return f'<div class="sections">{"".join(section_html(s) for s in sections)}</div>'


def section_html(section: Mapping[str, Any]) -> str:
    kind = section.get("kind")
    title = f"<h3>{escape(str(section['title']))}</h3>" if section.get("title") else ""
    caption = f'<p class="caption">{escape(str(section["text"]))}</p>' if section.get("text") else ""
    try:
        if kind == "table":
            columns = list(section["columns"])
            wide = " wide" if len(columns) > 4 else ""
            body = table(columns, section["rows"])
        elif kind == "line":
            wide, body = "", line_plot(section)
        elif kind == "bar":
            wide, body = "", bar_plot(section["labels"], section["values"])
        else:
            wide, body = "", f"<p>a section of the unknown kind {escape(repr(kind))}</p>"
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        wide, body = "", f"<p>this section cannot be drawn: {escape(f'{type(error).__name__}: {error}')}</p>"
    return f'<section class="section{wide}">{title}{body}{caption}</section>'


# --- tables ---


def table(columns: Sequence[object], rows: Iterable[Sequence[object]]) -> str:
    """An HTML table; columns that hold only numbers (and nulls) stand right-aligned."""
    body = [list(row) for row in rows]
    numeric = [
        any(_is_number(row[i]) for row in body) and all(row[i] is None or _is_number(row[i]) for row in body)
        for i in range(len(columns))
    ]
    mark = [' class="n"' if n else "" for n in numeric]
    head = "".join(f"<th{mark[i]}>{escape(str(c))}</th>" for i, c in enumerate(columns))
    lines = ("<tr>" + "".join(_cell(value, mark[i]) for i, value in enumerate(row)) + "</tr>" for row in body)
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{"".join(lines)}</tbody></table></div>'


def _cell(value: object, mark: str) -> str:
    text = said(value)
    # Only long texts may break over lines: a broken number cannot be read.
    wraps = ' class="t"' if len(text) > 48 else ""
    return f"<td{mark or wraps}>{escape(text)}</td>"


def said(value: object) -> str:
    """A value as a person reads it: thousands apart, five significant digits, null as a dash."""
    if value is None:
        return "–"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        if not math.isfinite(value):
            return str(value)
        return f"{value:,.0f}" if value.is_integer() and abs(value) < 1e15 else f"{value:,.5g}"
    if isinstance(value, datetime):
        return value.isoformat(" ")
    text = str(value)
    return text if len(text) <= 200 else f"{text[:200]}…"


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


# --- plots ---


def line_plot(section: Mapping[str, Any]) -> str:
    """Lines over a common pair of axes, with a legend where there are several."""
    series = []
    for each in section["series"]:
        points = [(float(x), float(y)) for x, y in zip(each["x"], each["y"], strict=True)
                  if x is not None and y is not None and math.isfinite(x) and math.isfinite(y)]  # fmt: skip
        series.append((str(each.get("name", "")), _thinned(points)))
    everything = [p for _, points in series for p in points]
    if not everything:
        return "<p>no points</p>"
    x_axis = Axis([x for x, _ in everything], _LEFT, _WIDTH - _RIGHT)
    y_axis = Axis([y for _, y in everything], _HEIGHT - _BOTTOM, _TOP)
    parts = [_grid(x_axis, y_axis, str(section.get("x_label", "")), str(section.get("y_label", "")))]
    for number, (_, points) in enumerate(series):
        path = " ".join(f"{x_axis.at(x):.1f},{y_axis.at(y):.1f}" for x, y in points)
        colour = SERIES[number % len(SERIES)]
        dash = ' stroke-dasharray="5 4"' if number >= len(SERIES) else ""
        if len(points) == 1:
            parts.append(f'<circle cx="{path.split(",")[0]}" cy="{path.split(",")[1]}" r="3" fill="{colour}"/>')
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="1.8" '
                     f'stroke-linejoin="round"{dash}/>')  # fmt: skip
    legend = "".join(
        f'<span><i style="background:{SERIES[n % len(SERIES)]}"></i>{escape(name)}</span>'
        for n, (name, _) in enumerate(series) if name
    ) if len(series) > 1 or series[0][0] else ""  # fmt: skip
    return f'<div class="figure">{_svg("".join(parts), _HEIGHT)}</div><div class="legend">{legend}</div>'


def bar_plot(labels: Sequence[object], values: Sequence[float | None]) -> str:
    """Horizontal bars, in the order given: labels are words, and words want a line each."""
    pairs = [(said(label), float(value)) for label, value in zip(labels, values, strict=True)
             if value is not None and math.isfinite(value)]  # fmt: skip
    rest = len(pairs) - MAX_BARS
    pairs = pairs[:MAX_BARS]
    if not pairs:
        return "<p>no values</p>"
    low, high = min(0.0, *(v for _, v in pairs)), max(0.0, *(v for _, v in pairs))
    left, right, step = 150, 70, 22
    scale = (_WIDTH - left - right) / ((high - low) or 1.0)
    zero = left - low * scale
    parts = []
    for number, (label, value) in enumerate(pairs):
        y = number * step + 4
        x, width = (zero, value * scale) if value >= 0 else (zero + value * scale, -value * scale)
        short = label if len(label) <= 24 else f"{label[:23]}…"
        parts.append(
            f'<text x="{left - 8}" y="{y + 13}" text-anchor="end" fill="#57606a"><title>{escape(label)}</title>'
            f'{escape(short)}</text><rect x="{x:.1f}" y="{y}" width="{max(width, 0.5):.1f}" height="16" rx="2" '
            f'fill="{SERIES[0]}" fill-opacity=".85"/>'
            f'<text x="{x + width + 6:.1f}" y="{y + 13}" fill="#57606a">{escape(said(value))}</text>'
        )
    more = f'<p class="caption">and {rest} more</p>' if rest > 0 else ""
    return f'<div class="figure">{_svg("".join(parts), len(pairs) * step + 8)}</div>{more}'


class Axis:
    """Maps values to pixels, with round ticks. A single value gets room around it."""

    def __init__(self, values: Sequence[float], start: float, end: float, ticks: int = 5) -> None:
        low, high = min(values), max(values)
        if low == high:
            pad = abs(low) * 0.1 or 1.0
            low, high = low - pad, high + pad
        size = _round_up((high - low) / ticks)
        self.low, self.high = math.floor(low / size + 1e-9) * size, math.ceil(high / size - 1e-9) * size
        self.start, self.end = start, end
        count = round((self.high - self.low) / size)
        self.ticks = [self.low + i * size for i in range(count + 1)]

    def at(self, value: float) -> float:
        return self.start + (value - self.low) / (self.high - self.low) * (self.end - self.start)


def _round_up(size: float) -> float:
    """The next of 1, 2, 2.5, 5, 10 times a power of ten."""
    power = 10.0 ** math.floor(math.log10(size))
    return next(step * power for step in (1, 2, 2.5, 5, 10) if step * power >= size * 0.999)


def _grid(x_axis: Axis, y_axis: Axis, x_label: str, y_label: str) -> str:
    left, right, top, bottom = _LEFT, _WIDTH - _RIGHT, _TOP, _HEIGHT - _BOTTOM
    parts = []
    for tick in y_axis.ticks:
        y = y_axis.at(tick)
        parts.append(f'<line x1="{left}" x2="{right}" y1="{y:.1f}" y2="{y:.1f}" stroke="#d8dee4"/>')
        parts.append(_label(left - 8, y + 4, _tick(tick), "end"))
    for tick in x_axis.ticks:
        x = x_axis.at(tick)
        parts.append(f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{top}" y2="{bottom}" stroke="#eaeef2"/>')
        parts.append(_label(x, bottom + 16, _tick(tick), "middle"))
    middle_x, middle_y = (left + right) / 2, (top + bottom) / 2
    parts.append(f'<text x="{middle_x}" y="{_HEIGHT - 8}" text-anchor="middle" fill="#24292f">{escape(x_label)}</text>')
    parts.append(f'<text transform="translate(14 {middle_y}) rotate(-90)" text-anchor="middle" fill="#24292f">'
                 f"{escape(y_label)}</text>")  # fmt: skip
    return "".join(parts)


def _label(x: float, y: float, text: str, anchor: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="#57606a">{text}</text>'


def _tick(value: float) -> str:
    return f"{value:g}" if abs(value) < 1e5 else f"{value:.3g}"


def _svg(body: str, height: float) -> str:
    return (f'<svg viewBox="0 0 {_WIDTH} {height:.0f}" xmlns="http://www.w3.org/2000/svg" role="img" font-size="11" '
            f'font-family="system-ui, sans-serif">{body}</svg>')  # fmt: skip


def _thinned(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """At most `MAX_POINTS`, the first and the last always among them."""
    if len(points) <= MAX_POINTS:
        return points
    step = (len(points) - 1) / (MAX_POINTS - 1)
    return [points[round(i * step)] for i in range(MAX_POINTS)]


# --- the output operator ---


class ReportOutput(Output):
    """One HTML file that shows a frame: how many rows and columns, the numeric columns drawn, the first rows.

    Any frame; lists and structs are shown as text. Nulls are counted and shown as a dash. It reads the frame once and
    holds only the rows it shows and its summary. No format reads it back.
    """

    type: ClassVar[str] = "report"
    example: ClassVar[str] = (
        '<output name="page" type="report" from="table" path="out/table.html" title="Clicks a day"/>'
    )
    suffix: ClassVar[str | None] = ".html"

    title: str = Field("", description="the page's heading (default: the step's name)")
    rows: PositiveInt = Field(200, description="how many rows the table shows")

    @classmethod
    def suffixes(cls) -> tuple[str, ...]:
        return (".html", ".htm")

    def folder(self) -> bool:
        return False

    def check(self, inputs: Mapping[str, Info], context: CheckContext) -> Checked:
        if not isinstance(inputs[self.from_], Schema):
            hint = 'save a model with type="model"; a report shows rows, for example those of evaluate'
            return Checked({}, (Fault("OPER090", f"'{self.from_}' is a model, and a report shows rows", hint),))
        return Checked({"": Schema.unknown()})

    def sink(self, value: Any, target: Path, context: RunContext) -> None:
        first = context.collect(value.head(self.rows))
        summary = context.collect(_summary(value, first))
        target.write_text(page(self.title or context.step, _frame_html(self.title or context.step, first, summary)))


def _summary(frame: pl.LazyFrame, first: pl.DataFrame) -> pl.LazyFrame:
    """Rows, nulls a column, and mean, min and max of the numeric ones, in one pass."""
    import polars as pl

    numbers = [c for c, t in first.schema.items() if t.is_numeric()]
    wanted = [pl.len().alias("rows")]
    wanted += [pl.col(c).null_count().alias(f"nulls:{c}") for c in first.columns]
    for c in numbers:
        wanted += [
            pl.col(c).mean().alias(f"mean:{c}"),
            pl.col(c).min().alias(f"min:{c}"),
            pl.col(c).max().alias(f"max:{c}"),
        ]
    return frame.select(wanted)


def _frame_html(title: str, first: pl.DataFrame, summary: pl.DataFrame) -> str:
    found = summary.row(0, named=True)
    columns = [[c, str(t), found[f"nulls:{c}"], found.get(f"min:{c}"), found.get(f"mean:{c}"), found.get(f"max:{c}")]
               for c, t in first.schema.items()]  # fmt: skip
    plots = list(_plots(first))
    shown = f"the first {first.height:,} of {found['rows']:,} rows" if found["rows"] > first.height else "all rows"
    rows = ([value if _is_number(value) or value is None else str(value) for value in row] for row in first.rows())
    return (
        f"<h1>{escape(title)}</h1><p class='sub'>{found['rows']:,} rows, {first.width} columns</p>"
        + (f"<h2>Plots</h2>{sections_html(plots)}" if plots else "")
        + f"<h2>Columns</h2>{table(['column', 'type', 'nulls', 'min', 'mean', 'max'], columns)}"
        + f"<h2>Rows</h2><p class='sub'>{shown}</p>{table(first.columns, rows)}"
    )


def _plots(first: pl.DataFrame) -> Iterable[Mapping[str, Any]]:
    """Numbers against the first column of names: bars for a small table, else their distribution among these rows."""
    import polars as pl

    names = next((c for c, t in first.schema.items() if t == pl.String), None)
    numbers = [c for c, t in first.schema.items() if t.is_numeric()][:12]
    for column in numbers:
        values = first[column]
        if names is not None and first.height <= MAX_BARS:
            yield {"kind": "bar", "title": column, "labels": first[names].to_list(), "values": values.to_list()}
        elif values.drop_nulls().n_unique() > 1:
            counts = values.cast(pl.Float64).drop_nans().drop_nulls().hist(bin_count=20)
            labels = [f"≤ {said(float(x))}" for x in counts["breakpoint"]]
            yield {
                "kind": "bar",
                "title": f"{column} (these rows)",
                "labels": labels,
                "values": counts["count"].to_list(),
            }
