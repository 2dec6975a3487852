"""report.html: one run on one page, offline. The flow drawn, when each node ran, rows, metrics, the nodes' sections."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from html import escape
from pathlib import Path
from typing import Any

from penstock.flow.drawing import draw
from penstock.flow.model import Flow
from penstock.flow.node_state import NodeState
from penstock.flow.progress import said_seconds, told
from penstock.flow.records import RunRecord
from penstock.operators.report import page, said, section_html, table
from penstock.operators.secrets import mask

_DRAWN = {"done": "done", "failed": "failed", "running": "running", "interrupted": "cancelled"}
_BAR = {"done": "#2da44e", "cached": "#94d3a2", "failed": "#cf222e", "interrupted": "#bf8700"}


def write_report(flow: Flow, record: RunRecord, states: Sequence[NodeState], status: str, folder: Path) -> Path:
    """Write it whole or not at all; returns its path."""
    target = folder / "report.html"
    aside = target.with_suffix(f".{os.getpid()}.tmp")
    aside.write_text(mask(render(flow, record, states, status)), encoding="utf-8")
    aside.replace(target)
    return target


def render(flow: Flow, record: RunRecord, states: Sequence[NodeState], status: str) -> str:
    drawn = {s.name: "cached" if s.cached_from else _DRAWN.get(s.status, "pending") for s in states}
    parts = [
        _head(flow, record, states, status),
        _failures(states),
        _metrics(states),
        f'<h2>The flow</h2><div class="drawing">{draw(flow, drawn)}</div>',
        _timings(states),
        _rows(states),
        _sections(states),
        _about(record),
    ]
    return page(f"{flow.name} · run {record.run}", "\n".join(p for p in parts if p))


def _head(flow: Flow, record: RunRecord, states: Sequence[NodeState], status: str) -> str:
    started = datetime.fromtimestamp(record.started, UTC)
    took = max((s.ended for s in states), default=0.0) - min((s.started for s in states if s.started), default=0.0)
    ran = sum(1 for s in states if s.status == "done" and not s.cached_from)
    cards = [
        (status, "status", "ok" if status == "done" else "bad"),
        (said_seconds(max(0.0, took)), "from first start to last end", ""),
        (f"{ran}", "nodes ran", ""),
        (f"{sum(1 for s in states if s.cached_from)}", "nodes from the cache", ""),
        (f"{sum(s.rows or 0 for s in states):,}", "rows written", ""),
    ]
    shown = "".join(
        f'<div class="card"><b class="{mark}">{escape(b)}</b><span>{escape(t)}</span></div>' for b, t, mark in cards
    )
    about = f"<p>{escape(flow.description)}</p>" if flow.description else ""
    return (f"<h1>{escape(flow.name)}</h1><p class='sub'>run {escape(record.run)} · {started:%Y-%m-%d %H:%M:%S} UTC"
            f" · data date {escape(record.date)}</p>{about}<div class='cards'>{shown}</div>")  # fmt: skip


def _failures(states: Sequence[NodeState]) -> str:
    failed = [s for s in states if s.status == "failed"]
    if not failed:
        return ""
    said = "".join(
        f"<section class='section wide'><h3 class='bad'>{escape(s.name)}</h3>"
        f"<pre>{escape(' '.join((s.code, s.error)).strip())}"
        + "".join(f"\n{p['file']}:{p['line']}: {p['code']} {escape(str(p['message']))}" for p in s.problems)
        + (f"\n  hint: {escape(s.hint)}" if s.hint else "") + "</pre></section>"
        for s in failed
    )  # fmt: skip
    return f"<h2>What failed</h2>{said}"


def _metrics(states: Sequence[NodeState]) -> str:
    """A row of figures a step, the way one reads them aloud."""
    steps = [(f"{s.name}.{step}", values) for s in states for step, values in s.result.get("metrics", {}).items()]
    if not steps:
        return ""
    parts = []
    for name, values in steps:
        cards = "".join(
            f'<div class="card"><b>{escape(said(value))}</b><span>{escape(metric)}</span></div>'
            for metric, value in values.items()
        )
        parts.append(f"<h3>{escape(name)}</h3><div class='cards figures'>{cards}</div>")
    return f"<h2>Metrics</h2>{''.join(parts)}"


def _timings(states: Sequence[NodeState]) -> str:
    """A bar a node on the run's own clock; what was reused has no length and is a diamond."""
    timed = [s for s in states if s.started]
    if not timed:
        return ""
    zero = min(s.started for s in timed)
    span = max(max(s.ended or s.started for s in timed) - zero, 1e-3)
    left, width, step = 180.0, 700.0, 26
    parts = []
    for tick in range(5):
        x = left + width * tick / 4
        parts.append(f'<line x1="{x:.1f}" x2="{x:.1f}" y1="0" y2="{len(timed) * step}" stroke="#eaeef2"/>'
                     f'<text x="{x:.1f}" y="{len(timed) * step + 16}" text-anchor="middle" fill="#57606a">'
                     f"{escape(said_seconds(span * tick / 4))}</text>")  # fmt: skip
    for number, state in enumerate(timed):
        x = left + (state.started - zero) / span * width
        length = max(((state.ended or state.started) - state.started) / span * width, 2.0)
        colour = _BAR.get("cached" if state.cached_from else state.status, "#8c959f")
        y = number * step + 5
        beyond = x + length > left + width * 0.8
        label_x, anchor = (x - 6, "end") if beyond and x > left + 80 else (x + length + 6, "start")
        label_x, fill = (label_x, "#57606a") if not (beyond and x <= left + 80) else (x + 8, "#ffffff")
        name = state.name if len(state.name) <= 26 else f"{state.name[:25]}…"
        parts.append(
            f'<text x="{left - 10}" y="{y + 12}" text-anchor="end" fill="#24292f">{escape(name)}</text>'
            f'<rect x="{x:.1f}" y="{y}" width="{length:.1f}" height="16" rx="3" fill="{colour}"/>'
            f'<text x="{label_x:.1f}" y="{y + 12}" text-anchor="{anchor}" fill="{fill}">{escape(told(state))}</text>'
        )
    height = len(timed) * step + 24
    svg = (f'<svg viewBox="0 0 900 {height}" xmlns="http://www.w3.org/2000/svg" role="img" '
           f'aria-label="when each node ran" '
           f'font-size="12" font-family="system-ui, sans-serif">{"".join(parts)}</svg>')  # fmt: skip
    return f'<h2>Timings</h2><div class="figure">{svg}</div>'


def _rows(states: Sequence[NodeState]) -> str:
    lines: list[list[Any]] = []
    for state in states:
        for name, output in state.outputs.items():
            lines.append([f"{state.name}.{name}", output.rows, output.size_bytes, output.path])
    steps = [[f"{s.name}.{step}", rows] for s in states for step, rows in s.result.get("rows", {}).items()]
    outputs = f"<h2>Outputs</h2>{table(['output', 'rows', 'bytes', 'path'], lines)}" if lines else ""
    return outputs + (f"<h2>Rows a step</h2>{table(['step', 'rows'], steps)}" if steps else "")


def _sections(states: Sequence[NodeState]) -> str:
    parts = []
    for state in states:
        sections: Sequence[Mapping[str, Any]] = state.result.get("sections", ())
        if sections:
            drawn = "".join(section_html(s) for s in sections)
            parts.append(f"<h2>{escape(state.name)}</h2><div class='sections'>{drawn}</div>")
    return "".join(parts)


def _about(record: RunRecord) -> str:
    rows = [["flow file", record.flow_file], ["run", record.run], ["date", record.date]]
    rows += [[f"parameter {name}", value] for name, value in record.params.items()]
    return f"<h2>This run</h2>{table(['', ''], rows)}"
