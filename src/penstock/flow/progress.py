"""What a person sees while a flow runs, on stderr: a live table on a terminal, plain lines anywhere else."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from penstock.flow.node_state import NodeState, Watcher

if TYPE_CHECKING:
    from rich.console import RenderableType

_MARKS = {"waiting": "·", "running": "▸", "done": "✓", "failed": "✗", "skipped": "–", "interrupted": "■"}
_COLOURS = {"waiting": "dim", "running": "cyan", "done": "green", "failed": "red", "skipped": "dim",
            "interrupted": "yellow"}  # fmt: skip


def watcher(stream: TextIO | None = None) -> PlainProgress | LiveProgress:
    """The right one for where stderr goes."""
    out = stream or sys.stderr
    return LiveProgress() if out.isatty() else PlainProgress(out)


class PlainProgress(Watcher):
    """One line when something changes, and one every ten seconds of a node's progress."""

    EVERY_S = 10.0

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._told: dict[str, float] = {}

    def __enter__(self) -> PlainProgress:
        return self

    def __exit__(self, *_: object) -> None:
        return None

    def started(self, run: str, nodes: tuple[str, ...], folder: Path) -> None:
        self._say(f"run {run}: {len(nodes)} node{'s' if len(nodes) != 1 else ''}")

    def node(self, state: NodeState) -> None:
        self._told[state.name] = time.monotonic()
        self._say(f"{state.name}: {told(state)}")

    def progress(self, state: NodeState, event: Mapping[str, Any]) -> None:
        if event.get("event") == "log":
            self._say(f"{state.name}: {event.get('message', '')}")
        elif event.get("event") == "progress":
            now = time.monotonic()
            if now - self._told.get(state.name, now) >= self.EVERY_S:
                self._told[state.name] = now
                self._say(f"{state.name}: {activity(event)}")

    def note(self, text: str) -> None:
        self._say(text)

    def _say(self, text: str) -> None:
        print(text, file=self._out, flush=True)


class LiveProgress(Watcher):
    """A table with a line a node: state, what it does now, rows, rows a second, time."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.live import Live

        self._states: dict[str, NodeState] = {}
        self._events: dict[str, Mapping[str, Any]] = {}
        self._names: tuple[str, ...] = ()
        self._live = Live(console=Console(stderr=True), refresh_per_second=8, get_renderable=self._table)

    def __enter__(self) -> LiveProgress:
        self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    def started(self, run: str, nodes: tuple[str, ...], folder: Path) -> None:
        self._names = nodes
        self._live.console.print(f"run {run}", style="bold", highlight=False)

    def node(self, state: NodeState) -> None:
        self._states[state.name] = state

    def progress(self, state: NodeState, event: Mapping[str, Any]) -> None:
        if event.get("event") == "progress":
            self._events[state.name] = event
        elif event.get("event") == "log":
            self._live.console.print(f"{state.name}: {event.get('message', '')}", highlight=False, markup=False)

    def note(self, text: str) -> None:
        self._live.console.print(text, highlight=False, markup=False)

    def _table(self) -> RenderableType:
        from rich.table import Table
        from rich.text import Text

        table = Table(box=None, pad_edge=False, header_style="dim")
        for heading, justify in (("", "left"), ("node", "left"), ("state", "left"), ("rows", "right"),
                                 ("rows/s", "right"), ("time", "right")):  # fmt: skip
            table.add_column(heading, justify=justify)  # type: ignore[arg-type]
        # The window may be smaller than the flow: what moves comes first, and the rest is counted.
        shown = sorted(self._names, key=lambda n: _order(self._states.get(n)))[:30]
        for name in (n for n in self._names if n in shown):
            state = self._states.get(name)
            status = state.status if state else "waiting"
            event = self._events.get(name, {}) if status == "running" else {}
            rows = state.rows if state and state.rows is not None else event.get("rows") or None
            seconds = state.seconds if state else 0.0
            doing = activity(event) if event else (told(state, short=True) if state else "waiting")
            rate = f"{rows / seconds:,.0f}" if rows and seconds > 0.05 and state and not state.cached_from else ""
            table.add_row(
                Text(_MARKS[status], style=_COLOURS[status]), Text(name), Text(doing, style=_COLOURS[status]),
                f"{rows:,}" if rows is not None else "", rate, said_seconds(seconds) if state else "",
            )  # fmt: skip
        if len(self._names) > len(shown):
            table.add_row("", Text(f"and {len(self._names) - len(shown)} more", style="dim"))
        return table


def _order(state: NodeState | None) -> int:
    return {"running": 0, "failed": 1, "done": 3}.get(state.status, 2) if state else 2


def told(state: NodeState, short: bool = False) -> str:
    """A node's state in words."""
    if state.status == "done" and state.cached_from:
        return "cached" if short else f"cached, from run {state.cached_from}"
    if state.status == "done" and state.kept:
        return "done before" if short else "done already in this run"
    if state.status == "done" and not short:
        rows = f", {state.rows:,} row{'s' if state.rows != 1 else ''}" if state.rows is not None else ""
        return f"done in {said_seconds(state.seconds)}{rows}"
    if state.status == "failed" and not short:
        return f"failed after {said_seconds(state.seconds)}"
    if state.status == "running" and state.tries > 1:
        return f"running, attempt {state.tries}"
    return state.status


def activity(event: Mapping[str, Any]) -> str:
    """What a progress event says, on one line."""
    parts = [str(event.get("step", "")), str(event.get("message", ""))]
    share = f"{event.get('done', 0):,} of {event.get('total', 0):,}"
    if event.get("total") and share not in parts[1]:
        parts.append(share)
    elif event.get("rows"):
        parts.append(f"{event['rows']:,} rows")
    return " ".join(p for p in parts if p)[:70]


def said_seconds(seconds: float) -> str:
    """0.42 s, 12.3 s, 3:05, 1:02:03."""
    if seconds < 60:
        return f"{seconds:.2f} s" if seconds < 10 else f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
